// Norms and what is measured by them, from reduce.h: gradients that run through statistics are
// made of a few numbers a row and one pass over x.
#include <cmath>
#include <optional>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/broadcast.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/reduction_plan.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/recompute.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;
using kernels::ReduceOp;

namespace {

Tensor in_full_precision(const Tensor& x) {
  return to(x, statistics_dtype(x.dtype()));
}

void check_order(const char* op, double p) {
  check(p >= 0, op, ": p must be 0 or more, or INFINITY, got ", p);
}

// The reduction that is the norm, or its square for p = 2, where there is one.
std::optional<ReduceOp> fold_of(double p) {
  if (p == 0) return ReduceOp::nonzeros;
  if (p == 1) return ReduceOp::sum_abs;
  if (p == 2) return ReduceOp::sum_squares;
  if (p == INFINITY) return ReduceOp::max_abs;
  return std::nullopt;
}

// (Σ|x|ᵖ)^(1/p), of what the largest magnitude divides: the powers stay within range.
Array power_norms(const Tensor& x, double p, const Axes& axes) {
  const NoGrad off;
  const Tensor size = abs(in_full_precision(x));
  const Tensor largest = max(size, axes, true);
  const Tensor divides = logical_and(is_finite(largest), greater(largest, 0));
  const Tensor unit = where(divides, largest, Tensor::scalar(1, largest.dtype(), x.device()));
  return (unit * pow(sum(pow(size / unit, p), axes, true), 1 / p)).array();
}

// The norms with the reduced dimensions. Squares leave the half range: f32 (f64).
Array norms_of(const Tensor& x, double p, const Axes& axes, const ReductionPlan& plan) {
  const DType dtype = statistics_dtype(x.dtype());
  const std::optional<ReduceOp> fold = fold_of(p);
  if (!fold)
    return plan.count > 0 ? power_norms(x, p, axes) : Array::zeros(plan.kept, dtype, x.device());
  const Array y = reduced(*fold, x, plan, dtype);
  if (p == 2) BINADE_DISPATCH(y.device(), unary(kernels::UnaryOp::sqrt, y, y));
  return y;
}

// What x's gradient is with `dy` on each norm, all with the reduced dimensions and in x's dtype.
Tensor norm_gradient(double p, const Tensor& x, const Tensor& norms, const Tensor& dy) {
  if (p == 0) return Tensor::zeros(x.shape(), x.dtype(), x.device());
  if (p == 1) return sign(x) * dy;
  if (p == INFINITY) {
    const Tensor winners = to(equal(abs(x), norms), x.dtype());
    return sign(x) * winners * (dy / sum_to(winners, norms.shape()));
  }
  const Tensor nowhere = equal(norms, 0), divisors = masked_fill(norms, nowhere, 1);
  if (p == 2) return x * masked_fill(dy / divisors, nowhere, 0);
  const Tensor none = equal(x, 0);  // where a power below 0, here or of a later gradient, is ∞
  const Tensor share = masked_fill(abs(x) / divisors, none, 1);
  return masked_fill(sign(x) * pow(share, p - 1) * dy, none, 0);
}

// The gradients for p = 1 and 2 in one pass over x.
Tensor fused_norm_gradient(double p, const Array& x, const Tensor& norms, const Tensor& dy) {
  const Array dx = Array::empty(x.shape(), x.dtype(), x.device());
  if (p == 1) {
    const Array given = dy.array().to(x.dtype()).expand(x.shape());
    BINADE_DISPATCH(dx.device(), unary_backward(kernels::UnaryOp::abs, x, given, dx, 0));
  } else {
    const Tensor scale = dy / masked_fill(norms, equal(norms, 0), 1);
    BINADE_DISPATCH(dx.device(), weighted_sum(x, {}, scale.array().expand(x.shape()), {}, {}, dx));
  }
  return Tensor(dx);
}

Tensor normalize_in_ops(const Tensor& x, double p, int axis, double eps) {
  const Tensor in = in_full_precision(x);  // a half type would round eps to 0
  return to(in / clamp(norm(in, p, {axis}, true), eps, INFINITY), x.dtype());
}

struct NormalizeGradient {
  Saved x;
  Array length;  // with the reduced dimension, f32 (f64)
  int axis;
  double eps;

