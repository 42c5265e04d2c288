// How fast the pairs of a head turn: rope_theta, and how frequencies are stretched beyond the
// context that a model was pretrained on.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace binade::nn {

// Named as in Hugging Face's rope_type.
enum class RopeScaling : uint8_t {
  none,      // "default"
  linear,    // every frequency divided by factor (Chen et al. 2023)
  llama3,    // long wavelengths divided by factor, short ones kept, a ramp between (Llama 3.1)
  yarn,      // the ramp over dimensions, cosines and sines grown (Peng et al. 2023)
  dynamic,   // texts beyond the original positions get a larger base (NTK-aware, by length)
  longrope,  // a divisor for each frequency, others for longer texts (Ding et al. 2024)
};
std::string_view name_of(RopeScaling scaling);

struct RopeConfig {
  double theta = 10000;
  double partial_factor = 1;  // share of the head dimension that is rotated
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn: rotations where its ramp ends, begins
  bool truncate = true;                           // yarn: the ramp begins and ends at whole pairs
  double mscale = 0, mscale_all_dim = 0;          // yarn; 0: not given
  double attention_factor = 0;                    // yarn, longrope; 0: what the papers give
  std::vector<double> short_factor, long_factor;  // longrope: R/2 each
  int64_t original_max_positions = 0;             // all but none and linear

  // Whether a text of more than the original positions has other frequencies than a shorter one.
  bool depends_on_length() const {
    return scaling == RopeScaling::dynamic || scaling == RopeScaling::longrope;
  }
};

// The R/2 frequencies of a text of so many tokens (0: one within the original positions), in f32
// as pretraining computed them. Throws Error for values that do not fit together.
std::vector<float> rope_frequencies(int64_t head_dim, const RopeConfig& config, int64_t length = 0);

// What cosines and sines are multiplied by.
float rope_amplitude(const RopeConfig& config);

}  // namespace binade::nn
