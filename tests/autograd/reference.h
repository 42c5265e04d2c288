// Plain f64 arithmetic that the op table's references are written in: values with a shape, filled
// index by index. Slow, and free of anything the library computes with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include <binade/core/shape.h>

namespace binade::test {

using Index = std::vector<int64_t>;

struct Values {
  Shape shape;
  std::vector<double> data;  // row-major

  int64_t size(int dim) const { return shape.at(dim); }
  // Element at a position that may have more dimensions (broadcasting: they are dropped from the
  // front, and positions in dimensions of size 1 do not count).
  double operator()(const Index& index) const {
    const size_t extra = index.size() - static_cast<size_t>(shape.dims());
    int64_t offset = 0;
    for (int i = 0; i < shape.dims(); ++i)
      offset = offset * shape[i] + (shape[i] == 1 ? 0 : index[static_cast<size_t>(i) + extra]);
    return data.at(static_cast<size_t>(offset));
  }
};

inline void for_each_index(const Shape& shape, const std::function<void(const Index&)>& visit) {
  Index index(static_cast<size_t>(shape.dims()), 0);
  for (int64_t left = shape.numel(); left > 0; --left) {
    visit(index);
    for (int i = shape.dims() - 1; i >= 0; --i) {
      if (++index[static_cast<size_t>(i)] < shape[i]) break;
      index[static_cast<size_t>(i)] = 0;
    }
  }
}

inline Values fill(const Shape& shape, const std::function<double(const Index&)>& element) {
  Values values{shape, {}};
  for_each_index(shape, [&](const Index& index) { values.data.push_back(element(index)); });
  return values;
}

inline Values scalar(double value) {
  return {Shape(), {value}};
}

inline Shape broadcast_shape(const Shape& a, const Shape& b) {
  const int dims = std::max(a.dims(), b.dims());
  Shape shape = Shape::filled(dims, 1);
  for (int i = 0; i < dims; ++i)
    for (const Shape& operand : {a, b}) {
      const int j = i - (dims - operand.dims());
      if (j >= 0 && operand[j] != 1) shape[i] = operand[j];
    }
  return shape;
}

inline Values map(const Values& x, const std::function<double(double)>& f) {
  return fill(x.shape, [&](const Index& i) { return f(x(i)); });
}

inline Values map(const Values& a, const Values& b,
                  const std::function<double(double, double)>& f) {
  return fill(broadcast_shape(a.shape, b.shape), [&](const Index& i) { return f(a(i), b(i)); });
}

// Calls `f` with the elements of every line or block that the reduced axes span.
inline Values reduce(const Values& x, const std::vector<int>& axes, bool keep_dims,
                     const std::function<double(const std::vector<double>&)>& f) {
  std::vector<bool> reduced(static_cast<size_t>(x.shape.dims()), axes.empty());
  for (int axis : axes)
    reduced[static_cast<size_t>(axis < 0 ? axis + x.shape.dims() : axis)] = true;
  Shape inner, kept, result;
  for (int i = 0; i < x.shape.dims(); ++i) {
    const bool gone = reduced[static_cast<size_t>(i)];
    inner.push_back(gone ? x.shape[i] : 1);
    kept.push_back(gone ? 1 : x.shape[i]);
    if (!gone || keep_dims) result.push_back(gone ? 1 : x.shape[i]);
  }
  Values values = fill(kept, [&](const Index& outer) {
    std::vector<double> block;
    for_each_index(inner, [&](const Index& offset) {
      Index at = outer;
      for (size_t i = 0; i < at.size(); ++i) at[i] += offset[i];
      block.push_back(x(at));
    });
    return f(block);
  });
  values.shape = result;
  return values;
}

inline double total(const std::vector<double>& values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum;
}

inline double log_sum_exp(const std::vector<double>& values) {
  if (values.empty()) return -INFINITY;
  const double largest = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double value : values) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// One row (last dimension) of x at the given leading position.
inline std::vector<double> row(const Values& x, Index leading) {
  std::vector<double> values;
  leading.push_back(0);
  for (int64_t i = 0; i < x.size(-1); ++i) {
    leading.back() = i;
    values.push_back(x(leading));
  }
  return values;
}

inline Index but_last(Index index) {
  index.pop_back();
  return index;
}

}  // namespace binade::test
