#include <binade/nn/rope_frequencies.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <binade/core/error.h>

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

// YaRN's ramp over the pairs of a head: up to `low` frequencies are kept, from `high` on divided by
// `factor` (Peng et al. 2023, section 3.2).
struct YarnRamp {
  double low, high;

  YarnRamp(int64_t rotated, const RopeConfig& config) {
    // The pair that turns so many times within the original context.
    const auto pair_of = [&](double rotations) {
      const double context = static_cast<double>(config.original_max_positions);
      return static_cast<double>(rotated) * std::log(context / (rotations * 2 * std::numbers::pi)) /
             (2 * std::log(config.theta));
    };
    low = pair_of(config.beta_fast);
    high = pair_of(config.beta_slow);
    if (config.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(rotated - 1));
    if (low == high) high += 0.001;
  }

  float divided(int64_t pair) const {  // share of the lower frequency
    const auto place = static_cast<float>(pair), begin = static_cast<float>(low);
    return std::clamp((place - begin) / static_cast<float>(high - low), 0.0f, 1.0f);
  }
};

// The base that a text of `length` tokens has beyond the original positions.
float dynamic_base(int64_t rotated, const RopeConfig& config, int64_t length) {
  const auto stretched = static_cast<float>(std::max(length, config.original_max_positions)) *
                         static_cast<float>(config.factor) /
                         static_cast<float>(config.original_max_positions);
  const auto size = static_cast<double>(rotated);
  return static_cast<float>(config.theta) *
         std::pow(stretched - static_cast<float>(config.factor - 1),
                  static_cast<float>(size / (size - 2)));
}

void check_scaling(int64_t rotated, const RopeConfig& config) {
  check(config.factor > 0, "the factor of rope_scaling must be positive, got ", config.factor);
  check(config.attention_factor >= 0 && std::isfinite(config.attention_factor),
        "the attention_factor of rope_scaling must be positive, got ", config.attention_factor);
  if (config.scaling == RopeScaling::none || config.scaling == RopeScaling::linear) return;
  const std::string_view name = name_of(config.scaling);
  check(config.original_max_positions > 0, name,
        " rope scaling needs original_max_position_embeddings > 0");
  if (config.scaling == RopeScaling::llama3)
    check(config.low_freq_factor > 0 && config.high_freq_factor > config.low_freq_factor,
          "llama3 rope scaling needs high_freq_factor > low_freq_factor > 0");
  if (config.scaling == RopeScaling::dynamic)
    check(rotated > 2 && config.factor >= 1,
          "dynamic rope scaling needs more than two dimensions that turn and a factor of 1 or "
          "more, got ",
          rotated, " and ", config.factor);
  if (config.scaling == RopeScaling::yarn)
    check(config.beta_slow > 0 && config.beta_fast >= config.beta_slow && config.theta > 1,
          "yarn rope scaling needs beta_fast >= beta_slow > 0 and a rope_theta above 1, got ",
          config.beta_fast, ", ", config.beta_slow, " and ", config.theta);
  if (config.scaling != RopeScaling::longrope) return;
  check(config.attention_factor > 0 || config.factor <= 1 || config.original_max_positions > 1,
        "longrope needs more than one original position, or an attention_factor");
  for (const auto* divisors : {&config.short_factor, &config.long_factor}) {
    check(static_cast<int64_t>(divisors->size()) == rotated / 2, "longrope needs ", rotated / 2,
          " numbers each in short_factor and long_factor, got ", divisors->size());
    for (const double divisor : *divisors)
      check(divisor > 0 && std::isfinite(divisor),
            "the numbers in longrope's short_factor and long_factor must be positive, got ",
            divisor);
  }
}

}  // namespace

std::string_view name_of(RopeScaling scaling) {
  constexpr std::array<std::string_view, 6> kNames = {"default", "linear",  "llama3",
                                                      "yarn",    "dynamic", "longrope"};
  return kNames[static_cast<size_t>(scaling)];
}

std::vector<float> rope_frequencies(int64_t head_dim, const RopeConfig& config, int64_t length) {
  check(config.partial_factor > 0 && config.partial_factor <= 1,
        "partial_rotary_factor lies in (0, 1], got ", config.partial_factor);
  const auto rotated = static_cast<int64_t>(static_cast<double>(head_dim) * config.partial_factor);
  check(rotated > 0 && rotated % 2 == 0 && rotated <= head_dim,
        "rotary embedding needs an even number of dimensions up to the head's ", head_dim, ", got ",
        rotated, " (partial_rotary_factor ", config.partial_factor, ")");
  check(config.theta > 0, "rope_theta must be positive, got ", config.theta);
  check_scaling(rotated, config);

  auto base = static_cast<float>(config.theta);
  const bool beyond = length > config.original_max_positions;
  if (config.scaling == RopeScaling::dynamic && beyond)
    base = dynamic_base(rotated, config, length);
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotated; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotated);
    const float period = std::pow(base, exponent);
    float frequency = 1 / period;
    switch (config.scaling) {
      case RopeScaling::linear:
        frequency /= static_cast<float>(config.factor);
        break;
      case RopeScaling::llama3:
        frequency = llama3_frequency(frequency, config);
        break;
      case RopeScaling::yarn: {
        const float divided = YarnRamp(rotated, config).divided(i / 2);
        frequency =
            1 / (static_cast<float>(config.factor) * period) * divided + frequency * (1 - divided);
        break;
      }
      case RopeScaling::longrope: {
        const auto& divisors = beyond ? config.long_factor : config.short_factor;
        frequency = 1 / (static_cast<float>(divisors[static_cast<size_t>(i / 2)]) * period);
        break;
      }
      default:
        break;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

float rope_amplitude(const RopeConfig& config) {
  if (config.attention_factor > 0) return static_cast<float>(config.attention_factor);
  if (config.factor <= 1) return 1;
  if (config.scaling == RopeScaling::longrope)
    return static_cast<float>(
        std::sqrt(1 + std::log(config.factor) /
                          std::log(static_cast<double>(config.original_max_positions))));
  if (config.scaling != RopeScaling::yarn) return 1;
  const auto grown = [&](double scale) { return 0.1 * scale * std::log(config.factor) + 1; };
  if (config.mscale != 0 && config.mscale_all_dim != 0)
    return static_cast<float>(grown(config.mscale) / grown(config.mscale_all_dim));
  return static_cast<float>(grown(1));
}

}  // namespace binade::nn
