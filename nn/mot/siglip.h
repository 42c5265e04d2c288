// SigLIP's vision transformer without its pooling head (Zhai et al. 2023; Tschannen et al. 2025),
// on patches of many images packed into rows (NaViT, Dehghani et al. 2023). Names are those of
// Hugging Face's SiglipVisionModel.
#pragma once

#include <memory>
#include <vector>

#include <binade/nn/embedding.h>
#include <binade/nn/linear.h>
#include <binade/nn/norm.h>

namespace binade::nn {

struct SiglipConfig {
  int64_t dim = 128, layers = 4, heads = 4, hidden = 512;
  int64_t patch_values = 48;  // numbers in a patch
  int64_t places = 256;       // rows of the learned position table
  double norm_eps = 1e-6;
};

class SiglipLayer : public Module {
 public:
  explicit SiglipLayer(const SiglipConfig& config);
  // x (B, V, dim), images (B, V) i32: a patch sees those of its own image.
  Tensor forward(const Tensor& x, const Tensor& images) const;

 private:
  int64_t heads_;
  std::shared_ptr<LayerNorm> layer_norm1_, layer_norm2_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, out_proj_, fc1_, fc2_;
};

class Siglip : public Module {
 public:
  explicit Siglip(const SiglipConfig& config);
  // patches (B, V, patch_values), places and images (B, V) i32 → (B, V, dim), behind
  // post_layernorm. Spare slots, of image −1, give numbers that nobody reads.
  Tensor forward(const Tensor& patches, const Tensor& places, const Tensor& images) const;

 private:
  std::shared_ptr<Linear> patch_embedding_;
  std::shared_ptr<Embedding> position_embedding_;
  std::vector<std::shared_ptr<SiglipLayer>> layers_;
  std::shared_ptr<LayerNorm> post_layernorm_;
};

}  // namespace binade::nn
