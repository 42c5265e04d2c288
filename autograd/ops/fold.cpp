// Products, truths, extremes with their positions, from reduce.h.
#include <algorithm>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>

namespace binade {

using namespace ops;
using kernels::ReduceOp;

namespace {

Tensor truth(const char* op, bool of_every, const Tensor& x_in, const Axes& axes, bool keep_dims) {
  check_defined(op, "x", x_in);
  const ReductionPlan plan(op, x_in, axes, keep_dims);
  const Tensor x(x_in.array().to(DType::boolean));
  if (plan.count == 0)
    return record_constant(op, {x_in},
                           Array::full(plan.result, of_every, DType::boolean, x.device()));
  const Array y = reduced(of_every ? ReduceOp::min : ReduceOp::max, x, plan, DType::boolean);
  return record_constant(op, {x_in}, y.view(plan.result));
}

std::pair<Tensor, Tensor> extreme_with_indices(const char* op, bool largest, const Tensor& x,
                                               int axis_in, bool keep_dims) {
  check_defined(op, "x", x);
  check(x.dims() > 0, op, ": x must have at least one dimension, got ", Kind{x});
  const int axis = x.shape().wrap_dim(axis_in);
  const ReductionPlan plan(op, x, {axis}, keep_dims);
  check(plan.count > 0, op, ": x ", Kind{x}, " has no elements along axis ", axis);
  const Array indices = Array::empty(plan.kept, DType::i64, x.device());
  const Array values = Array::empty(plan.kept, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), arg_reduce(largest, x.array(), axis, indices));
  BINADE_DISPATCH(x.device(), gather(x.array(), axis, indices, values));
  const Tensor extremes = record(
      op, {x}, values.view(plan.result),
      [axis, kept = plan.kept, shape = x.shape(),
       at = Saved(indices)](const Tensor& dy) -> TensorList {
        const Tensor given = reshape(dy, kept);
        if (grad_enabled())
          return {scatter(Tensor::zeros(shape, dy.dtype(), dy.device()), axis, at.tensor(), given)};
        const Array dx = Array::zeros(shape, dy.dtype(), dy.device());
        BINADE_DISPATCH(dx.device(), scatter(dx, axis, at.array(), given.array(), false));
        return {Tensor(dx)};
      });
  return {extremes, Tensor(indices.view(plan.result))};
}

// The dimensions of x with the reduced ones at the back, and where each of them came from.
struct AtTheBack {
  std::vector<int> order, inverse;

  AtTheBack(const ReductionPlan& plan, int dims) : inverse(static_cast<size_t>(dims)) {
    for (const bool reduced_now : {false, true})
      for (int i = 0; i < dims; ++i)
        if (plan.reduces[static_cast<size_t>(i)] == reduced_now) order.push_back(i);
    for (size_t i = 0; i < order.size(); ++i)
      inverse[static_cast<size_t>(order[i])] = static_cast<int>(i);
  }
};

// Π_{j ≠ i} x[j] along the last dimension, in public ops.
Tensor product_of_others(const Tensor& x) {
  const Tensor one = expand(Tensor::scalar(1, x.dtype(), x.device()), with_last(x.shape(), 1));
  const Tensor before = cumprod(cat({one, slice(x, -1, 0, x.size(-1) - 1)}, -1), -1);
  const Tensor behind = cumprod(cat({one, slice(flip(x, {-1}), -1, 0, x.size(-1) - 1)}, -1), -1);
  return before * flip(behind, {-1});
}

struct CumprodGradient {
  int axis;
  Saved x;

  void operator()(Backward& backward) const {
    const Array in = x.array();
    const Array dx = Array::empty(in.shape(), in.dtype(), in.device());
    BINADE_DISPATCH(in.device(), cumprod_backward(in, backward.grad(), axis, dx));
    backward.slot(0).add(dx);
  }

  // Product by product, so that zeros are factors as any other.
  void operator()(BackwardOnTape& tape) const {
    const Tensor in = x.tensor();
    if (in.numel() == 0) return tape.give(0, tape.grad());
    const Tensor factors = to(in, statistics_dtype(in.dtype()));
    std::vector<Tensor> products = {select(factors, axis, 0)};
    for (int64_t i = 1; i < in.size(axis); ++i)
      products.push_back(products.back() * select(factors, axis, i));
    tape.through(stack(products, axis), tape.grad());
  }
};

}  // namespace

Tensor any(const Tensor& x, const Axes& axes, bool keep_dims) {
  return truth("any", false, x, axes, keep_dims);
}

Tensor all(const Tensor& x, const Axes& axes, bool keep_dims) {
  return truth("all", true, x, axes, keep_dims);
}

std::pair<Tensor, Tensor> max_with_indices(const Tensor& x, int axis, bool keep_dims) {
  return extreme_with_indices("max_with_indices", true, x, axis, keep_dims);
}

std::pair<Tensor, Tensor> min_with_indices(const Tensor& x, int axis, bool keep_dims) {
  return extreme_with_indices("min_with_indices", false, x, axis, keep_dims);
}

Tensor prod(const Tensor& x, const Axes& axes, bool keep_dims) {
  check_defined("prod", "x", x);
  const ReductionPlan plan("prod", x, axes, keep_dims);
  const DType dtype = is_floating(x.dtype()) ? full_dtype(x.dtype()) : DType::i64;
  const Array y = reduced(ReduceOp::prod, x, plan, dtype);
  return record(
      "prod", {x}, y.view(plan.result), [plan, x = Saved(x)](const Tensor& dy) -> TensorList {
        const Tensor in = x.tensor();
        if (in.numel() == 0) return {Tensor::zeros(in.shape(), in.dtype(), in.device())};
        const AtTheBack moved(plan, in.dims());
        Shape rows = plan.dropped, ones = plan.dropped, permuted;
        rows.push_back(plan.count);
        ones.push_back(1);
        for (const int dim : moved.order) permuted.push_back(in.size(dim));
        const auto put_back = [&](const Tensor& dx) {
          return permute(reshape(dx, permuted), moved.inverse);
        };
        const Tensor factors = reshape(permute(in, moved.order), rows);
        if (!grad_enabled()) {
          const Array dx = Array::empty(rows, in.dtype(), in.device());
          BINADE_DISPATCH(dx.device(), prod_backward(factors.array(), dy.array().reshape(ones),
                                                     rows.dims() - 1, dx));
          return {put_back(Tensor(dx))};
        }
        const DType wide = statistics_dtype(in.dtype());
        const Tensor given = to(reshape(dy, ones), wide);
        return {to(put_back(given * product_of_others(to(factors, wide))), in.dtype())};
      });
}

Tensor cumprod(const Tensor& x, int axis_in) {
  check_floating("cumprod", "x", x);
  check(x.dims() > 0, "cumprod: x must have at least one dimension, got ", Kind{x});
  const int axis = x.shape().wrap_dim(axis_in);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), cumprod(x.array(), axis, y));
  return record("cumprod", {x}, y, CumprodGradient{axis, Saved(x)});
}

}  // namespace binade
