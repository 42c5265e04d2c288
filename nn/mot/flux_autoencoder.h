// FLUX's autoencoder, through whose latents BAGEL draws and sees: pictures to latents with an
// eighth of their sides, and back (a KL autoencoder of convolutions; Rombach et al. 2022, arXiv
// 2112.10752). Names are those of its file, ae.safetensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include <binade/nn/conv2d.h>

namespace binade::nn {

struct FluxAutoencoderConfig {
  int64_t channels = 128;                           // of the largest maps; a multiple of 32
  std::vector<int64_t> multipliers = {1, 2, 4, 4};  // of the channels, as maps get smaller
  int64_t blocks = 2;                               // of each size; the decoder has one more
  int64_t latent_channels = 16;
  double scale = 0.3611, shift = 0.1159;  // latents are scale · (x − shift)

  // A latent stands for so many pixels a side.
  int64_t downsample() const { return int64_t{1} << (std::ssize(multipliers) - 1); }
};

class FluxAutoencoder : public Module {
 public:
  // Throws Error for sizes that are not positive, and channels that are no multiple of 32.
  explicit FluxAutoencoder(const FluxAutoencoderConfig& config = {});

  struct Posterior {
    Tensor mean, log_variance;  // (N, latent_channels, H/8, W/8), not yet scaled
  };
  // pictures (N, 3, H, W) in [−1, 1]. Throws Error for another shape, and for sides that are not
  // multiples of downsample().
  Posterior posterior(const Tensor& pictures) const;
  // The latents of pictures, scaled: a sample of the posterior, whose noise ~ N(0, 1) has the shape
  // of the latents, or without it the mean.
  Tensor encode(const Tensor& pictures, const Tensor& noise = {}) const;
  // Scaled latents (N, latent_channels, h, w) → (N, 3, 8h, 8w), about [−1, 1].
  Tensor decode(const Tensor& latents) const;

  const FluxAutoencoderConfig& config() const { return config_; }

 private:
  class Encoder;
  class Decoder;
  FluxAutoencoderConfig config_;
  std::shared_ptr<Encoder> encoder_;
  std::shared_ptr<Decoder> decoder_;
};

// The autoencoder with the weights of a file, on the CPU in f32. Throws Error for a file that is
// none, and for tensors that are missing, unexpected, of another shape or not finite.
std::shared_ptr<FluxAutoencoder> load_flux_autoencoder(const std::filesystem::path& file,
                                                       const FluxAutoencoderConfig& config = {});

}  // namespace binade::nn
