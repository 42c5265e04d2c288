// Functions of one variable and the gated activation.
#include <cmath>
#include <numbers>

#include <binade/core/kernels/cpu/common/vector_math.h>
#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/elementwise.h>

namespace binade::kernels::cpu {
namespace {

template <class C>
C sign(C x) {
  return x > 0 ? C{1} : x < 0 ? C{-1} : x;  // 0 and NaN stay
}

// The argument of the sigmoid in gelu_tanh(x) = x·σ(2u), u = √(2/π)·(x + 0.044715 x³): the same as
// ½x·(1 + tanh u) without its cancellation. And the argument's derivative.
template <class C>
C gelu_tanh_argument(C x) {
  return C(1.5957691216057308) * x * (1 + C(0.044715) * x * x);
}
template <class C>
C gelu_tanh_argument_slope(C x) {
  return C(1.5957691216057308) * (1 + C(3 * 0.044715) * x * x);
}

// tanh(log(1 + eˣ)) = n/(n + 2) with n = eˣ(eˣ + 2), and its derivative; 1 and 0 from 20 on, where
// the square would overflow later.
template <class C>
struct MishGate {
  C value, slope;
};
template <class C>
BINADE_LANE MishGate<C> mish_gate(C x) {
  const C e = fast_exp(x > 20 ? C{20} : x);
  const C n = e * (e + 2);
  const C inverse = 1 / (n + 2);
  return {x > 20 ? C{1} : n * inverse, x > 20 ? C{0} : 4 * e * (1 + e) * inverse * inverse};
}

// Calls visitor(functor) with the function on C.
template <class C, class Visitor>
void visit_unary(UnaryOp op, Visitor&& visitor) {
  switch (op) {
    case UnaryOp::neg:
      return visitor([](C x) {
        if constexpr (std::is_integral_v<C>) return static_cast<C>(-static_cast<uint64_t>(x));
        return static_cast<C>(-x);
      });
    case UnaryOp::abs:
      return visitor([](C x) {
        if constexpr (std::is_integral_v<C>)
          return x < 0 ? static_cast<C>(-static_cast<uint64_t>(x)) : x;
        else
          return std::fabs(x);
      });
    case UnaryOp::sign:
      return visitor([](C x) { return sign(x); });
    case UnaryOp::square:
      return visitor([](C x) {
        if constexpr (std::is_integral_v<C>)
          return static_cast<C>(static_cast<uint64_t>(x) * static_cast<uint64_t>(x));
        return static_cast<C>(x * x);
      });
    default:
      break;
  }
  if constexpr (std::is_integral_v<C>) {
    fail("this function needs a floating-point dtype");
  } else {
    switch (op) {
      case UnaryOp::exp:
        return visitor([](C x) { return fast_exp(x); });
      case UnaryOp::exp2:
        return visitor([](C x) { return fast_exp2(x); });
      case UnaryOp::expm1:
        return visitor([](C x) { return fast_expm1(x); });
      case UnaryOp::log:
        return visitor([](C x) { return fast_log(x); });
      case UnaryOp::log2:
        return visitor([](C x) { return fast_log2(x); });
      case UnaryOp::log1p:
        return visitor([](C x) { return fast_log1p(x); });
      case UnaryOp::sqrt:
        return visitor([](C x) { return std::sqrt(x); });
      case UnaryOp::rsqrt:
        return visitor([](C x) { return 1 / std::sqrt(x); });
      case UnaryOp::reciprocal:
        return visitor([](C x) { return 1 / x; });
      case UnaryOp::sin:
        return visitor([](C x) { return std::sin(x); });
      case UnaryOp::cos:
        return visitor([](C x) { return std::cos(x); });
      case UnaryOp::tan:
        return visitor([](C x) { return std::tan(x); });
      case UnaryOp::tanh:
        return visitor([](C x) { return fast_tanh(x); });
      case UnaryOp::erf:
        return visitor([](C x) { return fast_erf(x); });
      case UnaryOp::sigmoid:
        return visitor([](C x) { return fast_sigmoid(x); });
      case UnaryOp::silu:
        return visitor([](C x) { return x * fast_sigmoid(x); });
      case UnaryOp::gelu:
        return visitor([](C x) { return x * normal_at(x).cdf; });
      case UnaryOp::gelu_tanh:
        return visitor([](C x) { return x * fast_sigmoid(gelu_tanh_argument(x)); });
      case UnaryOp::relu:
        return visitor([](C x) { return x < 0 ? C{0} : x; });  // keeps NaN
      case UnaryOp::softplus:
        return visitor([](C x) { return fast_softplus(x); });
      case UnaryOp::hardswish:
        return visitor([](C x) {  // keeps NaN
          return x <= -3 ? C{0} : x >= 3 ? x : x * (x + 3) / 6;
        });
      case UnaryOp::logsigmoid:
        return visitor([](C x) { return -fast_softplus(-x); });
      case UnaryOp::mish:
        return visitor([](C x) { return x * mish_gate(x).value; });
      case UnaryOp::floor:
        return visitor([](C x) { return std::floor(x); });
      case UnaryOp::ceil:
        return visitor([](C x) { return std::ceil(x); });
      case UnaryOp::round:
        return visitor([](C x) { return std::nearbyint(x); });
      default:
        break;
    }
  }
}

// Calls visitor(functor) with (x, dy) -> dy · op'(x), for functions that are no activations …
template <class C, class Visitor>
void visit_function_backward(UnaryOp op, Visitor&& visitor) {
  switch (op) {
    case UnaryOp::abs:
      return visitor([](C x, C dy) { return dy * sign(x); });
    case UnaryOp::square:
      return visitor([](C x, C dy) { return dy * x * 2; });
    case UnaryOp::sqrt:
      return visitor([](C x, C dy) { return dy * (1 / std::sqrt(x)) * C(0.5); });
    case UnaryOp::rsqrt:
      return visitor([](C x, C dy) { return dy * (1 / std::sqrt(x)) / x * C(-0.5); });
    case UnaryOp::reciprocal:
      return visitor([](C x, C dy) { return -(dy / x) / x; });
    case UnaryOp::exp:
    case UnaryOp::expm1:
      return visitor([](C x, C dy) { return dy * fast_exp(x); });
    case UnaryOp::exp2:
      return visitor([](C x, C dy) { return dy * std::exp2(x) * C(std::numbers::ln2); });
    case UnaryOp::log:
      return visitor([](C x, C dy) { return dy / x; });
    case UnaryOp::log2:
      return visitor([](C x, C dy) { return dy / x * C(std::numbers::log2e); });
    case UnaryOp::log1p:
      return visitor([](C x, C dy) { return dy / (x + 1); });
    case UnaryOp::sin:
      return visitor([](C x, C dy) { return dy * std::cos(x); });
    case UnaryOp::cos:
      return visitor([](C x, C dy) { return -dy * std::sin(x); });
    case UnaryOp::tan:
      return visitor([](C x, C dy) {
        const C t = std::tan(x);
        return dy * (1 + t * t);
      });
    case UnaryOp::erf:
      return visitor(
          [](C x, C dy) { return dy * fast_exp(-x * x) * C(2 * std::numbers::inv_sqrtpi); });
    default:
      fail("unary_backward: neg and what is constant by pieces have no derivative here");
  }
}

// … and for all.
template <class C, class Visitor>
void visit_unary_backward(UnaryOp op, Visitor&& visitor) {
  switch (op) {
    case UnaryOp::tanh:
      return visitor([](C x, C dy) {
        const C y = fast_tanh(x);
        return dy * (1 - y * y);
      });
    case UnaryOp::sigmoid:
      return visitor([](C x, C dy) {
        const auto [s, rest] = sigmoid_at(x);
        return dy * s * rest;
      });
    case UnaryOp::silu:
      return visitor([](C x, C dy) {
        const auto [s, rest] = sigmoid_at(x);
        return dy * s * (1 + x * rest);
      });
    case UnaryOp::gelu:
      return visitor([](C x, C dy) {
        const auto [cdf, density] = normal_at(x);
        return dy * (cdf + x * density);
      });
    case UnaryOp::gelu_tanh:
      return visitor([](C x, C dy) {
        const auto [s, rest] = sigmoid_at(gelu_tanh_argument(x));
        return dy * s * (1 + x * rest * gelu_tanh_argument_slope(x));
      });
    case UnaryOp::relu:
      return visitor([](C x, C dy) { return x <= 0 ? C{0} : dy; });
    case UnaryOp::softplus:
      return visitor([](C x, C dy) { return dy * fast_sigmoid(x); });
    case UnaryOp::hardswish:
      return visitor([](C x, C dy) { return x <= -3 ? C{0} : x < 3 ? dy * (x / 3 + C(0.5)) : dy; });
    case UnaryOp::logsigmoid:
      return visitor([](C x, C dy) { return dy * sigmoid_at(x).rest; });
    case UnaryOp::mish:
      return visitor([](C x, C dy) {
        const auto [gate, slope] = mish_gate(x);
        return dy * (gate + x * slope);
      });
    default:
      return visit_function_backward<C>(op, visitor);
  }
}

// The same for functions with a number.
template <class C, class Visitor>
void visit_shaped(ShapedOp op, C c, Visitor&& visitor) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return visitor([=](C x) { return x * (x > 0 ? C{1} : c); });  // without a branch: vectors
    case ShapedOp::elu:
      return visitor([=](C x) { return x > 0 ? x : c * fast_expm1(x); });
    case ShapedOp::softplus:
      return visitor([=](C x) {  // c·x may leave the range where the value does not
        return (x < 0 ? C{0} : x) + fast_softplus(-std::fabs(c * x)) / c;
      });
  }
}
template <class C, class Visitor>
void visit_shaped_backward(ShapedOp op, C c, Visitor&& visitor) {
  switch (op) {
    case ShapedOp::leaky_relu:
      return visitor([=](C x, C dy) { return dy * (x > 0 ? C{1} : c); });
    case ShapedOp::elu:
      return visitor([=](C x, C dy) { return x > 0 ? dy : dy * c * fast_exp(x); });
    case ShapedOp::softplus:
      return visitor([=](C x, C dy) { return dy * fast_sigmoid(c * x); });
  }
}

