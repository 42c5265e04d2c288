// Norms and what is measured by them, from reduce.h.
#include <cmath>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

using namespace ops;
using kernels::ReduceOp;

namespace {

ReduceOp fold_of(double p) {
  if (p == 0) return ReduceOp::nonzeros;
  if (p == 1) return ReduceOp::sum_abs;
  if (p == 2) return ReduceOp::sum_squares;
  check(p == INFINITY, "norm: p must be 0, 1, 2 or INFINITY, got ", p,
        "; write others as pow(sum(pow(abs(x), p)), 1 / p)");
  return ReduceOp::max_abs;
}

// What x's gradient is with `dy` on each norm, all with the reduced dimensions and in x's dtype.
Tensor norm_gradient(double p, const Tensor& x, const Tensor& norms, const Tensor& dy) {
  if (p == 0) return Tensor::zeros(x.shape(), x.dtype(), x.device());
  if (p == 1) return sign(x) * dy;
  if (p == 2) {
    const Tensor zero = Tensor::scalar(0, norms.dtype(), norms.device());
    return x * (dy / masked_fill(norms, equal(norms, zero), 1));
  }
  const Tensor winners = to(equal(abs(x), norms), x.dtype());
  return sign(x) * winners * (dy / sum_to(winners, norms.shape()));
}

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

Tensor in_full_precision(const Tensor& x) {
  return to(x, statistics_dtype(x.dtype()));
}

}  // namespace

Tensor norm(const Tensor& x, double p, const Axes& axes, bool keep_dims) {
  check_floating("norm", "x", x);
  const ReduceOp fold = fold_of(p);
  const ReductionPlan plan("norm", x, axes, keep_dims);
  check(plan.count > 0 || p != INFINITY, "norm: x ", Kind{x},
        " has no elements along the reduced axes");
  const Array y =
      reduced(fold, x, plan, statistics_dtype(x.dtype()));  // squares leave the half range
  if (p == 2) BINADE_DISPATCH(y.device(), unary(kernels::UnaryOp::sqrt, y, y));
  return record("norm", {x}, y.to(full_dtype(x.dtype())).view(plan.result),
                [=, x = Saved(x), y = Saved(y)](const Tensor& dy) -> TensorList {
                  const Tensor in = in_full_precision(x.tensor());
                  const Tensor norms = grad_enabled() ? norm(in, p, axes, true) : y.tensor();
                  const Tensor given = to(reshape(dy, plan.kept), in.dtype());
                  return {to(norm_gradient(p, in, norms, given), x.tensor().dtype())};
                });
}

Tensor normalize(const Tensor& x, double p, int axis, double eps) {
  check_floating("normalize", "x", x);
  check(eps >= 0, "normalize: eps must not be below 0, got ", eps);
  const Tensor in = in_full_precision(x);  // a half type would round eps to 0
  return to(in / clamp(norm(in, p, {axis}, true), eps, INFINITY), x.dtype());
}

Tensor stddev(const Tensor& x, const Axes& axes, double correction, bool keep_dims) {
  check_floating("stddev", "x", x);
  if (ReductionPlan("stddev", x, axes, keep_dims).count == 0) return var(x, axes, 0, keep_dims);
  return to(root(var(in_full_precision(x), axes, correction, keep_dims)), full_dtype(x.dtype()));
}

Tensor cosine_similarity(const Tensor& a_in, const Tensor& b_in, int axis, double eps) {
  check_floating("cosine_similarity", "a", a_in);
  check_floating("cosine_similarity", "b", b_in);
  check_device("cosine_similarity", {a_in, b_in});
  check(eps >= 0, "cosine_similarity: eps must not be below 0, got ", eps);
  const DType dtype = promote(a_in.dtype(), b_in.dtype());
  const Shape shape = broadcast(a_in.shape(), b_in.shape(), "cosine_similarity");
  const Tensor a = expand(to(a_in, statistics_dtype(dtype)), shape);
  const Tensor b = expand(to(b_in, statistics_dtype(dtype)), shape);
  const auto length = [&](const Tensor& x) { return clamp(norm(x, 2, {axis}), eps, INFINITY); };
  return to(sum(a * b, {axis}) / length(a) / length(b), full_dtype(dtype));
}

}  // namespace binade
