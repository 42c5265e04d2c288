// Formulas of the unary ops and their derivatives for the GPU's kernels, over the elementary
// functions `Math` that they call. Called with a constant op they fold to that op's code. They
// compile for the host, too: tests take ShortMath through every number of 16 bits there.
#pragma once

#include <cmath>

#include <binade/core/host_device.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels {

// The library's functions, within a few ulp in float and double.
struct LibraryMath {
  template <class C>
  static BINADE_HOST_DEVICE C exp(C x) {
    return std::exp(x);
  }
  template <class C>
  static BINADE_HOST_DEVICE C exp2(C x) {
    return std::exp2(x);
  }
  template <class C>
  static BINADE_HOST_DEVICE C expm1(C x) {
    return std::expm1(x);
  }
  template <class C>
  static BINADE_HOST_DEVICE C log1p(C x) {
    return std::log1p(x);
  }
  template <class C>
  static BINADE_HOST_DEVICE C tan(C x) {
    return std::tan(x);
  }
  template <class C>
  static BINADE_HOST_DEVICE C reciprocal(C x) {
    return C(1) / x;
  }
  template <class C>
  static BINADE_HOST_DEVICE C quotient(C x, C divisor) {
    return x / divisor;
  }
};

// For elements of 16 bits: short forms in float on `Instructions`, the processor's approximations
// of 2ˣ, log₂ x and 1/x, which are within 2^-21 of the value (the logarithm absolutely, near 1).
// They may take subnormal numbers for 0 where Instructions::kBeyondHalf is false: elements are f16.
// What they are off by before rounding stays below an eighth of half an ulp of f16 and bf16, for
// every argument that these types hold.
template <class Instructions>
struct ShortMath {
  static BINADE_HOST_DEVICE float exp2(float x) { return Instructions::exp2(x); }
  static BINADE_HOST_DEVICE float exp(float x) { return Instructions::exp2(x * 1.44269504f); }
  static BINADE_HOST_DEVICE float reciprocal(float x) { return Instructions::reciprocal(x); }
  // By a divisor that all elements share, so that it is inverted once.
  static BINADE_HOST_DEVICE float quotient(float x, float divisor) { return x * (1.0f / divisor); }

  // Taylor's series where the difference would cancel.
  static BINADE_HOST_DEVICE float expm1(float x) {
    if (std::fabs(x) >= 0.5f || x != x) return exp(x) - 1.0f;
    float s = 1.0f / 720;
    s = std::fma(s, x, 1.0f / 120);
    s = std::fma(s, x, 1.0f / 24);
    s = std::fma(s, x, 1.0f / 6);
    s = std::fma(s, x, 0.5f);
    return std::fma(s * x, x, x);
  }
  static BINADE_HOST_DEVICE float log1p(float x) {
    if (std::fabs(x) >= 0.125f || x != x) return Instructions::log2(1.0f + x) * 0.693147181f;
    float s = -1.0f / 6;
    s = std::fma(s, x, 0.2f);
    s = std::fma(s, x, -0.25f);
    s = std::fma(s, x, 1.0f / 3);
    s = std::fma(s, x, -0.5f);
    return std::fma(s * x, x, x);
  }

  // tan r = r + r³·P(r²) on |r| ≤ π/4 (a minimax fit, 2^-18.1), and −1/tan r in every second
  // quarter; r is x without a multiple of π/2, which is subtracted in two parts (Cody & Waite
  // 1980). The multiple is rounded by a sum so large that its last digit counts quarters: the
  // processor's conversions are as slow as its approximations.
  static BINADE_HOST_DEVICE float tan(float x) {
    if constexpr (Instructions::kBeyondHalf)
      if (!(std::fabs(x) <= 65504.0f)) return far_tan(x);
    constexpr float kWhole = 0x1.8p23f;
    const float turned = std::fma(x, 0.636619772f, kWhole), quarters = turned - kWhole;
    float r = std::fma(quarters, -1.57079637f, x);
    r = std::fma(quarters, 4.37113883e-8f, r);
    const float square = r * r;
    float p = 0.0430928282f;
    p = std::fma(p, square, 0.0413944051f);
    p = std::fma(p, square, 0.136066318f);
    p = std::fma(p, square, 0.333154231f);
    const float t = std::fma(p * square, r, r);
    const float inverse = Instructions::reciprocal(t);
    return (__builtin_bit_cast(uint32_t, turned) & 1u) == 0 ? t : -inverse;
  }
  // The rest of bf16's range. Not inlined: a vector of elements has the library's code once.
  static __attribute__((noinline)) BINADE_HOST_DEVICE float far_tan(float x) {
    return LibraryMath::tan(x);
  }
};