// dx = gradient(x, dy), or added to it.
template <class C, class Gradient>
void map_gradient(const Gradient& gradient, const Array& x, const Array& dy, const Array& dx,
                  float beta) {
  if (beta == 0)
    map<C>(gradient, dx, x, dy);
  else
    map<C>([=](C old, C v, C d) { return old + gradient(v, d); }, dx, dx, x, dy);
}

}  // namespace

void unary(UnaryOp op, const Array& x, const Array& out) {
  visit_compute(x.dtype(), [&](auto zero) {
    using C = decltype(zero);
    visit_unary<C>(op, [&](auto function) { map<C>(function, out, x); });
  });
}

void unary_backward(UnaryOp op, const Array& x, const Array& dy, const Array& dx, float beta) {
  visit_real(x.dtype(), "unary_backward", [&](auto zero) {
    using C = decltype(zero);
    visit_unary_backward<C>(op, [&](auto gradient) { map_gradient<C>(gradient, x, dy, dx, beta); });
  });
}

void shaped(ShapedOp op, const Array& x, double c, const Array& out) {
  visit_real(x.dtype(), "shaped", [&](auto zero) {
    using C = decltype(zero);
    visit_shaped(op, static_cast<C>(c), [&](auto function) { map<C>(function, out, x); });
  });
}

