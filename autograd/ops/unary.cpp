// Functions of one operand, from arithmetic.h.
#include <cmath>
#include <numbers>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

using namespace ops;
using kernels::UnaryOp;

namespace {

Array compute(UnaryOp op, const Tensor& x) {
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), unary(op, x.array(), y));
  return y;
}

// dy·op'(x) in one pass.
Tensor fused_gradient(UnaryOp op, const Tensor& dy, const Array& x) {
  const Array dx = Array::empty(dy.shape(), dy.dtype(), dy.device());
  BINADE_DISPATCH(dx.device(), unary_backward(op, x, dy.array(), dx, 0));
  return Tensor(dx);
}

// `gradient` gives dy·op'(x) in public ops, for half types in f32: it is rounded once.
template <class Gradient>
Tensor apply(const char* name, UnaryOp op, const Tensor& x, Gradient gradient) {
  check_floating(name, "x", x);
  return record(name, {x}, compute(op, x),
                [op, x = Saved(x), gradient](const Tensor& dy) -> TensorList {
                  if (!grad_enabled()) return {fused_gradient(op, dy, x.array())};
                  const DType wide = statistics_dtype(dy.dtype());
                  return {to(gradient(to(dy, wide), to(x.tensor(), wide)), dy.dtype())};
                });
}

template <class Gradient>
Tensor apply_full(const char* name, UnaryOp op, const Tensor& x, Gradient gradient) {
  check_floating(name, "x", x);
  return apply(name, op, autocast(PrecisionClass::full, x), gradient);
}

// A function that is constant by pieces; `x` was checked.
Tensor apply_step(const char* name, UnaryOp op, const Tensor& x) {
  return record(name, {x}, compute(op, x), [](const Tensor& dy) -> TensorList {
    return {Tensor::zeros(dy.shape(), dy.dtype(), dy.device())};
  });
}
Tensor apply_rounding(const char* name, UnaryOp op, const Tensor& x) {
  check_floating(name, "x", x);
  return apply_step(name, op, x);
}

}  // namespace

Tensor neg(const Tensor& x) {
  check_arithmetic("neg", x);
  return record("neg", {x}, compute(UnaryOp::neg, x),
                [](const Tensor& dy) -> TensorList { return {-dy}; });
}

Tensor abs(const Tensor& x) {
  check_arithmetic("abs", x);
  return record("abs", {x}, compute(UnaryOp::abs, x),
                [x = Saved(x)](const Tensor& dy) -> TensorList {
                  if (!grad_enabled()) return {fused_gradient(UnaryOp::abs, dy, x.array())};
                  return {dy * Tensor(compute(UnaryOp::sign, x.tensor()))};  // constant by pieces
                });
}

Tensor square(const Tensor& x) {
  check_arithmetic("square", x);
  return record("square", {x}, compute(UnaryOp::square, x),
                [x = Saved(x)](const Tensor& dy) -> TensorList {
                  if (!grad_enabled()) return {fused_gradient(UnaryOp::square, dy, x.array())};
                  return {dy * x.tensor() * 2};
                });
}

Tensor sqrt(const Tensor& x) {
  return apply("sqrt", UnaryOp::sqrt, x,
               [](const Tensor& dy, const Tensor& x) { return dy * rsqrt(x) * 0.5; });
}

Tensor exp(const Tensor& x) {
  return apply_full("exp", UnaryOp::exp, x,
                    [](const Tensor& dy, const Tensor& x) { return dy * exp(x); });
}

Tensor log(const Tensor& x) {
  return apply_full("log", UnaryOp::log, x,
                    [](const Tensor& dy, const Tensor& x) { return dy / x; });
}

Tensor log1p(const Tensor& x) {
  return apply_full("log1p", UnaryOp::log1p, x,
                    [](const Tensor& dy, const Tensor& x) { return dy / (x + 1); });
}

Tensor expm1(const Tensor& x) {
  return apply_full("expm1", UnaryOp::expm1, x,
                    [](const Tensor& dy, const Tensor& x) { return dy * exp(x); });
}

Tensor rsqrt(const Tensor& x) {
  return apply_full("rsqrt", UnaryOp::rsqrt, x,
                    [](const Tensor& dy, const Tensor& x) { return dy * rsqrt(x) / x * -0.5; });
}

Tensor reciprocal(const Tensor& x) {
  return apply_full("reciprocal", UnaryOp::reciprocal, x,
                    [](const Tensor& dy, const Tensor& x) { return -(dy / x) / x; });
}

Tensor sin(const Tensor& x) {
  return apply_full("sin", UnaryOp::sin, x,
                    [](const Tensor& dy, const Tensor& x) { return dy * cos(x); });
}

Tensor cos(const Tensor& x) {
  return apply_full("cos", UnaryOp::cos, x,
                    [](const Tensor& dy, const Tensor& x) { return -dy * sin(x); });
}

Tensor erf(const Tensor& x) {
  return apply_full("erf", UnaryOp::erf, x, [](const Tensor& dy, const Tensor& x) {
    return dy * exp(-square(x)) * (2 * std::numbers::inv_sqrtpi);
  });
}

Tensor exp2(const Tensor& x) {
  return apply_full("exp2", UnaryOp::exp2, x, [](const Tensor& dy, const Tensor& x) {
    return dy * exp2(x) * std::numbers::ln2;
  });
}

Tensor log2(const Tensor& x) {
  return apply_full("log2", UnaryOp::log2, x,
                    [](const Tensor& dy, const Tensor& x) { return dy / x * std::numbers::log2e; });
}

Tensor tan(const Tensor& x) {
  return apply_full("tan", UnaryOp::tan, x,
                    [](const Tensor& dy, const Tensor& x) { return dy * (1 + square(tan(x))); });
}

Tensor sign(const Tensor& x) {
  check_arithmetic("sign", x);
  return apply_step("sign", UnaryOp::sign, x);
}
Tensor floor(const Tensor& x) {
  return apply_rounding("floor", UnaryOp::floor, x);
}
Tensor ceil(const Tensor& x) {
  return apply_rounding("ceil", UnaryOp::ceil, x);
}
Tensor round(const Tensor& x) {
  return apply_rounding("round", UnaryOp::round, x);
}

}  // namespace binade
