#include <binade/nn/mot/position_embeddings.h>

#include <cmath>
#include <vector>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/shape.h>

namespace binade::nn {
namespace {

constexpr double kBase = 10000;

Array frequencies(int64_t count) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(
        static_cast<float>(std::pow(kBase, -static_cast<double>(i) / static_cast<double>(count))));
  return Array::from(values, {count});
}

}  // namespace

TimeEmbedding::TimeEmbedding(int64_t dim)
    : frequencies_(add_buffer("frequencies", frequencies(kFrequencies), /*persistent=*/false)),
      in_(add<Linear>("mlp.0", 2 * kFrequencies, dim)),
      out_(add<Linear>("mlp.2", dim, dim)) {}

Tensor TimeEmbedding::sinusoids(const Tensor& times) const {
  const Tensor angles = unsqueeze(times, -1) * *frequencies_;
  return cat({cos(angles), sin(angles)}, -1);
}

Tensor TimeEmbedding::forward(const Tensor& times) const {
  return out_->forward(silu(in_->forward(sinusoids(times))));
}

PositionTable2d::PositionTable2d(int64_t dim, int64_t side) {
  check(dim > 0 && dim % 4 == 0 && side > 0, "a table of two-dimensional positions needs a ",
        "positive side and a width that is a multiple of 4, got ", side, " and ", dim);
  const int64_t quarter = dim / 4;
  std::vector<float> values;
  for (int64_t place = 0; place < side * side; ++place)
    for (const int64_t at : {place % side, place / side})
      for (const bool cosine : {false, true})
        for (int64_t i = 0; i < quarter; ++i) {
          const double angle =
              static_cast<double>(at) *
              std::pow(kBase, -static_cast<double>(i) / static_cast<double>(quarter));
          values.push_back(static_cast<float>(cosine ? std::cos(angle) : std::sin(angle)));
        }
  table_ = add_buffer("pos_embed", Array::from(values, {side * side, dim}), /*persistent=*/false);
}

Tensor PositionTable2d::forward(const Tensor& places) const {
  return embedding(*table_, places);
}

}  // namespace binade::nn