void shaped_backward(ShapedOp op, const Array& x, const Array& dy, double c, const Array& dx,
                     float beta) {
  visit_real(x.dtype(), "shaped_backward", [&](auto zero) {
    using C = decltype(zero);
    visit_shaped_backward(op, static_cast<C>(c),
                          [&](auto gradient) { map_gradient<C>(gradient, x, dy, dx, beta); });
  });
}

void swiglu(const Array& gate, const Array& up, const Array& out) {
  visit_real(out.dtype(), "swiglu", [&](auto zero) {
    using C = decltype(zero);
    map<C>([](C g, C u) { return g * fast_sigmoid(g) * u; }, out, gate, up);
  });
}

void swiglu_backward(const Array& gate, const Array& up, const Array& dout, const Array& dgate,
                     const Array& dup, float beta) {
  visit_real(gate.dtype(), "swiglu_backward", [&](auto zero) {
    using C = decltype(zero);
    StridedLoop({dgate, dup, gate, up, dout}).for_each([&](const Run& run) {
      TileReader<C> readers[5];
      TileWriter<C> writers[2];
      const C* g = readers[0].read(run, 2, gate.dtype());
      const C* u = readers[1].read(run, 3, up.dtype());
      const C* d = readers[2].read(run, 4, dout.dtype());
      // Aside first: either gradient may be written over its own input.
      alignas(64) C gate_gradient[kTile], up_gradient[kTile];
#pragma omp simd
      for (int64_t i = 0; i < run.count; ++i) {
        const auto [s, rest] = sigmoid_at(g[i]);
        gate_gradient[i] = d[i] * u[i] * s * (1 + g[i] * rest);
        up_gradient[i] = d[i] * g[i] * s;
      }
      const auto store = [&](int operand, DType dtype, const C* gradient) {
        const C* old = beta == 0 ? nullptr : readers[3 + operand].read(run, operand, dtype);
        C* target = writers[operand].target(run, operand, dtype);
        if (beta == 0) {
          std::copy_n(gradient, run.count, target);
        } else {
#pragma omp simd
          for (int64_t i = 0; i < run.count; ++i) target[i] = old[i] + gradient[i];
        }
        writers[operand].store(run.count);
      };
      store(0, dgate.dtype(), gate_gradient);
      store(1, dup.dtype(), up_gradient);
    });
  });
}

}  // namespace binade::kernels::cpu
