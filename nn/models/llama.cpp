#include <binade/nn/models/llama.h>

#include <algorithm>

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
  options.qk_norm_eps = config.qk_norm ? config.norm_eps : 0;
  options.dropout = config.attention_dropout;
  options.weight = options.output_weight = weight;
  return options;
}

}  // namespace

LlamaBlock::LlamaBlock(const CausalLmConfig& config, int64_t layer, const Initialiser& weight)
    : input_layernorm_(add<RmsNorm>("input_layernorm", config.dim, config.norm_eps)),
      post_attention_layernorm_(
          add<RmsNorm>("post_attention_layernorm", config.dim, config.norm_eps)),
      self_attn_(add<SelfAttention>("self_attn", attention_options(config, layer, weight))),
      mlp_(add<SwigluMlp>("mlp", config.dim, config.hidden_size(), config.mlp_bias, weight)) {}

std::pair<Tensor, Tensor> LlamaBlock::forward(const Tensor& x, const Tensor& n, const RmsNorm& next,
                                              const Sequence& sequence,
                                              const RotaryTables& rotary) const {
  const auto [middle, middle_n] =
      post_attention_layernorm_->forward_add(self_attn_->forward(n, sequence, rotary), x);
  return next.forward_add(mlp_->forward(middle_n), middle);
}

Llama::Llama(const CausalLmConfig& config, const CausalLmOptions& options)
    : CausalLm(config, options) {
  const Initialiser weight = weight_initialiser(config.initializer_range);
  rotary_ = add<Rotary>("model.rotary_emb", config.head_size(), config.max_positions, config.rope);
  add_embedding("model.embed_tokens");
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_.push_back(add<LlamaBlock>(concat("model.layers.", layer), config, layer, weight));
  norm_ = add<RmsNorm>("model.norm", config.dim, config.norm_eps);
  add_head();
}

Tensor Llama::trunk(const Tensor& ids, const Sequence& sequence, const Entering& entering) const {
  const RotaryTables rotary = rotary_->at(sequence, ids.size(1));
  Tensor x = embedding_table().forward(ids);
  const size_t layers = layers_of(sequence);
  const auto end = blocks_.begin() + static_cast<std::ptrdiff_t>(layers);
  const auto decodes = [&](const auto& block) { return block->decodes(x, sequence, rotary); };
  if (std::all_of(blocks_.begin(), end, decodes)) {
    kernels::FewRows stream = few_rows(x);
    for (size_t i = 0; i < layers; ++i)
      entering(i, Tensor(blocks_[i]->decode(stream, sequence, rotary).view(x.shape())));
    return Tensor(decoded_norm(stream, *norm_).normed.view(x.shape()));
  }
  Tensor n = blocks_.front()->input_norm()->forward(x);
  for (size_t i = 0; i < layers; ++i) {
    entering(i, x);
    const auto next = i + 1 < layers ? blocks_[i + 1]->input_norm() : norm_;
    const TensorList outputs = run_block(
        [block = blocks_[i], next, sequence, rotary](const TensorList& inputs) -> TensorList {
          const auto [y, y_n] = block->forward(inputs[0], inputs[1], *next, sequence, rotary);
          return {y, y_n};
        },
        {x, n});
    x = outputs[0];
    n = outputs[1];
  }
  return n;
}

}  // namespace binade::nn
