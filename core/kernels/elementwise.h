// Elementwise kernels over arrays of any strides. Hot paths: contiguous operands, and one operand
// that is a vector along the last dimension (bias) or a scalar.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

enum class UnaryOp : uint8_t {
  neg,
  abs,
  sign,
  exp,
  exp2,
  expm1,
  log,
  log2,
  log1p,
  sqrt,
  rsqrt,
  reciprocal,
  square,
  sin,
  cos,
  tan,
  tanh,
  erf,
  sigmoid,
  silu,
  gelu,
  gelu_tanh,
  relu,
  softplus,
  hardswish,
  logsigmoid,
  mish,
  floor,
  ceil,
  round,  // round: ties to even
};
// Tests whose output is bool.
enum class TestOp : uint8_t { is_finite, is_nan, is_inf, logical_not };
// Functions of one variable with a number c: leaky_relu x > 0 ? x : c·x; elu x > 0 ? x : c·(eˣ −
// 1); softplus log(1 + e^(c·x)) / c.
enum class ShapedOp : uint8_t { leaky_relu, elu, softplus };
enum class BinaryOp : uint8_t { add, sub, mul, div, pow, atan2, maximum, minimum };
// lerp a + value·c·(b − a); addcmul a + value·b·c; clamp min(max(a, b), c), where a NaN of any
// wins.
enum class TernaryOp : uint8_t { lerp, addcmul, clamp };
enum class CompareOp : uint8_t { eq, ne, lt, le, gt, ge, logical_and, logical_or };

// out = op(x). out has x's shape and dtype (floating; neg, abs, sign and square take integers too).
// gelu is x·Φ(x); gelu_tanh its tanh form (Hendrycks & Gimpel 2016, eq. 2); hardswish
// x·min(max(x + 3, 0), 6)/6 (Howard et al. 2019); mish x·tanh(log(1 + eˣ)) (Misra 2019).
BINADE_KERNEL(unary, UnaryOp op, const Array& x, const Array& out)
// dx = beta·dx + dy · op'(x), for tanh, sigmoid, silu, gelu, gelu_tanh, relu, softplus, hardswish,
// logsigmoid, mish.
BINADE_KERNEL(unary_backward, UnaryOp op, const Array& x, const Array& dy, const Array& dx,
              float beta)
// The same for functions with a number, of floating dtypes.
BINADE_KERNEL(shaped, ShapedOp op, const Array& x, double c, const Array& out)
BINADE_KERNEL(shaped_backward, ShapedOp op, const Array& x, const Array& dy, double c,
              const Array& dx, float beta)
// out (bool) = op(x).
BINADE_KERNEL(test, TestOp op, const Array& x, const Array& out)
// out = a op b. a and b already have out's shape (expanded) and dtype. out may be a or b itself.
// Integers: div rounds toward zero, pow and atan2 are not there.
BINADE_KERNEL(binary, BinaryOp op, const Array& a, const Array& b, const Array& out)
// out = a op value, or value op a when `value_first`.
BINADE_KERNEL(binary_scalar, BinaryOp op, const Array& a, double value, bool value_first,
              const Array& out)
// out = op(a, b, c), which have out's shape (expanded) and dtype, a floating one.
BINADE_KERNEL(ternary, TernaryOp op, const Array& a, const Array& b, const Array& c, double value,
              const Array& out)
// out (bool) = a op b; a and b have out's shape and one dtype.
BINADE_KERNEL(compare, CompareOp op, const Array& a, const Array& b, const Array& out)
// out = condition ? a : b. condition is bool; all expanded to out's shape.
BINADE_KERNEL(where, const Array& condition, const Array& a, const Array& b, const Array& out)
// out = min(max(x, low), high).
BINADE_KERNEL(clamp, const Array& x, double low, double high, const Array& out)
// y += alpha · x. x has y's shape (expanded), any floating dtypes; alpha multiplies in f32 (f64).
BINADE_KERNEL(axpy, double alpha, const Array& x, const Array& y)
// out = beta·out + factor·x, with one number on the device (f32, or f64 for f64 x). x has out's
// shape and dtype, or is f32 where out is half. Where out is x and the factor is 1, nothing is
// read.
BINADE_KERNEL(scale, const Array& x, const Array& factor, const Array& out, float beta)
// out = x, converted; any dtypes, any strides (floating to integer truncates, to bool tests != 0).
BINADE_KERNEL(copy, const Array& x, const Array& out)
BINADE_KERNEL(fill, const Array& out, double value)
// out (…, R, C) = x where column − row <= diagonal (lower), or >= diagonal, and 0 elsewhere; any
// dtype. out is contiguous.
BINADE_KERNEL(triangle, const Array& x, int64_t diagonal, bool lower, const Array& out)
// out[i] = start + i · step; out is contiguous.
BINADE_KERNEL(arange, const Array& out, double start, double step)
// SwiGLU (Shazeer 2020): out = silu(gate) · up, for equal shapes (rows may be strided).
BINADE_KERNEL(swiglu, const Array& gate, const Array& up, const Array& out)
// dgate = beta·dgate + d · up · silu'(gate); dup = beta·dup + d · silu(gate).
BINADE_KERNEL(swiglu_backward, const Array& gate, const Array& up, const Array& dout,
              const Array& dgate, const Array& dup, float beta)

}  // namespace binade::kernels
