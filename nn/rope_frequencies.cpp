#include <cmath>
#include <numbers>

#include <binade/nn/rotary.h>

namespace binade::nn {
namespace {

// Llama 3.1's interpolation between a frequency and a `factor` lower one, by wavelength.
float llama3_frequency(float frequency, const RopeConfig& config) {
  const auto factor = static_cast<float>(config.factor);
  const auto low = static_cast<float>(config.low_freq_factor);
  const auto high = static_cast<float>(config.high_freq_factor);
  const auto context = static_cast<float>(config.original_max_positions);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength > context / low) return frequency / factor;
  if (wavelength < context / high) return frequency;
  const float smooth = (context / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_frequencies(int64_t head_dim, const RopeConfig& config) {
  check(config.partial_factor > 0 && config.partial_factor <= 1,
        "partial_rotary_factor lies in (0, 1], got ", config.partial_factor);
  const auto rotated = static_cast<int64_t>(static_cast<double>(head_dim) * config.partial_factor);
  check(rotated > 0 && rotated % 2 == 0 && rotated <= head_dim,
        "rotary embedding needs an even number of dimensions up to the head's ", head_dim, ", got ",
        rotated, " (partial_rotary_factor ", config.partial_factor, ")");
  check(config.theta > 0, "rope_theta must be positive, got ", config.theta);
  check(config.factor > 0, "the factor of rope_scaling must be positive, got ", config.factor);
  if (config.scaling == RopeScaling::llama3)
    check(config.original_max_positions > 0 && config.low_freq_factor > 0 &&
              config.high_freq_factor > config.low_freq_factor,
          "llama3 rope scaling needs original_max_position_embeddings > 0 and high_freq_factor > "
          "low_freq_factor > 0");

  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotated; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotated);
    float frequency = 1 / std::pow(static_cast<float>(config.theta), exponent);
    if (config.scaling == RopeScaling::linear) frequency /= static_cast<float>(config.factor);
    if (config.scaling == RopeScaling::llama3) frequency = llama3_frequency(frequency, config);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace binade::nn