template <class C>
BINADE_HOST_DEVICE inline C inverse_root(C x) {
#ifdef __CUDA_ARCH__
  return rsqrt(x);
#else
  return C(1) / std::sqrt(x);
#endif
}

// The argument of the sigmoid in gelu_tanh(x) = x·σ(2u), u = √(2/π)·(x + 0.044715 x³) (Hendrycks &
// Gimpel 2016, eq. 2): the same as ½x·(1 + tanh u) without its cancellation. And its derivative.
template <class C>
BINADE_HOST_DEVICE inline C gelu_tanh_argument(C x) {
  return C(1.5957691216057308) * x * (C(1) + C(0.044715) * x * x);
}
template <class C>
BINADE_HOST_DEVICE inline C gelu_tanh_slope(C x) {
  return C(1.5957691216057308) * (C(1) + C(3 * 0.044715) * x * x);
}

// The normal distribution function.
template <class C>
BINADE_HOST_DEVICE inline C normal_cdf(C x) {
  return C(0.5) * std::erfc(x * C(-0.7071067811865476));
}

// By e^−|x|, which does not overflow where σ is still a number.
template <class Math, class C>
BINADE_HOST_DEVICE inline C sigmoid_value(C x) {
  const C e = Math::exp(-std::fabs(x)), larger = Math::reciprocal(C(1) + e);
  return x < C(0) ? e * larger : larger;
}

template <class Math, class C>
BINADE_HOST_DEVICE inline C softplus_value(C x) {
  return (x > C(0) ? x : C(0)) + Math::log1p(Math::exp(-std::fabs(x)));
}

// tanh(log(1 + eˣ)) = n/(n + 2) with n = eˣ(eˣ + 2), and its derivative; 1 and 0 from 20 on, where
// the square would overflow later.
template <class Math, class C>
struct MishGate {
  C value, slope;
  BINADE_HOST_DEVICE explicit MishGate(C x) : value(C(1)), slope(C(0)) {
    if (x > C(20)) return;
    const C e = Math::exp(x), n = e * (e + C(2)), inverse = Math::reciprocal(n + C(2));
    value = n * inverse;
    slope = C(4) * e * (C(1) + e) * inverse * inverse;
  }
};

template <class C>
BINADE_HOST_DEVICE inline C sign_value(C x) {
  return x > C(0) ? C(1) : x < C(0) ? C(-1) : x;  // 0 and NaN stay
}

template <class Math, class C>
BINADE_HOST_DEVICE inline C unary_value(UnaryOp op, C x) {
  switch (op) {
    case UnaryOp::neg:
      return -x;
    case UnaryOp::abs:
      return std::fabs(x);
    case UnaryOp::sign:
      return sign_value(x);
    case UnaryOp::exp:
      return Math::exp(x);
    case UnaryOp::exp2:
      return Math::exp2(x);
    case UnaryOp::expm1:
      return Math::expm1(x);
    case UnaryOp::log:
      return std::log(x);
    case UnaryOp::log2:
      return std::log2(x);
    case UnaryOp::log1p:
      return Math::log1p(x);
    case UnaryOp::sqrt:
      return std::sqrt(x);
    case UnaryOp::rsqrt:
      return inverse_root(x);
    case UnaryOp::reciprocal:
      return C(1) / x;
    case UnaryOp::square:
      return x * x;
    case UnaryOp::sin:
      return std::sin(x);
    case UnaryOp::cos:
      return std::cos(x);
    case UnaryOp::tan:
      return Math::tan(x);
    case UnaryOp::tanh:
      return std::tanh(x);
    case UnaryOp::erf:
      return std::erf(x);
    case UnaryOp::sigmoid:
      return sigmoid_value<Math>(x);
    case UnaryOp::silu:
      return x * sigmoid_value<Math>(x);
    case UnaryOp::gelu:
      return x * normal_cdf(x);
    case UnaryOp::gelu_tanh:
      return x * sigmoid_value<Math>(gelu_tanh_argument(x));
    case UnaryOp::relu:
      return x < C(0) ? C(0) : x;  // keeps NaN
    case UnaryOp::softplus:
      return softplus_value<Math>(x);
    case UnaryOp::hardswish:
      return x <= C(-3) ? C(0) : x >= C(3) ? x : Math::quotient(x * (x + C(3)), C(6));  // keeps NaN
    case UnaryOp::logsigmoid:
      return (x > C(0) ? C(0) : x) - Math::log1p(Math::exp(-std::fabs(x)));
    case UnaryOp::mish:
      return x * MishGate<Math, C>(x).value;
    case UnaryOp::floor:
      return std::floor(x);
    case UnaryOp::ceil:
      return std::ceil(x);
    case UnaryOp::round:
      return std::rint(x);
  }
  return x;
}

