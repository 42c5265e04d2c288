// Derivatives of the functions of one operand.
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T, UnaryOp kOp>
struct FixedBackward {
  bool accumulate;
  __device__ bool reads_out() const { return accumulate; }
  __device__ __forceinline__ T operator()(T old, T x, T dy) const {
    return narrow<T>(widen(old) + unary_gradient<MathFor<T>>(kOp, widen(x), widen(dy)));
  }
};

template <class Math, class C>
__device__ __noinline__ C gradient_of_any(UnaryOp op, C x, C dy) {
  return unary_gradient<Math>(op, x, dy);
}

template <class T>
struct AnyBackward {
  UnaryOp op;
  bool accumulate;
  __device__ bool reads_out() const { return accumulate; }
  __device__ __forceinline__ T operator()(T old, T x, T dy) const {
    return narrow<T>(widen(old) + gradient_of_any<MathFor<T>>(op, widen(x), widen(dy)));
  }
};

}  // namespace

void unary_backward(UnaryOp op, const Array& x, const Array& dy, const Array& dx, float beta) {
  check(x.dtype() == dy.dtype() && x.dtype() == dx.dtype(),
        "unary_backward needs x, dy and dx of one dtype, got ", name_of(x.dtype()), ", ",
        name_of(dy.dtype()), " and ", name_of(dx.dtype()));
  const bool has_slope = op != UnaryOp::neg && op != UnaryOp::sign && op != UnaryOp::floor &&
                         op != UnaryOp::ceil && op != UnaryOp::round;
  check(has_slope, "unary_backward: neg and what is constant by pieces have no derivative here");
  visit_floating(x.dtype(), "unary_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const bool accumulate = beta != 0;
    const auto run = [&](const auto& fast) {
      elementwise("unary_backward", Operands<T, T, T>(), fast, AnyBackward<T>{op, accumulate}, dx,
                  x, dy);
    };
    if constexpr (!std::is_same_v<T, double>) {
      switch (op) {
        case UnaryOp::silu:
          return run(FixedBackward<T, UnaryOp::silu>{accumulate});
        case UnaryOp::gelu:
          return run(FixedBackward<T, UnaryOp::gelu>{accumulate});
        case UnaryOp::gelu_tanh:
          return run(FixedBackward<T, UnaryOp::gelu_tanh>{accumulate});
        case UnaryOp::relu:
          return run(FixedBackward<T, UnaryOp::relu>{accumulate});
        case UnaryOp::hardswish:
          return run(FixedBackward<T, UnaryOp::hardswish>{accumulate});
        case UnaryOp::logsigmoid:
          return run(FixedBackward<T, UnaryOp::logsigmoid>{accumulate});
        case UnaryOp::mish:
          return run(FixedBackward<T, UnaryOp::mish>{accumulate});
        case UnaryOp::exp:
        case UnaryOp::expm1:
          return run(FixedBackward<T, UnaryOp::exp>{accumulate});
        case UnaryOp::exp2:
          return run(FixedBackward<T, UnaryOp::exp2>{accumulate});
        case UnaryOp::log:
          return run(FixedBackward<T, UnaryOp::log>{accumulate});
        case UnaryOp::log1p:
          return run(FixedBackward<T, UnaryOp::log1p>{accumulate});
        case UnaryOp::sqrt:
          return run(FixedBackward<T, UnaryOp::sqrt>{accumulate});
        case UnaryOp::square:
          return run(FixedBackward<T, UnaryOp::square>{accumulate});
        case UnaryOp::abs:
          return run(FixedBackward<T, UnaryOp::abs>{accumulate});
        case UnaryOp::tan:
          return run(FixedBackward<T, UnaryOp::tan>{accumulate});
        default:
          break;
      }
    }
    run(AnyBackward<T>{op, accumulate});
  });
}

}  // namespace binade::kernels::cuda
