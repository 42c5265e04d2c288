// A model that reads texts and images and draws: one transformer over packed rows of text, of what
// a ViT sees, and of latents that are noised (BAGEL, arXiv 2505.14683). Its names are those of
// BAGEL's files.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <binade/data/slot_packer.h>
#include <binade/nn/embedding.h>
#include <binade/nn/mot/block.h>
#include <binade/nn/mot/position_embeddings.h>
#include <binade/nn/mot/siglip.h>

namespace binade::nn {

struct MotConfig {
  MotBlockConfig block;
  int64_t layers = 6, vocab_size = 64, max_positions = 1024;
  double rope_theta = 10000;
  SiglipConfig vit;                 // patch_values and places follow from `pixels`
  data::PatchGrid pixels, latents;  // how images are cut for the ViT, and latents

  // Throws Error for what no model can have: sizes that are not positive, do not divide each other
  // or ask for tables beyond all memory, and epsilons and a theta that are not positive.
  void validate() const;
};

// What a pass reads; data/slot_packer.h makes it. Of a pass without latents, or without anything
// for the ViT, those tensors are undefined.
struct MotInputs {
  Tensor ids;            // (B, U) i32
  Tensor slots;          // (B, 4, U + G) i32
  Tensor positions;      // (B, U + G) i32
  Tensor latents;        // (B, G, values) f32, x_t
  Tensor times;          // (B, G) f32 in [0, 1]: 0 where nothing is noised
  Tensor latent_places;  // (B, G) i32
  Tensor patches;        // (B, V, values) f32
  Tensor patch_places, patch_images, patch_slots;  // (B, V) i32; slot U: a spare one
  SlotStore* store = nullptr;
};

class MotModel : public Module {
 public:
  explicit MotModel(const MotConfig& config);  // validates it

  // Hidden states behind the last norm, (B, U, dim) and (B, G, dim).
  Halves forward(const MotInputs& in) const;
  // The velocity that the flow has at latents, ε − x0, from their hidden states: (B, G, dim) → (B,
  // G, values) f32. A fresh model says 0.
  Tensor velocity(const Tensor& generation) const;
  // (…, dim) → (…, vocab_size).
  Tensor logits(const Tensor& understanding) const { return lm_head_->forward(understanding); }
  const Tensor& head_weight() const { return lm_head_->weight()->tensor(); }

  const MotConfig& config() const { return config_; }
  // The tables of positions, by the names they have in BAGEL's files.
  std::vector<std::pair<std::string, std::shared_ptr<PositionTable2d>>> tables() const {
    return {{"latent_pos_embed.pos_embed", latent_pos_embed_},
            {"vit_pos_embed.pos_embed", vit_pos_embed_}};
  }

 private:
  Tensor embed_understanding(const MotInputs& in) const;
  Tensor embed_generation(const MotInputs& in) const;
  DType stream_dtype() const { return embed_tokens_->weight()->tensor().dtype(); }

  MotConfig config_;
  std::shared_ptr<Rotary> rotary_;
  std::shared_ptr<Embedding> embed_tokens_;
  std::vector<std::shared_ptr<MotBlock>> blocks_;
  Experts<RmsNorm> norm_;
  std::shared_ptr<Linear> lm_head_;
  std::shared_ptr<TimeEmbedding> time_embedder_;
  std::shared_ptr<Linear> vae2llm_, llm2vae_;
  std::shared_ptr<PositionTable2d> latent_pos_embed_, vit_pos_embed_;
  std::shared_ptr<Siglip> vit_model_;
  std::shared_ptr<Linear> connector_in_, connector_out_;
};

}  // namespace binade::nn
