// Variances and standard deviations, from reduce.h.
#include <algorithm>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

// √x, with a gradient of 0 at 0.
Tensor root(const Tensor& x) {
  const Array y = empty_like(x.array());
  BINADE_DISPATCH(x.device(), unary(kernels::UnaryOp::sqrt, x.array(), y));
  return record("stddev", {x}, y, [x = Saved(x)](const Tensor& dy) -> TensorList {
    const Tensor in = x.tensor();
    const Tensor at_zero = equal(in, Tensor::scalar(0, in.dtype(), in.device()));
    return {masked_fill(dy * rsqrt(masked_fill(in, at_zero, 1)) * 0.5, at_zero, 0)};
  });
}

struct DeviationGradient {
  Saved x;
  Array mean, result;  // with the reduced dimensions, f32 (f64)
  Axes axes;
  double divisor;
  bool rooted;  // the standard deviation, else the variance

  // dx = (x − mean)·2·dy/divisor for the variance, (x − mean)·dy/(divisor·deviation) for its root.
  void operator()(Backward& backward) const {
    const NoGrad no_grad;
    const Array in = x.array(), dx = empty_like(in);
    const Tensor dy = to(reshape(Tensor(backward.grad()), mean.shape()), mean.dtype());
    Tensor scale = dy / divisor;
    if (rooted) {
      const Tensor deviation(result);
      const Tensor none = equal(deviation, Tensor::scalar(0, mean.dtype(), mean.device()));
      scale = masked_fill(scale / masked_fill(deviation, none, 1), none, 0);
    } else {
      scale = scale * 2;
    }
    BINADE_DISPATCH(in.device(), weighted_sum(in, mean.expand(in.shape()),
                                              scale.array().expand(in.shape()), {}, {}, dx));
    backward.slot(0).add(dx);
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor in = tape.input(0, x.array());
    const Tensor wide = to(in, statistics_dtype(in.dtype()));
    const Tensor variance =
        sum(square(wide - binade::mean(wide, axes, true)), axes, true) / divisor;
    const Tensor value = rooted ? root(variance) : variance;
    tape.through(value, reshape(tape.grad(), mean.shape()));
  }
};

// By the distances from the mean: what a sum of squares would lose beside a large mean never gets
// lost.
Tensor deviation_of(const char* op, const Tensor& x, const Axes& axes, double correction,
                    bool keep_dims, bool rooted) {
  check_floating(op, "x", x);
  const ReductionPlan plan(op, x, axes, keep_dims);
  if (plan.count == 0) return mean(x, axes, keep_dims);  // NaN, with a gradient of no elements
  const DType wide = statistics_dtype(x.dtype());        // squares leave the half range
  const Array center = Array::empty(plan.kept, wide, x.device()), squares = empty_like(center);
  BINADE_DISPATCH(x.device(), moments(x.array(), center, squares));
  // Too few elements: x/0 = ∞, or 0/0 = NaN, rather than a number that looks like a variance.
  const double divisor = std::max(static_cast<double>(plan.count) - correction, 0.0);
  BINADE_DISPATCH(x.device(),
                  binary_scalar(kernels::BinaryOp::div, squares, divisor, false, squares));
  if (rooted) BINADE_DISPATCH(x.device(), unary(kernels::UnaryOp::sqrt, squares, squares));
  return record(op, {x}, squares.to(full_dtype(x.dtype())).view(plan.result),
                DeviationGradient{Saved(x), center, squares, axes, divisor, rooted});
}

}  // namespace

Tensor var(const Tensor& x, const Axes& axes, double correction, bool keep_dims) {
  return deviation_of("var", x, axes, correction, keep_dims, false);
}

Tensor stddev(const Tensor& x, const Axes& axes, double correction, bool keep_dims) {
  return deviation_of("stddev", x, axes, correction, keep_dims, true);
}

}  // namespace binade
