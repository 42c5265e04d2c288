// Multi-head self-attention (Vaswani et al. 2017), causal, with or without a key-value cache.
#pragma once

#include <memory>

#include <binade/nn/linear.h>
#include <binade/nn/norm.h>
#include <binade/nn/rotary.h>
#include <binade/nn/sequence.h>

namespace binade::nn {

// Where queries and keys go through an RMS norm in front of their rotation.
enum class QkNorm : uint8_t {
  none,
  head,   // each head by itself (Qwen3)
  width,  // all heads of a token together (OLMo 2)
};

struct SelfAttentionOptions {
  int64_t layer = 0;      // its number in the model: the key of the cache
  int64_t dim = 0;        // of the hidden states
  int64_t input_dim = 0;  // of what queries, keys and values read; 0: dim
  int64_t heads = 0;      // query heads
  int64_t kv_heads =
      0;  // key and value heads (grouped queries, Ainslie et al. 2023); 0: as `heads`
  int64_t head_dim = 0;  // 0: dim / heads
  bool bias = false;     // of the query, key and value projections
  bool output_bias = false;
  bool fused = false;  // one layer qkv_proj: queries, keys, values (Phi-3)
  QkNorm qk_norm = QkNorm::none;
  double norm_eps = 1e-6;      // of that norm
  bool norm_from_one = false;  // see RmsNorm
  bool rotary = true;          // whether queries and keys are rotated
  int64_t window = 0;          // > 0: a token sees so many positions at most, its own among them
  double scale = 0;            // of the scores; 0: 1/√head_dim
  double dropout = 0;          // on the probabilities, while training
  Initialiser weight = init::normal(0.02);
  Initialiser output_weight = init::normal(0.02);

  int64_t key_heads() const { return kv_heads ? kv_heads : heads; }
  int64_t head_size() const { return head_dim ? head_dim : dim / heads; }
};

// Projections under the names of Hugging Face's Llama: q_proj, k_proj, v_proj (or qkv_proj),
// o_proj, and q_norm, k_norm. Positions are rotary.
class SelfAttention : public Module {
 public:
  explicit SelfAttention(const SelfAttentionOptions& options);
  // x (B, T, input_dim) → (B, T, dim).
  Tensor forward(const Tensor& x, const Sequence& sequence, const RotaryTables& rotary) const;

  // residual + attention(in) for few rows (core/kernels/few_rows.h): in.x and residual (B·T, dim);
  // or with in.sum attention(in), in parts. Only where decodes() says so of such an `in`.
  bool decodes(const kernels::FewRows& in, const Sequence& sequence,
               const RotaryTables& rotary) const;
  Array decode(const kernels::FewRows& in, const Array& residual, const Sequence& sequence,
               const RotaryTables& rotary) const;

 private:
  struct Projected {
    Tensor q, k, v;  // (B, T, H·D)
  };
  Projected project(const Tensor& x) const;
  // What the kernels for few rows read.
  kernels::FewRowsAttention decoded_layers(const RotaryTables& rotary, bool with_output) const;
  // The same side by side, (B, T, (Hq + 2·Hkv)·D): one matmul where can_pack() says so.
  bool can_pack() const;
  Tensor project_packed(const Tensor& x) const;

  SelfAttentionOptions options_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_;  // or
  std::shared_ptr<Linear> qkv_proj_;
  std::shared_ptr<Linear> o_proj_;
  std::shared_ptr<RmsNorm> q_norm_, k_norm_;
};

// One packed projection under the names of Hugging Face's GPT-2: c_attn (queries, keys, values),
// c_proj. Knows no positions.
class PackedSelfAttention : public Module {
 public:
  explicit PackedSelfAttention(const SelfAttentionOptions& options);
  // x (B, T, dim) → (B, T, dim).
  Tensor forward(const Tensor& x, const Sequence& sequence) const;

 private:
  SelfAttentionOptions options_;
  std::shared_ptr<Linear> c_attn_, c_proj_;
};

}  // namespace binade::nn
