#include <binade/nn/mot/siglip.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/mlp.h>

namespace binade::nn {

SiglipLayer::SiglipLayer(const SiglipConfig& config)
    : heads_(config.heads),
      layer_norm1_(add<LayerNorm>("layer_norm1", config.dim, config.norm_eps)),
      layer_norm2_(add<LayerNorm>("layer_norm2", config.dim, config.norm_eps)),
      q_proj_(add<Linear>("self_attn.q_proj", config.dim, config.dim)),
      k_proj_(add<Linear>("self_attn.k_proj", config.dim, config.dim)),
      v_proj_(add<Linear>("self_attn.v_proj", config.dim, config.dim)),
      out_proj_(add<Linear>("self_attn.out_proj", config.dim, config.dim)),
      fc1_(add<Linear>("mlp.fc1", config.dim, config.hidden)),
      fc2_(add<Linear>("mlp.fc2", config.hidden, config.dim)) {
  check(config.heads > 0 && config.dim % config.heads == 0, "a width of ", config.dim,
        " cannot be shared by ", config.heads, " heads");
}

Tensor SiglipLayer::forward(const Tensor& x, const Tensor& images) const {
  AttentionOptions options;
  options.documents = images;
  const Tensor attended = out_proj_->forward(packed_attention(
      forward_joint(layer_norm1_->forward(x), {q_proj_.get(), k_proj_.get(), v_proj_.get()}),
      heads_, heads_, options));
  const auto [middle, normed] = layer_norm2_->forward_add(attended, x);
  return middle + gelu_mlp(normed, fc1_->weight()->tensor(), fc1_->bias()->tensor(),
                           fc2_->weight()->tensor(), fc2_->bias()->tensor());
}

Siglip::Siglip(const SiglipConfig& config)
    : patch_embedding_(
          add<Linear>("vision_model.embeddings.patch_embedding", config.patch_values, config.dim)),
      position_embedding_(
          add<Embedding>("vision_model.embeddings.position_embedding", config.places, config.dim)) {
  for (int64_t i = 0; i < config.layers; ++i)
    layers_.push_back(add<SiglipLayer>(concat("vision_model.encoder.layers.", i), config));
  post_layernorm_ = add<LayerNorm>("vision_model.post_layernorm", config.dim, config.norm_eps);
}

Tensor Siglip::forward(const Tensor& patches, const Tensor& places, const Tensor& images) const {
  Tensor x = patch_embedding_->forward(patches) + position_embedding_->forward(places);
  for (const auto& layer : layers_) x = layer->forward(x, images);
  return post_layernorm_->forward(x);
}

}  // namespace binade::nn
