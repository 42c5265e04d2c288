// Multi-token prediction: transformer layers behind a language model that predict tokens further
// ahead, through the model's own embedding and output layer.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include <binade/autograd/ops/multi_head_loss.h>
#include <binade/autograd/recompute.h>
#include <binade/heads/decoding/base_weights.h>
#include <binade/heads/mtp/layer.h>

namespace binade::heads::mtp {

enum class Kind : uint8_t {
  // One layer a head, all on the residual stream that enters the model's last layer, which is the
  // head of the next token itself (Gloeckle et al. 2024, arXiv 2404.19737; their n is K + 1).
  parallel,
  // A module a depth, each on the hidden states of the one before and the token it has learnt of
  // (DeepSeek-V3, arXiv 2412.19437, section 2.2).
  sequential,
  // One such module, applied K times (FastMTP).
  recursive,
};
std::string_view name_of(Kind kind);
Kind parse_kind(std::string_view name);  // Error for another name

// Where implementations of modules differ.
struct Conventions {
  bool embedding_first = true;        // the projection reads [embedding; hidden state]
  bool recurs_behind_norm = true;     // what the next depth reads is behind the output norm
  bool zero_first_embedding = false;  // at position 0 the token is not seen
  bool operator==(const Conventions&) const = default;
};

struct MtpConfig {
  Kind kind = Kind::sequential;
  int64_t depth = 1;        // K: tokens predicted beyond the next
  Conventions conventions;  // of modules; parallel heads have none
};

// u = M·[norm(embedding); norm(hidden)], one causal layer, an output norm. Parameters:
// "embedding_norm.weight", "hidden_norm.weight", "projection.weight" (dim, 2·dim), "layer.…",
// "norm.…". The first two norms are RMS norms in every family.
class MtpModule : public nn::Module {
 public:
  MtpModule(const nn::CausalLmConfig& config, const Conventions& conventions,
            std::shared_ptr<const nn::Rotary> rotary);

  struct States {
    Tensor output;     // behind the output norm: what the output layer reads
    Tensor recurring;  // what the next depth reads
  };
  // embedding and hidden (B, T, dim): row i is what the module learns at position i.
  States forward(const Tensor& embedding, const Tensor& hidden, const nn::Sequence& sequence) const;
  OwnLayer& layer() const { return *layer_; }

 private:
  Conventions conventions_;
  std::shared_ptr<nn::RmsNorm> embedding_norm_, hidden_norm_;
  std::shared_ptr<nn::Linear> projection_;
  std::shared_ptr<OwnLayer> layer_;
};

// Depth k = 1 … K at position i predicts token i + k + 1; the model itself predicts i + 1. Modules
// there know the tokens up to i + k; parallel heads those up to i.
//
// Parameters are named "0.…", "1.…": those of a head or module, of which a recursive one is alone.
class MtpHeads : public nn::Module {
 public:
  // The language model is kept; it is no child, so that it is neither trained nor saved with the
  // heads. Weights are made on the CPU in f32: drawn, or with `copy_last` those of layers and
  // norms copied from the model's last layer, so that parallel heads begin as its own prediction.
  MtpHeads(std::shared_ptr<const nn::CausalLm> base, const MtpConfig& config,
           bool copy_last = true);

  const MtpConfig& config() const { return config_; }
  const nn::CausalLm& base() const { return *base_; }
  // What `outputs` does not keep for backward; blocks: of a depth, all but its input.
  void set_recompute(Recompute choice) { recompute_ = choice; }

  // What heads read of the model.
  struct Trunk {
    Tensor hidden;  // (B, T, dim), behind its last norm
    Tensor stream;  // (B, T, dim), entering its last layer; for parallel heads
  };
  Trunk trunk(const Tensor& ids, const nn::Sequence& sequence) const;
  // The states of all depths on whole texts, (B, T, dim) each, for the output layer: ids (B, T),
  // and documents (B, T) where rows have several texts (tokens further ahead are those of the same
  // one). Rows whose token lies behind the end of a text mean nothing.
  TensorList outputs(const Trunk& trunk, const Tensor& ids, const Tensor& documents,
                     const nn::Sequence& sequence) const;
  // For multi_head_loss: each with its own of `outputs` and the model's output layer.
  std::vector<DecodingHead> loss_heads(const TensorList& outputs,
                                       const std::vector<double>& coefficients) const;

  // For those who decode, k from 0: of modules, and of parallel heads (stream → output).
  const MtpModule& module(int64_t k) const;
  Tensor parallel_output(int64_t k, const Tensor& stream, const nn::Sequence& sequence) const;

 private:
  // `part` must own what it captures: it may run again in backward.
  TensorList run(const std::function<TensorList(const TensorList&)>& part,
                 const TensorList& inputs) const;
  const std::shared_ptr<MtpModule>& module_at(int64_t k) const;

  std::shared_ptr<const nn::CausalLm> base_;
  MtpConfig config_;
  std::shared_ptr<nn::Rotary> rotary_;               // null: GPT-2
  std::vector<std::shared_ptr<MtpModule>> modules_;  // sequential and recursive
  std::vector<std::shared_ptr<OwnLayer>> heads_;     // parallel
  Recompute recompute_ = Recompute::nothing;
};

}  // namespace binade::heads::mtp
