#include <binade/autograd/ops/reduce.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/softmax.h>
#include <binade/core/kernels/sort.h>

namespace binade {

using namespace ops;
using kernels::ReduceOp;
using Plan = ReductionPlan;

namespace {

Tensor extreme(const char* op, ReduceOp kind, const Tensor& x, const Axes& axes, bool keep_dims) {
  check_defined(op, "x", x);
  const Plan plan(op, x, axes, keep_dims);
  check(plan.count > 0, op, ": x ", Kind{x}, " has no elements along the reduced axes");
  const Array y = reduced(kind, x, plan, x.dtype());
  return record(op, {x}, y.view(plan.result),
                [plan, x = Saved(x), y = Saved(y)](const Tensor& dy) -> TensorList {
                  // In f32 (f64): a half type cannot count past its integers.
                  const DType wide = statistics_dtype(dy.dtype());
                  const Tensor winners = to(equal(x.tensor(), y.tensor()), wide);
                  const Tensor each = sum_to(winners, plan.kept);
                  return {to(winners * (to(reshape(dy, plan.kept), wide) / each), dy.dtype())};
                });
}

Tensor arg_extreme(const char* op, bool largest, const Tensor& x, int axis, bool keep_dims) {
  check_defined(op, "x", x);
  check(x.dims() > 0, op, ": x must have at least one dimension, got ", Kind{x});
  const Plan plan(op, x, {axis}, keep_dims);
  check(plan.count > 0, op, ": x ", Kind{x}, " has no elements along axis ", axis);
  const Array y = Array::empty(plan.kept, DType::i64, x.device());
  BINADE_DISPATCH(x.device(), arg_reduce(largest, x.array(), x.shape().wrap_dim(axis), y));
  return record_constant(op, {x}, y.view(plan.result));
}

Tensor cumsum_from(const Tensor& x, int axis, bool from_back) {
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), cumsum(x.array(), axis, from_back, y));
  return record("cumsum", {x}, y, [=](const Tensor& dy) -> TensorList {
    return {cumsum_from(dy, axis, !from_back)};
  });
}

// Values picked along `axis`, each from another position of x.
Tensor record_picked(const char* op, const Tensor& x, int axis, Array values,
                     const Array& indices) {
  return record(
      op, {x}, std::move(values),
      [axis, shape = x.shape(), at = Saved(indices)](const Tensor& dy) -> TensorList {
        return {scatter(Tensor::zeros(shape, dy.dtype(), dy.device()), axis, at.tensor(), dy)};
      });
}

Array contiguous_rows(const Array& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

// What differs between softmax and log_softmax, over the last dimension. The gradients are made
// from the result y.
struct SoftmaxKind {
  const char* op;
  void (*forward)(const Array& x, const Array& y);
  void (*backward)(const Array& y, const Array& dy, const Array& dx, float beta);
  Tensor (*in_public_ops)(const Tensor& y, const Tensor& dy);
};

const SoftmaxKind kSoftmax = {
    "softmax", [](const Array& x, const Array& y) { BINADE_DISPATCH(x.device(), softmax(x, y)); },
    [](const Array& y, const Array& dy, const Array& dx, float beta) {
      BINADE_DISPATCH(y.device(), softmax_backward(y, dy, dx, beta));
    },
    [](const Tensor& y, const Tensor& dy) {
      const Tensor weighted = y * dy;
      return weighted - y * sum(weighted, {-1}, true);
    }};

const SoftmaxKind kLogSoftmax = {
    "log_softmax",
    [](const Array& x, const Array& y) { BINADE_DISPATCH(x.device(), log_softmax(x, y)); },
    [](const Array& y, const Array& dy, const Array& dx, float beta) {
      BINADE_DISPATCH(y.device(), log_softmax_backward(y, dy, dx, beta));
    },
    [](const Tensor& y, const Tensor& dy) { return dy - exp(y) * sum(dy, {-1}, true); }};

struct SoftmaxGradient {
  Saved y;
  const SoftmaxKind& kind;

  void operator()(Backward& backward) const {
    if (auto dx = backward.slot(0).open())
      kind.backward(y.array(), contiguous_rows(backward.grad()), dx.array, dx.beta);
  }
  void operator()(BackwardOnTape& tape) const {
    const DType wide = statistics_dtype(y.array().dtype());
    tape.give(0, kind.in_public_ops(to(tape.output(0, y.array()), wide), to(tape.grad(), wide)));
  }
};

Tensor softmax_of(const SoftmaxKind& kind, const Tensor& x_in, int axis) {
  check_floating(kind.op, "x", x_in);
  check(x_in.dims() > 0, kind.op, ": x must have at least one dimension, got ", Kind{x_in});
  const int last = x_in.dims() - 1, dim = x_in.shape().wrap_dim(axis);
  if (dim != last) return transpose(softmax_of(kind, transpose(x_in, dim, last), last), dim, last);
  const Tensor x = autocast(PrecisionClass::full, x_in);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  kind.forward(contiguous_rows(x.array()), y);
  return record(kind.op, {x}, y, SoftmaxGradient{Saved(y), kind});
}

}  // namespace