  void operator()(Backward& backward) const {
    const Array in = x.array(), dx = empty_like(in);
    BINADE_DISPATCH(in.device(), normalize_backward(in, backward.grad(), length, axis, eps, dx));
    backward.slot(0).add(dx);
  }
  void operator()(BackwardOnTape& tape) const {
    tape.through(normalize_in_ops(tape.input(0, x.array()), 2, axis, eps), tape.grad());
  }
};

// c = a·b/(|a|·|b|), each length at least eps: da = dy·(b/(|a|·|b|) − a·c/|a|²), and db alike.
struct CosineGradient {
  Saved a, b;
  Array a_length, b_length, cosine;  // with the reduced dimension, f32 (f64)
  int axis;
  double eps;

  void operator()(Backward& backward) const {
    const Array x = a.array(), y = b.array();
    const auto gradient_of = [&](int input, const Array& own) {
      return backward.needed(input) ? Array::empty(own.shape(), own.dtype(), own.device())
                                    : Array();
    };
    const Array da = gradient_of(0, x), db = gradient_of(1, y);
    if (!da.defined() && !db.defined()) return;
    const Array across = empty_like(cosine), along_a = empty_like(cosine),
                along_b = empty_like(cosine);
    const Array dy = backward.grad().reshape(cosine.shape()).to(cosine.dtype()).contiguous();
    BINADE_DISPATCH(x.device(),
                    cosine_scales(dy, a_length, b_length, cosine, eps, across, along_a, along_b));
    BINADE_DISPATCH(x.device(),
                    weighted_pair(x, y, across.expand(x.shape()), along_a.expand(x.shape()),
                                  along_b.expand(x.shape()), da, db));
    if (da.defined()) backward.slot(0).add(da);
    if (db.defined()) backward.slot(1).add(db);
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor x = in_full_precision(tape.input(0, a.array()));
    const Tensor y = in_full_precision(tape.input(1, b.array()));
    const auto length = [&](const Tensor& v) { return clamp(norm(v, 2, {axis}), eps, INFINITY); };
    tape.through(sum(x * y, {axis}) / length(x) / length(y), tape.grad());
  }
};

}  // namespace

Tensor norm(const Tensor& x, double p, const Axes& axes, bool keep_dims) {
  check_floating("norm", "x", x);
  check_order("norm", p);
  const ReductionPlan plan("norm", x, axes, keep_dims);
  check(plan.count > 0 || p != INFINITY, "norm: x ", Kind{x},
        " has no elements along the reduced axes");
  const Array y = norms_of(x, p, axes, plan);
  return record("norm", {x}, y.to(full_dtype(x.dtype())).view(plan.result),
                [=, x = Saved(x), y = Saved(y)](const Tensor& dy) -> TensorList {
                  const DType dtype = x.tensor().dtype();
                  const Tensor given = to(reshape(dy, plan.kept), statistics_dtype(dtype));
                  if (!grad_enabled() && (p == 1 || p == 2))
                    return {fused_norm_gradient(p, x.array(), y.tensor(), given)};
                  const Tensor in = in_full_precision(x.tensor());
                  const Tensor norms = grad_enabled() ? norm(in, p, axes, true) : y.tensor();
                  return {to(norm_gradient(p, in, norms, given), dtype)};
                });
}

