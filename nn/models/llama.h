// Llama and its relatives (Touvron et al. 2023; SmolLM2 and 3, Mistral, Qwen2, Qwen3, Phi-3, OLMo
// 2, Gemma 3): RMS norms, attention of grouped heads, a gated MLP. Where they differ is in
// CausalLmConfig: where the norms are, biases, QK norm, windows, layers without rotary positions,
// fused projections, activation, scales.
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
  // Layer `layer` of the model, and of a key-value cache.
  LlamaBlock(const CausalLmConfig& config, int64_t layer, const Initialiser& weight);

  // In front of attention; null where a family has none there.
  const std::shared_ptr<RmsNorm>& input_norm() const { return input_layernorm_; }
  // What attention reads of a stream that enters here: its input norm, or the stream itself.
  Tensor enter(const Tensor& x) const;
  // x: the residual stream, n: enter(x), both (B, T, dim). Returns the stream behind this block and
  // `next` of it: an addition is fused with the norm that follows. next null: the stream twice.
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& n, const RmsNorm* next,
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

  // In front of attention and of the MLP, and behind them; null where the family has none.
  std::shared_ptr<RmsNorm> input_layernorm_, attention_norm_, pre_mlp_norm_, mlp_norm_;
  std::shared_ptr<SelfAttention> self_attn_;
  std::shared_ptr<GatedMlp> mlp_;
};

class Llama : public CausalLm {
 public:
  explicit Llama(const CausalLmConfig& config, const CausalLmOptions& options = {});

 private:
  Tensor trunk(const Tensor& ids, const Sequence& sequence,
               const Entering& entering) const override;
  // By layer: those of windowed ones may be others.
  std::vector<RotaryTables> rotary_tables(const Sequence& sequence, int64_t tokens,
                                          size_t layers) const;

  std::shared_ptr<Rotary> rotary_, window_rotary_;  // the second null: the first
  std::vector<std::shared_ptr<LlamaBlock>> blocks_;
  std::shared_ptr<RmsNorm> norm_;
};

}  // namespace binade::nn
