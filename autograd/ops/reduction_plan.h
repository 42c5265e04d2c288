// INTERNAL. What the reductions over axes share.
#pragma once

#include <algorithm>
#include <array>

#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/reduce.h>

namespace binade::ops {

// Which dimensions a reduction runs over, and the shapes that it leaves.
struct ReductionPlan {
  Shape kept;     // x's shape with 1 where it is reduced
  Shape dropped;  // without these dimensions
  Shape result;   // one of the two, as the caller wants it
  int64_t count = 1;
  std::array<bool, kMaxDims> reduces{};

  ReductionPlan(const char* op, const Tensor& x, const Axes& axes, bool keep_dims)
      : kept(x.shape()) {
    if (axes.empty()) std::fill_n(reduces.begin(), x.dims(), true);
    for (const int axis : axes) {
      bool& once = reduces[static_cast<size_t>(x.shape().wrap_dim(axis))];
      check(!once, op, ": axis ", axis, " is named twice for x ", Kind{x});
      once = true;
    }
    for (int i = 0; i < x.dims(); ++i) {
      if (reduces[static_cast<size_t>(i)]) {
        count *= x.size(i);
        kept[i] = 1;
      } else {
        dropped.push_back(x.size(i));
      }
    }
    result = keep_dims ? kept : dropped;
  }
};

inline Array reduced(kernels::ReduceOp op, const Tensor& x, const ReductionPlan& plan,
                     DType dtype) {
  const Array y = Array::empty(plan.kept, dtype, x.device());
  BINADE_DISPATCH(x.device(), reduce(op, x.array(), y, 0));
  return y;
}

// The dtype of class full: f32 for half inputs under a policy. The kernels widen as they read, so
// nothing is cast.
inline DType full_dtype(DType dtype) {
  return is_half(dtype) && current_precision_policy() ? DType::f32 : dtype;
}

// dy, which lacks the reduced dimensions, in x's shape and dtype.
inline Tensor spread(const Tensor& dy, const ReductionPlan& plan, const Shape& shape, DType dtype) {
  return expand(to(reshape(dy, plan.kept), dtype), shape);
}

}  // namespace binade::ops
