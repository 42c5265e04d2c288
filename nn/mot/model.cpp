#include <binade/nn/mot/model.h>

#include <binade/autograd/create.h>
#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/indexing.h>

namespace binade::nn {

MotModel::MotModel(const MotConfig& config) : config_(config) {
  config.validate();
  const int64_t dim = config.block.dim;
  RopeConfig rope;
  rope.theta = config.rope_theta;
  rotary_ = add<Rotary>("language_model.model.rotary_emb", config.block.head_dim(),
                        config.max_positions, rope);
  embed_tokens_ = add<Embedding>("language_model.model.embed_tokens", config.vocab_size, dim,
                                 init::normal(0.02));
  for (int64_t layer = 0; layer < config.layers; ++layer)
    blocks_.push_back(
        add<MotBlock>(concat("language_model.model.layers.", layer), config.block, layer));
  norm_ = make_experts<RmsNorm>(
      "language_model.model.norm", config.block.experts != ExpertChoice::dense,
      [&](const std::string& name) { return add<RmsNorm>(name, dim, config.block.norm_eps); });
  lm_head_ =
      add<Linear>("language_model.lm_head", dim, config.vocab_size, false, init::normal(0.02));
  time_embedder_ = add<TimeEmbedding>("time_embedder", dim);
  vae2llm_ = add<Linear>("vae2llm", config.latents.values(), dim);
  llm2vae_ = add<Linear>("llm2vae", dim, config.latents.values(), true, init::zeros());
  latent_pos_embed_ = add<PositionTable2d>("latent_pos_embed", dim, config.latents.side);
  SiglipConfig vit = config.vit;
  vit.patch_values = config.pixels.values();
  vit.places = config.pixels.side * config.pixels.side;
  vit_model_ = add<Siglip>("vit_model", vit);
  connector_in_ = add<Linear>("connector.fc1", config.vit.dim, dim);
  connector_out_ = add<Linear>("connector.fc2", dim, dim);
  vit_pos_embed_ = add<PositionTable2d>("vit_pos_embed", dim, config.pixels.side);
}

Tensor MotModel::embed_understanding(const MotInputs& in) const {
  const Tensor words = embed_tokens_->forward(in.ids);  // (B, U, dim)
  if (!in.patches.defined()) return words;
  const Tensor read = vit_model_->forward(in.patches, in.patch_places, in.patch_images);
  const Tensor connected = connector_out_->forward(gelu_tanh(connector_in_->forward(read)));
  const Tensor seen =
      binade::to(connected + vit_pos_embed_->forward(in.patch_places), stream_dtype());
  // A slot more a row takes what spare patches write.
  const int64_t rows = words.size(0), slots = words.size(1), dim = words.size(2);
  const Tensor first_slots =
      unsqueeze(arange(rows, DType::i32, words.device()) * static_cast<double>(slots + 1), 1);
  const Tensor places = reshape(in.patch_slots + first_slots, {-1});
  const Tensor flat = reshape(pad(words, {0, 0, 0, 1}), {rows * (slots + 1), dim});
  const Tensor with_images = index_put(flat, {places}, reshape(seen, {-1, dim}));
  return slice(reshape(with_images, {rows, slots + 1, dim}), 1, 0, slots);
}

Tensor MotModel::embed_generation(const MotInputs& in) const {
  if (!in.latents.defined()) return {};
  return binade::to(vae2llm_->forward(in.latents) + time_embedder_->forward(in.times) +
                        latent_pos_embed_->forward(in.latent_places),
                    stream_dtype());
}

Halves MotModel::forward(const MotInputs& in) const {
  Halves x{embed_understanding(in), embed_generation(in)};
  const int64_t tokens = in.positions.size(1);
  check(x.split() + (x.generation.defined() ? x.generation.size(1) : 0) == tokens, "a pass has ",
        tokens, " positions for ", x.split(), " understanding slots and ",
        x.generation.defined() ? x.generation.size(1) : 0, " generation slots");
  Sequence sequence;
  sequence.positions = in.positions;
  const SlotPass pass{in.slots, rotary_->at(sequence, tokens), in.store};
  for (const auto& block : blocks_) x = block->forward(x, pass);
  return norm_.forward(x);
}

Tensor MotModel::velocity(const Tensor& generation) const {
  return binade::to(llm2vae_->forward(generation), DType::f32);
}

}  // namespace binade::nn
