#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>

namespace binade::kernels::cuda {

namespace {

// The op is known when the kernel is compiled: for those of a training step.
template <class T, UnaryOp kOp>
struct FixedUnary {
  __device__ __forceinline__ T operator()(T x) const {
    return narrow<T>(unary_value<MathFor<T>>(kOp, widen(x)));
  }
};

// Out of line: one copy of the two dozen formulas for all elements of an item.
template <class Math, class C>
__device__ __noinline__ C unary_value_of_any(UnaryOp op, C x) {
  return unary_value<Math>(op, x);
}

template <class T>
struct AnyUnary {
  UnaryOp op;
  __device__ __forceinline__ T operator()(T x) const {
    return narrow<T>(unary_value_of_any<MathFor<T>>(op, widen(x)));
  }
};

template <class T>
struct IntegerUnary {
  UnaryOp op;
  __device__ __forceinline__ T operator()(T x) const {
    const int64_t value = widen(x);
    switch (op) {
      case UnaryOp::neg:
        return narrow<T>(-value);
      case UnaryOp::abs:
        return narrow<T>(value < 0 ? -value : value);
      case UnaryOp::sign:
        return narrow<T>(static_cast<int64_t>(value > 0) - static_cast<int64_t>(value < 0));
      default:
        return narrow<T>(value * value);
    }
  }
};

template <class T>
void integer_unary(UnaryOp op, const Array& x, const Array& out) {
  check(op == UnaryOp::neg || op == UnaryOp::abs || op == UnaryOp::sign || op == UnaryOp::square,
        "unary: of the unary ops only neg, abs, sign and square take integers, got ",
        name_of(x.dtype()));
  const IntegerUnary<T> f{op};
  elementwise("unary", Operands<T, T>(), f, f, out, x);
}

template <class T>
void floating_unary(UnaryOp op, const Array& x, const Array& out) {
  const auto run = [&](const auto& fast) {
    elementwise("unary", Operands<T, T>(), fast, AnyUnary<T>{op}, out, x);
  };
  switch (op) {
    case UnaryOp::tanh:
      return run(FixedUnary<T, UnaryOp::tanh>());
    case UnaryOp::sigmoid:
      return run(FixedUnary<T, UnaryOp::sigmoid>());
    case UnaryOp::silu:
      return run(FixedUnary<T, UnaryOp::silu>());
    case UnaryOp::gelu:
      return run(FixedUnary<T, UnaryOp::gelu>());
    case UnaryOp::gelu_tanh:
      return run(FixedUnary<T, UnaryOp::gelu_tanh>());
    case UnaryOp::relu:
      return run(FixedUnary<T, UnaryOp::relu>());
    case UnaryOp::hardswish:
      return run(FixedUnary<T, UnaryOp::hardswish>());
    case UnaryOp::logsigmoid:
      return run(FixedUnary<T, UnaryOp::logsigmoid>());
    case UnaryOp::mish:
      return run(FixedUnary<T, UnaryOp::mish>());
    case UnaryOp::exp:
      return run(FixedUnary<T, UnaryOp::exp>());
    case UnaryOp::exp2:
      return run(FixedUnary<T, UnaryOp::exp2>());
    case UnaryOp::expm1:
      return run(FixedUnary<T, UnaryOp::expm1>());
    case UnaryOp::log:
      return run(FixedUnary<T, UnaryOp::log>());
    case UnaryOp::log1p:
      return run(FixedUnary<T, UnaryOp::log1p>());
    case UnaryOp::sqrt:
      return run(FixedUnary<T, UnaryOp::sqrt>());
    case UnaryOp::square:
      return run(FixedUnary<T, UnaryOp::square>());
    case UnaryOp::abs:
      return run(FixedUnary<T, UnaryOp::abs>());
    case UnaryOp::tan:
      return run(FixedUnary<T, UnaryOp::tan>());
    case UnaryOp::round:
      return run(FixedUnary<T, UnaryOp::round>());
    default:
      return run(AnyUnary<T>{op});
  }
}

}  // namespace

void unary(UnaryOp op, const Array& x, const Array& out) {
  switch (x.dtype()) {
    case DType::i64:
      return integer_unary<int64_t>(op, x, out);
    case DType::i32:
      return integer_unary<int32_t>(op, x, out);
    case DType::u8:
      return integer_unary<uint8_t>(op, x, out);
    case DType::f64: {
      const AnyUnary<double> f{op};
      return elementwise("unary", Operands<double, double>(), f, f, out, x);
    }
    case DType::f32:
      return floating_unary<float>(op, x, out);
    case DType::f16:
      return floating_unary<__half>(op, x, out);
    case DType::bf16:
      return floating_unary<__nv_bfloat16>(op, x, out);
    default:
      fail("unary: does not take ", name_of(x.dtype()));
  }
}

}  // namespace binade::kernels::cuda
