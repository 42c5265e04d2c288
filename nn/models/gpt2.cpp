#include <binade/nn/models/gpt2.h>

#include <cmath>

namespace binade::nn {
namespace {

SelfAttentionOptions attention_options(const CausalLmConfig& config, int64_t layer,
                                       const Initialiser& weight,
                                       const Initialiser& residual_weight) {
  SelfAttentionOptions options;
  options.layer = layer;
  options.dim = config.dim;
  options.heads = config.heads;
  options.bias = options.output_bias = true;
  options.dropout = config.attention_dropout;
  options.weight = weight;
  options.output_weight = residual_weight;
  options.scale =
      config.scale_attention ? 1 / std::sqrt(static_cast<double>(config.head_size())) : 1;
  if (config.scale_attention_by_inverse_layer) options.scale /= static_cast<double>(layer + 1);
  return options;
}

}  // namespace

Gpt2Block::Gpt2Block(const CausalLmConfig& config, int64_t layer, const Initialiser& weight,
                     const Initialiser& residual_weight)
    : ln_1_(add<LayerNorm>("ln_1", config.dim, config.norm_eps)),
      ln_2_(add<LayerNorm>("ln_2", config.dim, config.norm_eps)),
      attn_(add<PackedSelfAttention>("attn",
                                     attention_options(config, layer, weight, residual_weight))),
      mlp_(add<Mlp>("mlp", config.dim, config.hidden_size(), config.activation, weight,
                    residual_weight)),
      dropout_(add<Dropout>("dropout", config.residual_dropout)) {}

std::pair<Tensor, Tensor> Gpt2Block::forward(const Tensor& x, const Tensor& n,
                                             const LayerNorm& next,
                                             const Sequence& sequence) const {
  const auto [middle, middle_n] =
      ln_2_->forward_add(dropout_->forward(attn_->forward(n, sequence)), x);
  return next.forward_add(dropout_->forward(mlp_->forward(middle_n)), middle);
}

Gpt2::Gpt2(const CausalLmConfig& config, const CausalLmOptions& options)
    : CausalLm(config, options) {
  const Initialiser weight = weight_initialiser(config.initializer_range);
  // Projections into the residual stream start smaller, as their contributions add up.
  const Initialiser residual_weight = weight_initialiser(
      config.initializer_range / std::sqrt(2 * static_cast<double>(config.layers)));
  add_embedding("transformer.wte");
  wpe_ = add<Embedding>("transformer.wpe", config.max_positions, config.dim, weight);
  dropout_ = add<Dropout>("transformer.drop", config.embedding_dropout);
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_.push_back(
        add<Gpt2Block>(concat("transformer.h.", layer), config, layer, weight, residual_weight));
  ln_f_ = add<LayerNorm>("transformer.ln_f", config.dim, config.norm_eps);
  add_head();
}

Tensor Gpt2::position_embeddings(const Sequence& sequence, int64_t tokens) const {
  if (sequence.positions.defined()) return wpe_->forward(sequence.positions);
  return slice(wpe_->weight()->tensor(), 0, sequence.start, sequence.start + tokens);
}

Tensor Gpt2::trunk(const Tensor& ids, const Sequence& sequence, const Entering& entering) const {
  Tensor x = dropout_->forward(embed(ids) + position_embeddings(sequence, ids.size(1)));
  Tensor n = blocks_.front()->input_norm()->forward(x);
  const size_t layers = layers_of(sequence);
  for (size_t i = 0; i < layers; ++i) {
    entering(i, x);
    const auto next = i + 1 < layers ? blocks_[i + 1]->input_norm() : ln_f_;
    const TensorList outputs = run_block(
        [block = blocks_[i], next, sequence](const TensorList& inputs) -> TensorList {
          const auto [y, y_n] = block->forward(inputs[0], inputs[1], *next, sequence);
          return {y, y_n};
        },
        {x, n});
    x = outputs[0];
    n = outputs[1];
  }
  return n;
}

bool Gpt2::transposed_in_files(const std::string& name) const {
  return name.ends_with(".c_attn.weight") || name.ends_with(".c_proj.weight") ||
         name.ends_with(".c_fc.weight");
}

}  // namespace binade::nn