Tensor sum(const Tensor& x, const Axes& axes, bool keep_dims) {
  check_defined("sum", "x", x);
  const Plan plan("sum", x, axes, keep_dims);
  const DType dtype = is_floating(x.dtype()) ? full_dtype(x.dtype()) : DType::i64;
  const Array y = reduced(ReduceOp::sum, x, plan, dtype);
  return record("sum", {x}, y.view(plan.result),
                [plan, shape = x.shape(), dtype = x.dtype()](const Tensor& dy) -> TensorList {
                  return {spread(dy, plan, shape, dtype)};
                });
}

Tensor mean(const Tensor& x, const Axes& axes, bool keep_dims) {
  check_floating("mean", "x", x);
  const Plan plan("mean", x, axes, keep_dims);
  const Array y = reduced(ReduceOp::mean, x, plan, full_dtype(x.dtype()));
  return record("mean", {x}, y.view(plan.result),
                [plan, shape = x.shape(), dtype = x.dtype()](const Tensor& dy) -> TensorList {
                  // At count 0 it has no elements, but 0/0 would be the gradient of dy.
                  const auto count = static_cast<double>(std::max<int64_t>(plan.count, 1));
                  return {spread(dy / count, plan, shape, dtype)};
                });
}

Tensor max(const Tensor& x, const Axes& axes, bool keep_dims) {
  return extreme("max", ReduceOp::max, x, axes, keep_dims);
}

Tensor min(const Tensor& x, const Axes& axes, bool keep_dims) {
  return extreme("min", ReduceOp::min, x, axes, keep_dims);
}

Tensor argmax(const Tensor& x, int axis, bool keep_dims) {
  return arg_extreme("argmax", true, x, axis, keep_dims);
}

Tensor argmin(const Tensor& x, int axis, bool keep_dims) {
  return arg_extreme("argmin", false, x, axis, keep_dims);
}

Tensor logsumexp(const Tensor& x, const Axes& axes, bool keep_dims) {
  check_floating("logsumexp", "x", x);
  const Plan plan("logsumexp", x, axes, keep_dims);
  // The kernel runs over one dimension: the reduced ones move to the back and become one.
  std::vector<int> order;
  for (const bool reduced_now : {false, true})
    for (int i = 0; i < x.dims(); ++i)
      if (plan.reduces[static_cast<size_t>(i)] == reduced_now) order.push_back(i);
  Shape rows = plan.dropped;
  rows.push_back(plan.count);
  Shape out = plan.dropped;
  out.push_back(1);
  const Array y = Array::empty(out, statistics_dtype(x.dtype()), x.device());
  if (plan.count == 0)
    BINADE_DISPATCH(x.device(), fill(y, -INFINITY));
  else
    BINADE_DISPATCH(x.device(),
                    logsumexp(x.array().permute(order).reshape(rows), rows.dims() - 1, y));
  const Array value = y.view(plan.kept).to(full_dtype(x.dtype()));
  return record("logsumexp", {x}, value.view(plan.result),
                [plan, x = Saved(x), y = Saved(y), axes](const Tensor& dy) -> TensorList {
                  // In f32 (f64): exp would make much of a half sum's rounding.
                  const DType dtype = x.tensor().dtype(), wide = statistics_dtype(dtype);
                  const Tensor in = to(x.tensor(), wide);
                  const Tensor sums =
                      grad_enabled() ? logsumexp(in, axes, true) : reshape(y.tensor(), plan.kept);
                  // A row of −∞ only: −∞ − (−∞) would be NaN.
                  const Tensor finite = masked_fill(sums, is_inf(sums), 0);
                  return {to(to(reshape(dy, plan.kept), wide) * exp(in - finite), dtype)};
                });
}

Tensor cumsum(const Tensor& x, int axis) {
  check_floating("cumsum", "x", x);
  check(x.dims() > 0, "cumsum: x must have at least one dimension, got ", Kind{x});
  return cumsum_from(x, x.shape().wrap_dim(axis), false);
}

std::pair<Tensor, Tensor> sort(const Tensor& x, int axis_in, bool descending) {
  check_defined("sort", "x", x);
  check(x.dims() > 0, "sort: x must have at least one dimension, got ", Kind{x});
  const int axis = x.shape().wrap_dim(axis_in);
  const Array values = Array::empty(x.shape(), x.dtype(), x.device());
  const Array indices = Array::empty(x.shape(), DType::i64, x.device());
  BINADE_DISPATCH(x.device(), sort(x.array(), axis, descending, values, indices));
  return {record_picked("sort", x, axis, values, indices), Tensor(indices)};
}

std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int axis_in, bool largest) {
  check_defined("topk", "x", x);
  check(x.dims() > 0, "topk: x must have at least one dimension, got ", Kind{x});
  const int axis = x.shape().wrap_dim(axis_in);
  check(k >= 0 && k <= x.size(axis), "topk: k must be in [0, ", x.size(axis), "], got ", k);
  Shape shape = x.shape();
  shape[axis] = k;
  const Array values = Array::empty(shape, x.dtype(), x.device());
  const Array indices = Array::empty(shape, DType::i64, x.device());
  BINADE_DISPATCH(x.device(), topk(x.array(), k, axis, values, indices, largest));
  return {record_picked("topk", x, axis, values, indices), Tensor(indices)};
}

Tensor softmax(const Tensor& x, int axis) {
  return softmax_of(kSoftmax, x, axis);
}

Tensor log_softmax(const Tensor& x, int axis) {
  return softmax_of(kLogSoftmax, x, axis);
}

}  // namespace binade
