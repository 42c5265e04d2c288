// Llama and its relatives (Touvron et al. 2023; SmolLM2, Qwen2, Qwen3): rotary positions, RMS norm
// before each part, SwiGLU, grouped heads; biases and QK norm where the configuration has them.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <binade/nn/attention.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/nn/norm.h>

namespace binade::nn {

class LlamaBlock : public Module {
 public:
  LlamaBlock(const CausalLmConfig& config, int64_t layer, const Initialiser& weight);

  const std::shared_ptr<RmsNorm>& input_norm() const { return input_layernorm_; }
  // x: the residual stream, n: its input norm, both (B, T, dim). Returns the stream behind this
  // block and `next` of it: every addition is fused with the norm that follows.
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& n, const RmsNorm& next,
                                    const Sequence& sequence, const RotaryTables& rotary) const;

  // For the few rows of a step of decoding, on a GPU and without gradients
  // (core/kernels/few_rows.h): takes stream.x (B·T, dim) and stream.parts to what they are behind
  // this block, by two to five kernels. Gives the stream that entered, in one piece. Only where
  // decodes() says so of x (B, T, dim).
  bool decodes(const Tensor& x, const Sequence& sequence, const RotaryTables& rotary) const;
  Array decode(kernels::FewRows& stream, const Sequence& sequence,
               const RotaryTables& rotary) const;

 private:
  bool decodes_in_parts(const kernels::FewRows& stream, const Sequence& sequence,
                        const RotaryTables& rotary) const;

  std::shared_ptr<RmsNorm> input_layernorm_, post_attention_layernorm_;
  std::shared_ptr<SelfAttention> self_attn_;
  std::shared_ptr<SwigluMlp> mlp_;
};

class Llama : public CausalLm {
 public:
  explicit Llama(const CausalLmConfig& config, const CausalLmOptions& options = {});

 private:
  Tensor trunk(const Tensor& ids, const Sequence& sequence,
               const Entering& entering) const override;
  std::shared_ptr<Rotary> rotary_;
  std::vector<std::shared_ptr<LlamaBlock>> blocks_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace binade::nn
