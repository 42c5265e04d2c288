// Inputs of the op table's rows in other layouts.
#pragma once

#include <utility>

#include "op_harness.h"

namespace binade::test {

enum class Layout : uint8_t { contiguous, transposed, strided, expanded };
inline const std::pair<Layout, const char*> kLayouts[] = {{Layout::contiguous, "contiguous"},
                                                          {Layout::transposed, "transposed"},
                                                          {Layout::strided, "strided"},
                                                          {Layout::expanded, "expanded"}};

// The values of x (in `expanded`: of its first entry along dimension 0) in another layout, on the
// tape where x is.
inline Tensor arranged(const Tensor& x, Layout layout) {
  const int dims = x.dims();
  if (dims == 0) return x;
  switch (layout) {
    case Layout::transposed:
      if (dims > 1) return transpose(clone(transpose(x, -1, -2)), -1, -2);
      [[fallthrough]];
    case Layout::strided:
      return select(stack({x, x}, dims), -1, 1);
    case Layout::expanded:
      return x.size(0) > 1 ? expand(slice(x, 0, 0, 1), x.shape()) : x;
    default:
      return x;
  }
}

inline TensorList arrange_all(const OpRow& row, const TensorList& inputs, Layout layout) {
  TensorList arranged_inputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool given = !row.inputs[i].values.empty();  // indices that must not repeat
    arranged_inputs.push_back(
        arranged(inputs[i], given && layout == Layout::expanded ? Layout::contiguous : layout));
  }
  return arranged_inputs;
}

}  // namespace binade::test
