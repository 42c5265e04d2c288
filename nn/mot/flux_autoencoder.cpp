#include <binade/nn/mot/flux_autoencoder.h>

#include <algorithm>
#include <cmath>
#include <string>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/shape.h>
#include <binade/nn/group_norm.h>
#include <binade/nn/mot/weights.h>
#include <binade/nn/state.h>
#include <binade/nn/upsample.h>

namespace binade::nn {
namespace {

constexpr int64_t kGroups = 32, kColours = 3;
constexpr double kNormEps = 1e-6;
const Conv2dOptions kSameSize = {.padding = {1, 1}};

const FluxAutoencoderConfig& checked(const FluxAutoencoderConfig& config) {
  constexpr int64_t kLargest = 1 << 20, kMostSizes = 16;
  for (const int64_t size : {config.channels, config.blocks, config.latent_channels})
    check(size <= kLargest, "no autoencoder has ", size, " channels, blocks or latents");
  check(std::ssize(config.multipliers) <= kMostSizes &&
            std::all_of(config.multipliers.begin(), config.multipliers.end(),
                        [](int64_t one) { return one <= kLargest; }),
        "an autoencoder has at most ", kMostSizes, " sizes of maps, with possible multipliers");
  check(std::isfinite(config.scale) && config.scale != 0 && std::isfinite(config.shift),
        "latents cannot be scaled by ", config.scale, " and shifted by ", config.shift);
  check(config.channels > 0 && config.channels % kGroups == 0 && config.blocks > 0 &&
            config.latent_channels > 0 && !config.multipliers.empty() &&
            std::all_of(config.multipliers.begin(), config.multipliers.end(),
                        [](int64_t one) { return one > 0; }),
        "an autoencoder needs channels that are a multiple of ", kGroups,
        ", blocks, latents and multipliers that are positive, got ", config.channels, ", ",
        config.blocks, ", ", config.latent_channels, " and ", config.multipliers.size(),
        " multipliers");
  return config;
}

class ResidualBlock : public Module {
 public:
  ResidualBlock(int64_t in, int64_t out)
      : norm1_(add<GroupNorm>("norm1", kGroups, in, kNormEps)),
        norm2_(add<GroupNorm>("norm2", kGroups, out, kNormEps)),
        conv1_(add<Conv2d>("conv1", in, out, 3, kSameSize)),
        conv2_(add<Conv2d>("conv2", out, out, 3, kSameSize)) {
    if (in != out) shortcut_ = add<Conv2d>("nin_shortcut", in, out, 1);
  }

  Tensor forward(const Tensor& x) const {
    const Tensor middle = conv1_->forward(silu(norm1_->forward(x)));
    const Tensor change = conv2_->forward(silu(norm2_->forward(middle)));
    return (shortcut_ ? shortcut_->forward(x) : x) + change;
  }

 private:
  std::shared_ptr<GroupNorm> norm1_, norm2_;
  std::shared_ptr<Conv2d> conv1_, conv2_, shortcut_;
};

// Every pixel attends to all, with one head.
class AttentionBlock : public Module {
 public:
  explicit AttentionBlock(int64_t channels)
      : norm_(add<GroupNorm>("norm", kGroups, channels, kNormEps)),
        q_(add<Conv2d>("q", channels, channels, 1)),
        k_(add<Conv2d>("k", channels, channels, 1)),
        v_(add<Conv2d>("v", channels, channels, 1)),
        proj_out_(add<Conv2d>("proj_out", channels, channels, 1)) {}

  Tensor forward(const Tensor& x) const {
    const Tensor normed = norm_->forward(x);
    const auto pixels = [&](const Conv2d& layer) {  // (N, 1, H · W, C)
      const Tensor y = layer.forward(normed);
      return unsqueeze(contiguous(transpose(reshape(y, {y.size(0), y.size(1), -1}), 1, 2)), 1);
    };
    const Tensor seen = scaled_dot_product_attention(pixels(*q_), pixels(*k_), pixels(*v_));
    return x + proj_out_->forward(reshape(transpose(squeeze(seen, 1), 1, 2), x.shape()));
  }

 private:
  std::shared_ptr<GroupNorm> norm_;
  std::shared_ptr<Conv2d> q_, k_, v_, proj_out_;
};

// Blocks on maps of one size, and what leads to the next.
enum class Resampling : uint8_t { none, down, up };

class Stage : public Module {
 public:
  Stage(int64_t blocks, int64_t in, int64_t out, Resampling resampling) : resampling_(resampling) {
    for (int64_t i = 0; i < blocks; ++i)
      blocks_.push_back(add<ResidualBlock>(concat("block.", i), i == 0 ? in : out, out));
    if (resampling == Resampling::down)
      conv_ = add<Conv2d>("downsample.conv", out, out, 3, Conv2dOptions{.stride = {2, 2}});
    if (resampling == Resampling::up) conv_ = add<Conv2d>("upsample.conv", out, out, 3, kSameSize);
  }

  Tensor forward(Tensor x) const {
    for (const auto& block : blocks_) x = block->forward(x);
    if (resampling_ == Resampling::down) return conv_->forward(pad(x, {0, 1, 0, 1}));
    return resampling_ == Resampling::up ? conv_->forward(Upsample(2).forward(x)) : x;
  }