Tensor normalize(const Tensor& x, double p, int axis, double eps) {
  check_floating("normalize", "x", x);
  check(eps >= 0, "normalize: eps must not be below 0, got ", eps);
  if (p != 2) return normalize_in_ops(x, p, axis, eps);
  const ReductionPlan plan("normalize", x, {axis}, true);
  const Array length = Array::empty(plan.kept, statistics_dtype(x.dtype()), x.device());
  const Array y = empty_like(x.array());
  BINADE_DISPATCH(y.device(), normalize(x.array(), x.shape().wrap_dim(axis), eps, length, y));
  return record("normalize", {x}, y,
                NormalizeGradient{Saved(x), length, x.shape().wrap_dim(axis), eps});
}

Tensor cosine_similarity(const Tensor& a_in, const Tensor& b_in, int axis, double eps) {
  check_floating("cosine_similarity", "a", a_in);
  check_floating("cosine_similarity", "b", b_in);
  check_device("cosine_similarity", {a_in, b_in});
  check(eps >= 0, "cosine_similarity: eps must not be below 0, got ", eps);
  const DType dtype = promote(a_in.dtype(), b_in.dtype());
  const Shape shape = broadcast(a_in.shape(), b_in.shape(), "cosine_similarity");
  const Tensor a = expand(to(a_in, dtype), shape), b = expand(to(b_in, dtype), shape);
  const ReductionPlan plan("cosine_similarity", a, {axis}, false);
  const Array products = Array::empty(plan.kept, statistics_dtype(dtype), a.device()),
              a_length = empty_like(products), b_length = empty_like(products);
  BINADE_DISPATCH(a.device(), pair_products(a.array(), b.array(), a_length, products, b_length));
  for (const Array& length : {a_length, b_length})
    BINADE_DISPATCH(a.device(), unary(kernels::UnaryOp::sqrt, length, length));
  CosineGradient gradient{Saved(a), Saved(b), a_length, b_length, {}, axis, eps};
  {
    const NoGrad no_grad;
    gradient.cosine = (Tensor(products) / clamp(Tensor(gradient.a_length), eps, INFINITY) /
                       clamp(Tensor(gradient.b_length), eps, INFINITY))
                          .array();
  }
  return record("cosine_similarity", {a, b},
                gradient.cosine.to(full_dtype(dtype)).view(plan.result), gradient);
}

Tensor cdist(const Tensor& a_in, const Tensor& b_in, double p) {
  check_floating("cdist", "a", a_in);
  check_floating("cdist", "b", b_in);
  check_device("cdist", {a_in, b_in});
  check_order("cdist", p);
  check(a_in.dims() >= 2 && b_in.dims() >= 2 && a_in.size(-1) == b_in.size(-1),
        "cdist: a must be (…, P, M) and b (…, R, M), got a ", Kind{a_in}, " and b ", Kind{b_in});
  const DType dtype = promote(a_in.dtype(), b_in.dtype());
  const Tensor a = unsqueeze(to(a_in, statistics_dtype(dtype)), -2);  // (…, P, 1, M)
  const Tensor b = unsqueeze(to(b_in, statistics_dtype(dtype)), -3);  // (…, 1, R, M)
  const Shape all = broadcast(a.shape(), b.shape(), "cdist");
  const double order = all.back() == 0 ? 1 : p;  // of no elements every norm is 0
  const auto distances = [order](const TensorList& in) -> TensorList {
    return {norm(in[0] - in[1], order, {-1})};
  };
  // As many rows of a at a time as the differences fit into a cache, or a corner of a GPU's memory.
  const int64_t most = int64_t{1} << (a.device().is_cuda() ? 26 : 18);
  const int64_t rows = a.size(-3), of_row = rows == 0 ? 0 : all.numel() / rows;
  const int64_t at_once = std::max<int64_t>(1, most / std::max<int64_t>(of_row, 1));
  if (rows <= at_once) return to(distances({a, b})[0], full_dtype(dtype));
  TensorList parts;
  for (const Tensor& some : split(a, at_once, -3))
    parts.push_back(recompute(distances, {some, b})[0]);
  return to(cat(parts, -2), full_dtype(dtype));
}

}  // namespace binade
