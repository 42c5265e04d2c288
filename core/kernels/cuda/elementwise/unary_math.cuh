// Formulas of the unary ops and their derivatives, in float or double. Called with a constant op
// they fold to that op's code.
#pragma once

#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cuda {

// The argument of the sigmoid in gelu_tanh(x) = x·σ(2u), u = √(2/π)·(x + 0.044715 x³) (Hendrycks &
// Gimpel 2016, eq. 2): the same as ½x·(1 + tanh u) without its cancellation. And its derivative.
template <class C>
__device__ __forceinline__ C gelu_tanh_argument(C x) {
  return C(1.5957691216057308) * x * (C(1) + C(0.044715) * x * x);
}
template <class C>
__device__ __forceinline__ C gelu_tanh_slope(C x) {
  return C(1.5957691216057308) * (C(1) + C(3 * 0.044715) * x * x);
}

// The normal distribution function.
template <class C>
__device__ __forceinline__ C normal_cdf(C x) {
  return C(0.5) * erfc(x * C(-0.7071067811865476));
}

template <class C>
__device__ __forceinline__ C sigmoid_value(C x) {
  return C(1) / (C(1) + exp(-x));
}

template <class C>
__device__ __forceinline__ C softplus_value(C x) {
  return (x > C(0) ? x : C(0)) + log1p(exp(-fabs(x)));
}

// tanh(log(1 + eˣ)) = n/(n + 2) with n = eˣ(eˣ + 2), and its derivative; 1 and 0 from 20 on, where
// the square would overflow later.
template <class C>
struct MishGate {
  C value, slope;
  __device__ __forceinline__ explicit MishGate(C x) : value(C(1)), slope(C(0)) {
    if (x > C(20)) return;
    const C e = exp(x), n = e * (e + C(2)), inverse = C(1) / (n + C(2));
    value = n * inverse;
    slope = C(4) * e * (C(1) + e) * inverse * inverse;
  }
};

template <class C>
__device__ __forceinline__ C unary_value(UnaryOp op, C x) {
  switch (op) {
    case UnaryOp::neg:
      return -x;
    case UnaryOp::abs:
      return fabs(x);
    case UnaryOp::sign:
      return x > C(0) ? C(1) : x < C(0) ? C(-1) : x;
    case UnaryOp::exp:
      return exp(x);
    case UnaryOp::exp2:
      return exp2(x);
    case UnaryOp::expm1:
      return expm1(x);
    case UnaryOp::log:
      return log(x);
    case UnaryOp::log2:
      return log2(x);
    case UnaryOp::log1p:
      return log1p(x);
    case UnaryOp::sqrt:
      return sqrt(x);
    case UnaryOp::rsqrt:
      return rsqrt(x);
    case UnaryOp::reciprocal:
      return C(1) / x;
    case UnaryOp::square:
      return x * x;
    case UnaryOp::sin:
      return sin(x);
    case UnaryOp::cos:
      return cos(x);
    case UnaryOp::tan:
      return tan(x);
    case UnaryOp::tanh:
      return tanh(x);
    case UnaryOp::erf:
      return erf(x);
    case UnaryOp::sigmoid:
      return sigmoid_value(x);
    case UnaryOp::silu:
      return x * sigmoid_value(x);
    case UnaryOp::gelu:
      return x * normal_cdf(x);
    case UnaryOp::gelu_tanh:
      return x * sigmoid_value(gelu_tanh_argument(x));
    case UnaryOp::relu:
      return x < C(0) ? C(0) : x;  // keeps NaN
    case UnaryOp::softplus:
      return softplus_value(x);
    case UnaryOp::hardswish:
      return x <= C(-3) ? C(0) : x >= C(3) ? x : x * (x + C(3)) / C(6);  // keeps NaN
    case UnaryOp::logsigmoid:
      return (x > C(0) ? C(0) : x) - log1p(exp(-fabs(x)));
    case UnaryOp::mish:
      return x * MishGate<C>(x).value;
    case UnaryOp::floor:
      return floor(x);
    case UnaryOp::ceil:
      return ceil(x);
    case UnaryOp::round:
      return rint(x);
  }
  return x;
}

// d op(x) / dx for the activations.
template <class C>
__device__ __forceinline__ C unary_derivative(UnaryOp op, C x) {
  switch (op) {
    case UnaryOp::tanh: {
      const C t = tanh(x);
      return C(1) - t * t;
    }
    case UnaryOp::sigmoid: {
      const C s = sigmoid_value(x);
      return s * (C(1) - s);
    }
    case UnaryOp::silu: {
      const C s = sigmoid_value(x);
      return s * (C(1) + x * (C(1) - s));
    }
    case UnaryOp::gelu: {
      const C density = C(0.3989422804014327) * exp(C(-0.5) * x * x);
      return normal_cdf(x) + x * density;
    }
    case UnaryOp::gelu_tanh: {
      const C s = sigmoid_value(gelu_tanh_argument(x));
      return s * (C(1) + x * (C(1) - s) * gelu_tanh_slope(x));
    }
    case UnaryOp::relu:
      return x <= C(0) ? C(0) : C(1);  // keeps NaN's gradient
    case UnaryOp::softplus:
      return sigmoid_value(x);
    case UnaryOp::hardswish:
      return x <= C(-3) ? C(0) : x < C(3) ? x / C(3) + C(0.5) : C(1);
    case UnaryOp::logsigmoid:
      return sigmoid_value(-x);
    case UnaryOp::mish: {
      const MishGate<C> gate(x);
      return gate.value + x * gate.slope;
    }
    default:
      return C(0);
  }
}

// dy · op'(x). What is flat by definition lets nothing through, not even inf · 0, which is NaN.
template <class C>
__device__ __forceinline__ C unary_gradient(UnaryOp op, C x, C dy) {
  const C slope = unary_derivative(op, x);
  const bool has_flat_part = op == UnaryOp::relu || op == UnaryOp::hardswish;
  return has_flat_part && slope == C(0) ? C(0) : dy * slope;
}

template <class C>
__device__ __forceinline__ C shaped_value(ShapedOp op, C x, C c) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return x > C(0) ? x : c * x;
    case ShapedOp::elu:
      return x > C(0) ? x : c * expm1(x);
    case ShapedOp::softplus:
      return softplus_value(c * x) / c;
  }
  return x;
}
template <class C>
__device__ __forceinline__ C shaped_derivative(ShapedOp op, C x, C c) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return x > C(0) ? C(1) : c;
    case ShapedOp::elu:
      return x > C(0) ? C(1) : c * exp(x);
    case ShapedOp::softplus:
      return sigmoid_value(c * x);
  }
  return C(0);
}

}  // namespace binade::kernels::cuda
