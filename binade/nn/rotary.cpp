#include <binade/nn/rotary.h>

#include <cmath>
#include <numbers>

#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>

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

Tensor RotaryTables::rotate(const Tensor& x) const {
  if (!a_row_per_token_) return rope(transpose(x, 1, 2), cos_, sin_);
  // One long sequence of B·T tokens, since rope() takes one table for all rows of a batch.
  const int64_t batch = x.size(0), tokens = x.size(1), heads = x.size(2), head_dim = x.size(3);
  const Tensor flat = transpose(reshape(x, {1, batch * tokens, heads, head_dim}), 1, 2);
  const Tensor rotated = reshape(rope(flat, cos_, sin_), {heads, batch, tokens, head_dim});
  return transpose(rotated, 0, 1);
}

Rotary::Rotary(int64_t head_dim, int64_t max_positions, const RopeConfig& config) {
  check(max_positions > 0, "rotary embedding needs positions, got ", max_positions);
  const std::vector<float> frequencies = rope_frequencies(head_dim, config);
  std::vector<float> cos, sin;
  cos.reserve(frequencies.size() * static_cast<size_t>(max_positions));
  sin.reserve(cos.capacity());
  for (int64_t position = 0; position < max_positions; ++position) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
  }
  const Shape shape = {max_positions, static_cast<int64_t>(frequencies.size())};
  cos_ = add_buffer("cos", Array::from(cos, shape), /*persistent=*/false);
  sin_ = add_buffer("sin", Array::from(sin, shape), /*persistent=*/false);
}

RotaryTables Rotary::at(const Sequence& sequence, int64_t tokens) const {
  if (sequence.positions.defined()) {
    const Tensor positions = reshape(sequence.positions, {-1});
    return {embedding(*cos_, positions), embedding(*sin_, positions), true};
  }
  const int64_t end = sequence.start + tokens;
  check(end <= cos_->size(0), "position ", end - 1, " is beyond the model's ", cos_->size(0),
        " positions");
  return {slice(*cos_, 0, sequence.start, end), slice(*sin_, 0, sequence.start, end), false};
}

}  // namespace binade::nn
