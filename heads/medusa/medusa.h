// Medusa heads (Cai et al. 2024, arXiv 2401.10774): each predicts a token further ahead from the
// last hidden state of a language model, which need not be changed for it.
#pragma once

#include <memory>
#include <vector>

#include <binade/autograd/ops/multi_head_loss.h>
#include <binade/heads/decoding/base_weights.h>
#include <binade/nn/models/causal_lm.h>

namespace binade::heads::medusa {

struct MedusaConfig {
  int64_t heads = 4;   // K
  int64_t layers = 1;  // residual blocks a head, L
  // Every head has an output layer of its own, which begins as the language model's. Otherwise all
  // use the language model's.
  bool own_output = true;
};

// Head k = 1 … K: L times h ← h + SiLU(W·h + b), W and b of zeros at first, then a linear layer to
// the vocabulary. At position t it predicts token t + k + 1; the language model itself predicts
// t + 1. So the heads begin as copies of the language model's own prediction.
//
// Parameters are named as in FasterDecoding's files: "{k}.{j}.linear.weight", "….bias" for block
// j < L and "{k}.{L}.weight" for the output layer, with k from 0.
class MedusaHeads : public nn::Module {
 public:
  // The language model is kept; it is no child, so that it is neither trained nor saved with the
  // heads. Weights are made on the CPU in f32.
  MedusaHeads(std::shared_ptr<const nn::CausalLm> base, const MedusaConfig& config);

  const MedusaConfig& config() const { return config_; }
  const nn::CausalLm& base() const { return *base_; }

  // hidden (…, dim), the language model's behind its last norm → (…, dim) of head k (from 0).
  Tensor hidden(int64_t k, const Tensor& hidden) const;
  // Of head k, (≥ vocab_size, dim): its own, or the model's.
  Tensor output_weight(int64_t k) const;
  // Of head k: output() of what hidden() gives, (…, dim) → logits (…, vocab_size).
  Tensor output(int64_t k, const Tensor& hidden) const;
  // hidden (…, dim) → logits (…, vocab_size) of head k.
  Tensor logits(int64_t k, const Tensor& hidden) const;
  // The heads as multi_head_loss takes them, with the coefficients λ_k.
  std::vector<DecodingHead> loss_heads(const std::vector<double>& coefficients) const;

 private:
  // One residual block.
  class Block : public nn::Module {
   public:
    explicit Block(int64_t dim);
    const std::shared_ptr<nn::Linear>& linear() const { return linear_; }

   private:
    std::shared_ptr<nn::Linear> linear_;
  };
  class Head : public nn::Module {
   public:
    Head(const nn::CausalLm& base, const MedusaConfig& config);
    const std::vector<std::shared_ptr<Block>>& blocks() const { return blocks_; }
    const std::shared_ptr<nn::Linear>& output() const { return output_; }  // null: the base's

   private:
    std::vector<std::shared_ptr<Block>> blocks_;
    std::shared_ptr<nn::Linear> output_;
  };
  const Head& head(int64_t k) const;

  std::shared_ptr<const nn::CausalLm> base_;
  MedusaConfig config_;
  std::vector<std::shared_ptr<Head>> heads_;
};

using decoding::weights_fingerprint;

}  // namespace binade::heads::medusa
