#include <binade/nn/rotary.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include <binade/autograd/ops/attention.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/cuda/graph.h>

namespace binade::nn {
namespace {

// Lengths of texts whose tables are kept: twice the shapes that a training step keeps prepared, so
// that those are there when it captures one, and those of validation beside them.
constexpr size_t kKeptLengths = 32;

// Rows of cosines and sines.
class TableWriter {
 public:
  explicit TableWriter(const RopeConfig& config) : amplitude_(rope_amplitude(config)) {}

  void add(int64_t position, const std::vector<float>& frequencies) {
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      cos_.push_back(std::cos(angle) * amplitude_);
      sin_.push_back(std::sin(angle) * amplitude_);
    }
    ++rows_;
  }
  Array cos() const { return table(cos_); }
  Array sin() const { return table(sin_); }

 private:
  Array table(const std::vector<float>& values) const {
    return Array::from(values, {rows_, static_cast<int64_t>(values.size()) / rows_});
  }

  float amplitude_;
  int64_t rows_ = 0;
  std::vector<float> cos_, sin_;
};

}  // namespace

Tensor RotaryTables::rotate(const Tensor& x) const {
  if (!a_row_per_token_) return rope(transpose(x, 1, 2), cos_, sin_);
  // One long sequence of B·T tokens, since rope() takes one table for all rows of a batch.
  const int64_t batch = x.size(0), tokens = x.size(1), heads = x.size(2), head_dim = x.size(3);
  const Tensor flat = transpose(reshape(x, {1, batch * tokens, heads, head_dim}), 1, 2);
  const Tensor rotated = reshape(rope(flat, cos_, sin_), {heads, batch, tokens, head_dim});
  return transpose(rotated, 0, 1);
}

Rotary::Rotary(int64_t head_dim, int64_t max_positions, const RopeConfig& config)
    : head_dim_(head_dim), config_(config) {
  check(max_positions > 0, "rotary embedding needs positions, got ", max_positions);
  TableWriter table(config);
  std::vector<float> frequencies = rope_frequencies(head_dim, config);
  for (int64_t position = 0; position < max_positions; ++position) {
    const bool beyond = position >= config.original_max_positions;
    const bool changes = config.scaling == RopeScaling::dynamic
                             ? beyond
                             : beyond && position == config.original_max_positions;
    if (config.depends_on_length() && changes)
      frequencies = rope_frequencies(head_dim, config, position + 1);
    table.add(position, frequencies);
  }
  cos_ = add_buffer("cos", table.cos(), /*persistent=*/false);
  sin_ = add_buffer("sin", table.sin(), /*persistent=*/false);
}

Rotary::Tables Rotary::rows(int64_t begin, int64_t end) const {
  return {slice(*cos_, 0, begin, end), slice(*sin_, 0, begin, end)};
}

Rotary::Tables Rotary::of_text(int64_t length, int64_t tokens, bool keep) const {
  if (!config_.depends_on_length() || length <= config_.original_max_positions)
    return rows(0, tokens);
  // All longer texts are alike to longrope.
  const bool by_length = config_.scaling == RopeScaling::dynamic;
  const int64_t key = by_length ? length : 0, wanted = by_length ? tokens : cos_->size(0);
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(longer_.begin(), longer_.end(), [&](const Longer& longer) {
    const Tensor& cos = longer.tables.first;
    return longer.length == key && cos.size(0) >= wanted && cos.device() == cos_->device();
  });
  Tables tables;
  if (found != longer_.end()) {
    std::rotate(found, found + 1, longer_.end());
    tables = longer_.back().tables;
  } else {
    TableWriter table(config_);
    const std::vector<float> frequencies = rope_frequencies(head_dim_, config_, length);
    for (int64_t position = 0; position < wanted; ++position) table.add(position, frequencies);
    tables = {Tensor(table.cos().to(cos_->device())), Tensor(table.sin().to(cos_->device()))};
    if (!by_length || keep) {
      std::erase_if(longer_, [&](const Longer& longer) { return longer.length == key; });
      if (longer_.size() == kKeptLengths) longer_.erase(longer_.begin());
      longer_.push_back({key, tables});
    }
  }
  if constexpr (kCudaBuilt) cuda::keep_with_capture(std::make_shared<const Tables>(tables));
  return {slice(tables.first, 0, 0, tokens), slice(tables.second, 0, 0, tokens)};
}

RotaryTables Rotary::at(const Sequence& sequence, int64_t tokens) const {
  if (sequence.positions.defined()) {
    check(
        sequence.cache || !config_.depends_on_length() || tokens <= config_.original_max_positions,
        "rows of ", tokens, " tokens that hold several texts are longer than the ",
        config_.original_max_positions, " positions behind which the rope_type ",
        name_of(config_.scaling), " has other frequencies; take shorter rows, or a text a row");
    const Tensor positions = reshape(sequence.positions, {-1});
    return {embedding(*cos_, positions), embedding(*sin_, positions), true};
  }
  const int64_t end = sequence.start + tokens;
  check(end <= cos_->size(0), "position ", end - 1, " is beyond the model's ", cos_->size(0),
        " positions");
  if (!config_.depends_on_length() || end <= config_.original_max_positions) {
    const auto [cos, sin] = rows(sequence.start, end);
    return {cos, sin, false};
  }
  if (sequence.lengths.empty()) {
    const auto [cos, sin] = of_text(end, end, /*keep=*/sequence.cache == nullptr);
    return {slice(cos, 0, sequence.start), slice(sin, 0, sequence.start), false};
  }
  TensorList cos, sin;
  for (const int32_t length : sequence.lengths) {
    const Tables tables = of_text(length, tokens, /*keep=*/false);
    cos.push_back(tables.first);
    sin.push_back(tables.second);
  }
  return {cat(cos, 0), cat(sin, 0), true};
}

}  // namespace binade::nn