 private:
  Resampling resampling_;
  std::vector<std::shared_ptr<ResidualBlock>> blocks_;
  std::shared_ptr<Conv2d> conv_;
};

class Middle : public Module {
 public:
  explicit Middle(int64_t channels)
      : first_(add<ResidualBlock>("block_1", channels, channels)),
        attention_(add<AttentionBlock>("attn_1", channels)),
        second_(add<ResidualBlock>("block_2", channels, channels)) {}

  Tensor forward(const Tensor& x) const {
    return second_->forward(attention_->forward(first_->forward(x)));
  }

 private:
  std::shared_ptr<ResidualBlock> first_;
  std::shared_ptr<AttentionBlock> attention_;
  std::shared_ptr<ResidualBlock> second_;
};

// The last norm and convolution of both halves.
class Output : public Module {
 public:
  Output(int64_t in, int64_t out)
      : norm_(add<GroupNorm>("norm_out", kGroups, in, kNormEps)),
        conv_(add<Conv2d>("conv_out", in, out, 3, kSameSize)) {}

  Tensor forward(const Tensor& x) const { return conv_->forward(silu(norm_->forward(x))); }

 private:
  std::shared_ptr<GroupNorm> norm_;
  std::shared_ptr<Conv2d> conv_;
};

}  // namespace

class FluxAutoencoder::Encoder : public Module {
 public:
  explicit Encoder(const FluxAutoencoderConfig& config) {
    int64_t width = config.channels;
    conv_in_ = add<Conv2d>("conv_in", kColours, width, 3, kSameSize);
    const size_t sizes = config.multipliers.size();
    for (size_t i = 0; i < sizes; ++i) {
      const int64_t out = config.channels * config.multipliers[i];
      stages_.push_back(add<Stage>(concat("down.", i), config.blocks, width, out,
                                   i + 1 < sizes ? Resampling::down : Resampling::none));
      width = out;
    }
    middle_ = add<Middle>("mid", width);
    output_ = add<Output>("", width, 2 * config.latent_channels);
  }

  Tensor forward(const Tensor& pictures) const {
    Tensor x = conv_in_->forward(pictures);
    for (const auto& stage : stages_) x = stage->forward(x);
    return output_->forward(middle_->forward(x));
  }

 private:
  std::shared_ptr<Conv2d> conv_in_;
  std::vector<std::shared_ptr<Stage>> stages_;
  std::shared_ptr<Middle> middle_;
  std::shared_ptr<Output> output_;
};

class FluxAutoencoder::Decoder : public Module {
 public:
  explicit Decoder(const FluxAutoencoderConfig& config) {
    int64_t width = config.channels * config.multipliers.back();
    conv_in_ = add<Conv2d>("conv_in", config.latent_channels, width, 3, kSameSize);
    middle_ = add<Middle>("mid", width);
    for (size_t i = config.multipliers.size(); i-- > 0;) {
      const int64_t out = config.channels * config.multipliers[i];
      stages_.push_back(add<Stage>(concat("up.", i), config.blocks + 1, width, out,
                                   i > 0 ? Resampling::up : Resampling::none));
      width = out;
    }
    output_ = add<Output>("", width, kColours);
  }

  Tensor forward(const Tensor& latents) const {
    Tensor x = middle_->forward(conv_in_->forward(latents));
    for (const auto& stage : stages_) x = stage->forward(x);
    return output_->forward(x);
  }

 private:
  std::shared_ptr<Conv2d> conv_in_;
  std::shared_ptr<Middle> middle_;
  std::vector<std::shared_ptr<Stage>> stages_;
  std::shared_ptr<Output> output_;
};

FluxAutoencoder::FluxAutoencoder(const FluxAutoencoderConfig& config)
    : config_(checked(config)),
      encoder_(add<Encoder>("encoder", config)),
      decoder_(add<Decoder>("decoder", config)) {}

FluxAutoencoder::Posterior FluxAutoencoder::posterior(const Tensor& pictures) const {
  const int64_t side = config_.downsample();
  check(pictures.dims() == 4 && pictures.size(1) == kColours && pictures.size(2) > 0 &&
            pictures.size(3) > 0 && pictures.size(2) % side == 0 && pictures.size(3) % side == 0,
        "pictures for the autoencoder are (N, ", kColours, ", H, W) with sides that are multiples ",
        "of ", side, ", got ", pictures.shape());
  const std::vector<Tensor> halves = chunk(encoder_->forward(pictures), 2, 1);
  return {halves[0], halves[1]};
}

Tensor FluxAutoencoder::encode(const Tensor& pictures, const Tensor& noise) const {
  const Posterior made = posterior(pictures);
  Tensor x = made.mean;
  if (noise.defined()) {
    check(noise.shape() == x.shape(), "the noise of latents ", x.shape(), " has their shape, got ",
          noise.shape());
    x = x + exp(0.5 * made.log_variance) * noise;
  }
  return config_.scale * (x - config_.shift);
}

Tensor FluxAutoencoder::decode(const Tensor& latents) const {
  check(latents.dims() == 4 && latents.size(1) == config_.latent_channels && latents.numel() > 0,
        "latents are (N, ", config_.latent_channels, ", h, w), got ", latents.shape());
  return decoder_->forward(latents / config_.scale + config_.shift);
}

std::shared_ptr<FluxAutoencoder> load_flux_autoencoder(const std::filesystem::path& file,
                                                       const FluxAutoencoderConfig& config) {
  auto model = std::make_shared<FluxAutoencoder>(config);
  load_weights(*model, read_state(file), file);
  model->eval();
  return model;
}

}  // namespace binade::nn