// d op(x) / dx for the activations.
template <class Math, class C>
BINADE_HOST_DEVICE inline C activation_slope(UnaryOp op, C x) {
  switch (op) {
    case UnaryOp::tanh: {
      const C t = std::tanh(x);
      return C(1) - t * t;
    }
    case UnaryOp::sigmoid: {
      const C s = sigmoid_value<Math>(x);
      return s * (C(1) - s);
    }
    case UnaryOp::silu: {
      const C s = sigmoid_value<Math>(x);
      return s * (C(1) + x * (C(1) - s));
    }
    case UnaryOp::gelu: {
      const C density = C(0.3989422804014327) * Math::exp(C(-0.5) * x * x);
      return normal_cdf(x) + x * density;
    }
    case UnaryOp::gelu_tanh: {
      const C s = sigmoid_value<Math>(gelu_tanh_argument(x));
      return s * (C(1) + x * (C(1) - s) * gelu_tanh_slope(x));
    }
    case UnaryOp::relu:
      return x <= C(0) ? C(0) : C(1);  // keeps NaN's gradient
    case UnaryOp::softplus:
      return sigmoid_value<Math>(x);
    case UnaryOp::hardswish:
      return x <= C(-3) ? C(0) : x < C(3) ? Math::quotient(x, C(3)) + C(0.5) : C(1);
    case UnaryOp::logsigmoid:
      return sigmoid_value<Math>(-x);
    case UnaryOp::mish: {
      const MishGate<Math, C> gate(x);
      return gate.value + x * gate.slope;
    }
    default:
      return C(0);
  }
}

// Whether the function is constant by definition in places, where its gradient is 0: not even an
// infinity passes, of which a product with 0 would make NaN.
BINADE_HOST_DEVICE constexpr bool has_flat_places(UnaryOp op) {
  return op == UnaryOp::relu || op == UnaryOp::hardswish;
}

// dy · op'(x).
template <class Math, class C>
BINADE_HOST_DEVICE inline C unary_gradient(UnaryOp op, C x, C dy) {
  switch (op) {
    case UnaryOp::abs:
      return dy * sign_value(x);
    case UnaryOp::square:
      return dy * x * C(2);
    case UnaryOp::sqrt:
      return dy * inverse_root(x) * C(0.5);
    case UnaryOp::rsqrt:
      return dy * inverse_root(x) / x * C(-0.5);
    case UnaryOp::reciprocal:
      return -(dy / x) / x;
    case UnaryOp::exp:
    case UnaryOp::expm1:
      return dy * Math::exp(x);
    case UnaryOp::exp2:
      return dy * Math::exp2(x) * C(0.6931471805599453);
    case UnaryOp::log:
      return dy / x;
    case UnaryOp::log2:
      return dy / x * C(1.4426950408889634);
    case UnaryOp::log1p:
      return dy * Math::reciprocal(x + C(1));
    case UnaryOp::sin:
      return dy * std::cos(x);
    case UnaryOp::cos:
      return -dy * std::sin(x);
    case UnaryOp::tan: {
      const C t = Math::tan(x);
      return dy * (C(1) + t * t);
    }
    case UnaryOp::erf:
      return dy * Math::exp(-x * x) * C(1.1283791670955126);
    default: {
      const C slope = activation_slope<Math>(op, x);
      return has_flat_places(op) && slope == C(0) ? C(0) : dy * slope;
    }
  }
}

template <class Math, class C>
BINADE_HOST_DEVICE inline C shaped_value(ShapedOp op, C x, C c) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return x > C(0) ? x : c * x;
    case ShapedOp::elu: {
      const C below = c * Math::expm1(x);  // in any case: a warp has elements of both kinds
      return x > C(0) ? x : below;
    }
    case ShapedOp::softplus:
      return (x > C(0) ? x : C(0)) + Math::quotient(Math::log1p(Math::exp(-std::fabs(c * x))), c);
  }
  return x;
}
template <class Math, class C>
BINADE_HOST_DEVICE inline C shaped_slope(ShapedOp op, C x, C c) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return x > C(0) ? C(1) : c;
    case ShapedOp::elu:
      return x > C(0) ? C(1) : c * Math::exp(x);
    case ShapedOp::softplus:
      return sigmoid_value<Math>(c * x);
  }
  return C(0);
}

}  // namespace binade::kernels
