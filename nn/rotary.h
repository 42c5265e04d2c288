// Rotary position embedding (Su et al. 2021): tables of cosines and sines in f32.
#pragma once

#include <vector>

#include <binade/nn/module.h>
#include <binade/nn/sequence.h>

namespace binade::nn {

// How frequencies are stretched beyond the context that a model was pretrained on; named as in
// Hugging Face's rope_type.
enum class RopeScaling : uint8_t {
  none,    // "default"
  linear,  // every frequency divided by factor (Chen et al. 2023)
  llama3,  // long wavelengths divided by factor, short ones kept, a ramp between (Llama 3.1)
};

struct RopeConfig {
  double theta = 10000;
  double partial_factor = 1;  // share of the head dimension that is rotated
  RopeScaling scaling = RopeScaling::none;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  int64_t original_max_positions = 0;                // llama3
};

// The R/2 frequencies, in f32 as pretraining computed them.
std::vector<float> rope_frequencies(int64_t head_dim, const RopeConfig& config);

// The rows of the tables for one forward pass.
class RotaryTables {
 public:
  RotaryTables(Tensor cos, Tensor sin, bool a_row_per_token)
      : cos_(std::move(cos)), sin_(std::move(sin)), a_row_per_token_(a_row_per_token) {}
  // x (B, T, H, D), the layout of a projection → rotated, (B, H, T, D).
  Tensor rotate(const Tensor& x) const;
  // Whether the rows of a batch share their positions, and so these tables (T, R/2).
  bool shared() const { return !a_row_per_token_; }
  const Tensor& cos() const { return cos_; }
  const Tensor& sin() const { return sin_; }

 private:
  Tensor cos_, sin_;  // (T, R/2), or (B·T, R/2) with a row per token
  bool a_row_per_token_;
};

class Rotary : public Module {
 public:
  Rotary(int64_t head_dim, int64_t max_positions, const RopeConfig& config);
  // The rows for `tokens` tokens a sequence. Throws Error beyond max_positions (unless the
  // positions are on the device: then the device's fault word says so).
  RotaryTables at(const Sequence& sequence, int64_t tokens) const;

 private:
  BufferPtr cos_, sin_;  // (max_positions, R/2)
};

}  // namespace binade::nn
