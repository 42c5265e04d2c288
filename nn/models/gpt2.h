// GPT-2 (Radford et al. 2019): learned positions, layer norm before each part, GELU.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <binade/nn/attention.h>
#include <binade/nn/dropout.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/nn/norm.h>

namespace binade::nn {

class Gpt2Block : public Module {
 public:
  Gpt2Block(const CausalLmConfig& config, int64_t layer, const Initialiser& weight,
            const Initialiser& residual_weight);

  const std::shared_ptr<LayerNorm>& input_norm() const { return ln_1_; }
  // x: the residual stream, n: its input norm, both (B, T, dim). Returns the stream behind this
  // block and `next` of it: every addition is fused with the norm that follows.
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& n, const LayerNorm& next,
                                    const Sequence& sequence) const;

 private:
  std::shared_ptr<LayerNorm> ln_1_, ln_2_;
  std::shared_ptr<PackedSelfAttention> attn_;
  std::shared_ptr<Mlp> mlp_;
  std::shared_ptr<Dropout> dropout_;
};

class Gpt2 : public CausalLm {
 public:
  explicit Gpt2(const CausalLmConfig& config, const CausalLmOptions& options = {});

 private:
  Tensor trunk(const Tensor& ids, const Sequence& sequence,
               const Entering& entering) const override;
  bool transposed_in_files(const std::string& name) const override;
  Tensor position_embeddings(const Sequence& sequence, int64_t tokens) const;

  std::shared_ptr<Embedding> wpe_;
  std::shared_ptr<Dropout> dropout_;
  std::vector<std::shared_ptr<Gpt2Block>> blocks_;
  std::shared_ptr<LayerNorm> ln_f_;
};

}  // namespace binade::nn
