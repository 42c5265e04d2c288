#include <binade/nn/models/llama.h>

#include <cmath>

#include <binade/core/kernels/few_rows.h>
#include <binade/nn/decode.h>

namespace binade::nn {
namespace {

SelfAttentionOptions attention_options(const CausalLmConfig& config, int64_t layer,
                                       const Initialiser& weight) {
  SelfAttentionOptions options;
  options.layer = layer;
  options.dim = config.dim;
  options.heads = config.heads;
  options.kv_heads = config.key_heads();
  options.head_dim = config.head_size();
  options.bias = config.attention_bias;
  options.output_bias = config.attention_output_bias;
  options.fused = config.fused_projections;
  options.qk_norm = config.qk_norm;
  options.norm_eps = config.norm_eps;
  options.norm_from_one = config.norm_from_one;
  options.rotary = config.rotates(layer);
  options.window = config.window_of(layer);
  if (config.query_pre_attn_scalar > 0)
    options.scale = 1 / std::sqrt(static_cast<double>(config.query_pre_attn_scalar));
  options.dropout = config.attention_dropout;
  options.weight = options.output_weight = weight;
  return options;
}

// What stands for the norm of a stream where there is none. A place of its own on the tape, so that
// gradients are added up in one order whether a block is recomputed or not.
Tensor as_norm(const Tensor& x) {
  return reshape(x, x.shape());
}

// The sum, and `norm` of it, if there is one.
std::pair<Tensor, Tensor> add_and_norm(const RmsNorm* norm, const Tensor& x,
                                       const Tensor& residual) {
  if (norm) return norm->forward_add(x, residual);
  const Tensor sum = x + residual;
  return {sum, as_norm(sum)};
}

Tensor norm_if(const std::shared_ptr<RmsNorm>& norm, const Tensor& x) {
  return norm ? norm->forward(x) : x;
}

}  // namespace

Tensor LlamaBlock::enter(const Tensor& x) const {
  return input_layernorm_ ? input_layernorm_->forward(x) : as_norm(x);
}

LlamaBlock::LlamaBlock(const CausalLmConfig& config, int64_t layer, const Initialiser& weight) {
  const auto norm = [&](const char* name) {
    return add<RmsNorm>(name, config.dim, config.norm_eps, config.norm_from_one);
  };
  // post_attention_layernorm stands in front of the MLP in some families, in others behind
  // attention.
  switch (config.norms) {
    case NormPlacement::before:
      input_layernorm_ = norm("input_layernorm");
      pre_mlp_norm_ = norm("post_attention_layernorm");
      break;
    case NormPlacement::behind:
      attention_norm_ = norm("post_attention_layernorm");
      mlp_norm_ = norm("post_feedforward_layernorm");
      break;
    case NormPlacement::around:
      input_layernorm_ = norm("input_layernorm");
      attention_norm_ = norm("post_attention_layernorm");
      pre_mlp_norm_ = norm("pre_feedforward_layernorm");
      mlp_norm_ = norm("post_feedforward_layernorm");
      break;
  }
  self_attn_ = add<SelfAttention>("self_attn", attention_options(config, layer, weight));
  mlp_ = add<GatedMlp>("mlp", GatedMlpOptions{.dim = config.dim,
                                              .hidden = config.hidden_size(),
                                              .bias = config.mlp_bias,
                                              .activation = config.activation,
                                              .fused = config.fused_projections,
                                              .weight = weight});
}

std::pair<Tensor, Tensor> LlamaBlock::forward(const Tensor& x, const Tensor& n, const RmsNorm* next,
                                              const Sequence& sequence,
                                              const RotaryTables& rotary) const {
  const auto [middle, middle_n] = add_and_norm(
      pre_mlp_norm_.get(), norm_if(attention_norm_, self_attn_->forward(n, sequence, rotary)), x);
  return add_and_norm(next, norm_if(mlp_norm_, mlp_->forward(middle_n)), middle);
}

Llama::Llama(const CausalLmConfig& config, const CausalLmOptions& options)
    : CausalLm(config, options) {
  const Initialiser weight = weight_initialiser(config.initializer_range);
  const auto rotary = [&](const char* name, const RopeConfig& rope) {
    return add<Rotary>(name, config.head_size(), config.max_positions, rope);
  };
  rotary_ = rotary("model.rotary_emb", config.rope);
  if (config.window_rope) window_rotary_ = rotary("model.rotary_emb_local", *config.window_rope);
  add_embedding("model.embed_tokens");
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_.push_back(add<LlamaBlock>(concat("model.layers.", layer), config, layer, weight));
  norm_ = add<RmsNorm>("model.norm", config.dim, config.norm_eps, config.norm_from_one);
  add_head();
}

std::vector<RotaryTables> Llama::rotary_tables(const Sequence& sequence, int64_t tokens,
                                               size_t layers) const {
  const RotaryTables tables = rotary_->at(sequence, tokens);
  std::vector<RotaryTables> by_layer(layers, tables);
  if (!window_rotary_) return by_layer;
  const RotaryTables of_windows = window_rotary_->at(sequence, tokens);
  for (size_t i = 0; i < layers; ++i)
    if (config().window_of(static_cast<int64_t>(i)) > 0) by_layer[i] = of_windows;
  return by_layer;
}

Tensor Llama::trunk(const Tensor& ids, const Sequence& sequence, const Entering& entering) const {
  const size_t layers = layers_of(sequence);
  const std::vector<RotaryTables> rotary = rotary_tables(sequence, ids.size(1), layers);
  Tensor x = embed(ids);
  bool decodes = true;
  for (size_t i = 0; decodes && i < layers; ++i)
    decodes = blocks_[i]->decodes(x, sequence, rotary[i]);
  if (decodes) {
    kernels::FewRows stream = few_rows(x);
    for (size_t i = 0; i < layers; ++i)
      entering(i, Tensor(blocks_[i]->decode(stream, sequence, rotary[i]).view(x.shape())));
    return Tensor(decoded_norm(stream, *norm_).normed.view(x.shape()));
  }
  Tensor n = blocks_.front()->enter(x);
  for (size_t i = 0; i < layers; ++i) {
    entering(i, x);
    const auto next = i + 1 < layers ? blocks_[i + 1]->input_norm() : norm_;
    const TensorList outputs = run_block(
        [block = blocks_[i], next, sequence,
         tables = rotary[i]](const TensorList& inputs) -> TensorList {
          const auto [y, y_n] = block->forward(inputs[0], inputs[1], next.get(), sequence, tables);
          return {y, y_n};
        },
        {x, n});
    x = outputs[0];
    n = outputs[1];
  }
  return n;
}

}  // namespace binade::nn
