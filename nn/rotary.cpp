#include <binade/nn/rotary.h>

#include <cmath>

#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>

namespace binade::nn {

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
