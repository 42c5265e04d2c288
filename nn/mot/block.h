// The block of a mixture of transformers: Qwen2's, with RMS norms on queries and keys, whose layers
// are one for all tokens or one for each half of the packed rows. Attention is over both halves.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <binade/nn/linear.h>
#include <binade/nn/mlp.h>
#include <binade/nn/mot/experts.h>
#include <binade/nn/norm.h>
#include <binade/nn/rotary.h>

namespace binade::nn {

// What generation has of its own. The arithmetic a token costs is the same for all.
enum class ExpertChoice : uint8_t {
  dense,  // nothing
  moe,    // MLPs and the last norm
  mot,    // every layer of a block and the last norm
};
// "dense", "moe" or "mot"; Error for another name.
ExpertChoice parse_expert_choice(std::string_view name);
std::string_view name_of(ExpertChoice choice);

struct MotBlockConfig {
  int64_t dim = 256, heads = 8, kv_heads = 4, hidden = 704;
  double norm_eps = 1e-6;
  ExpertChoice experts = ExpertChoice::mot;

  int64_t head_dim() const { return dim / heads; }
};

// What holds keys of earlier passes (infer/slot_cache.h has the one that drawing and answering
// use), and says what the tokens of this one see.
class SlotStore {
 public:
  virtual ~SlotStore() = default;
  // q (B, Hq, T, D), k and v (B, Hkv, T, D) of a layer, rotated → (B, Hq, T, D), laid out (B, T,
  // Hq, D). No gradient.
  virtual Tensor attend(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) = 0;
};

// A forward pass over packed rows.
struct SlotPass {
  Tensor slots;  // (B, 4, T) i32, understanding first: AttentionOptions::query_slots
  RotaryTables rotary;
  SlotStore* store = nullptr;  // or null: tokens see those of the pass alone
};

class MotAttention : public Module {
 public:
  MotAttention(const MotBlockConfig& config, int64_t layer);
  Halves forward(const Halves& x, const SlotPass& pass) const;  // (B, U | G, dim) each

 private:
  struct Projected {
    Halves q, k, v;  // (B, U | G, H, D)
  };
  Projected project(const Halves& x) const;

  MotBlockConfig config_;
  int64_t layer_;
  Experts<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
  Experts<RmsNorm> q_norm_, k_norm_;
};

class MotBlock : public Module {
 public:
  MotBlock(const MotBlockConfig& config, int64_t layer);
  Halves forward(const Halves& x, const SlotPass& pass) const;

 private:
  Experts<RmsNorm> input_layernorm_, post_attention_layernorm_;
  std::shared_ptr<MotAttention> self_attn_;
  Experts<GatedMlp> mlp_;
};

}  // namespace binade::nn
