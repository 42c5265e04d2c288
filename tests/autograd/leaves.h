// Leaves made of a few numbers, and what came of them.
#pragma once

#include <vector>

#include <binade/autograd/ops.h>

namespace binade::test {

using Numbers = std::vector<double>;

inline Tensor leaf(const Numbers& values, const Shape& shape, DType dtype = DType::f64,
                   Device device = {}) {
  return Tensor(Array::from(values, shape).to(dtype).to(device), true);
}
inline Tensor leaf(const Numbers& values, DType dtype = DType::f64) {
  return leaf(values, {static_cast<int64_t>(values.size())}, dtype);
}

inline Numbers numbers(const Array& array) {
  return array.to_vector<double>();
}

// Of the sum of `result`.
inline Numbers gradient(const Tensor& result, const Tensor& of, bool create_graph = false) {
  BackwardOptions options;
  options.create_graph = create_graph;
  return numbers(grad({sum(result)}, {of}, {}, options)[0].array());
}

}  // namespace binade::test
