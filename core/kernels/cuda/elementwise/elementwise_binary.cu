// Arithmetic of two or three operands, of an operand and a number, and y += alpha · x.
#include <binade/core/kernels/angle_rules.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>

namespace binade::kernels::cuda {

namespace {

template <class C>
__device__ __forceinline__ C binary_value(BinaryOp op, C a, C b) {
  switch (op) {
    case BinaryOp::add:
      return a + b;
    case BinaryOp::sub:
      return a - b;
    case BinaryOp::mul:
      return a * b;
    case BinaryOp::div:
      return a / b;
    case BinaryOp::pow:
      if constexpr (std::is_floating_point_v<C>)
        return pow(a, b);
      else
        return C(0);  // refused before the launch
    case BinaryOp::atan2:
      if constexpr (std::is_floating_point_v<C>)
        return atan2(a, b);
      else
        return C(0);  // refused before the launch
    case BinaryOp::maximum:
      return Max()(a, b);
    case BinaryOp::minimum:
      return Min()(a, b);
    case BinaryOp::distance:
      return a > b ? a - b : b - a;
  }
  return a;
}

// The op is known when the kernel is compiled: for those of a training step.
template <class T, BinaryOp kOp>
struct FixedBinary {
  __device__ __forceinline__ T operator()(T a, T b) const {
    return narrow<T>(binary_value(kOp, widen(a), widen(b)));
  }
};

template <class T>
struct ShortAngle {
  __device__ __forceinline__ T operator()(T y, T x) const {
    return narrow<T>(short_atan2<InstructionsFor<T>>(widen(y), widen(x)));
  }
};

// Out of line: one copy of the formulas for all elements of an item.
template <class C>
__device__ __noinline__ C binary_value_of_any(BinaryOp op, C a, C b) {
  return binary_value(op, a, b);
}

template <class T>
struct AnyBinary {
  BinaryOp op;
  __device__ __forceinline__ T operator()(T a, T b) const {
    return narrow<T>(binary_value_of_any(op, widen(a), widen(b)));
  }
};

template <class T, BinaryOp kOp>
struct FixedBinaryScalar {
  ComputeOf<T> value;
  __device__ __forceinline__ T operator()(T a) const {
    return narrow<T>(binary_value(kOp, widen(a), value));
  }
};

template <class T>
struct AnyBinaryScalar {
  BinaryOp op;
  ComputeOf<T> value;
  bool value_first;
  __device__ __forceinline__ T operator()(T a) const {
    const ComputeOf<T> x = widen(a);
    return narrow<T>(value_first ? binary_value_of_any(op, value, x)
                                 : binary_value_of_any(op, x, value));
  }
};

template <class T, TernaryOp kOp>
struct Ternary {
  ComputeOf<T> value;
  __device__ __forceinline__ T operator()(T first, T second, T third) const {
    using C = ComputeOf<T>;
    const C a = widen(first), b = widen(second), c = widen(third);
    if constexpr (kOp == TernaryOp::lerp) {  // from the nearer end
      const C way = b - a, weight = value * c;
      return narrow<T>(weight < C(0.5) ? a + weight * way : b - way * (C(1) - weight));
    } else if constexpr (kOp == TernaryOp::addcmul) {
      return narrow<T>(a + value * b * c);
    } else {
      return narrow<T>(Min()(Max()(a, b), c));
    }
  }
};

template <class Y, class X>
struct Axpy {
  using C =
      std::conditional_t<std::is_same_v<Y, double> || std::is_same_v<X, double>, double, float>;
  C alpha;
  __device__ bool reads_out() const { return true; }
  __device__ __forceinline__ Y operator()(Y y, X x) const {
    return narrow<Y>(static_cast<C>(widen(y)) + alpha * static_cast<C>(widen(x)));
  }
};

template <class Y, class X>
void typed_axpy(double alpha, const Array& x, const Array& y) {
  const Axpy<Y, X> f{static_cast<typename Axpy<Y, X>::C>(alpha)};
  elementwise("axpy", Operands<Y, X>(), f, f, y, x);
}

template <class Out, class In>
struct Scale {
  ComputeOf<In> factor, beta;
  __device__ bool reads_out() const { return beta != 0; }
  __device__ __forceinline__ Out operator()(Out out, In x) const {
    const ComputeOf<In> product = factor * widen(x);
    return narrow<Out>(beta != 0 ? product + beta * widen(out) : product);
  }
};

template <int kVec, class Out, class In>
__global__ void __launch_bounds__(kBlock)
    scale_kernel(const __grid_constant__ Layout layout, const ComputeOf<In>* factor,
                 ComputeOf<In> beta, Out* out, const In* x, bool in_place) {
  const Scale<Out, In> f{*factor, beta};
  if (in_place && f.factor == 1) return;
  walk_items<kVec>(layout, f, std::index_sequence<0>(), out, x);
}

template <class Out, class In>
void typed_scale(const Array& x, const Array& factor, const Array& out, float beta) {
  using C = ComputeOf<In>;
  constexpr int kVec = 16 / static_cast<int>(std::max(sizeof(Out), sizeof(In)));
  const Layout layout = make_layout({&out, &x}, kVec);
  const bool in_place = x.data() == out.data() && beta == 0;
  launch("scale", layout.vec == kVec ? scale_kernel<kVec, Out, In> : scale_kernel<1, Out, In>,
         grid_for(layout.items), kBlock, 0, layout, device_data<const C>(factor),
         static_cast<C>(beta), device_data<Out>(out), device_data<const In>(x), in_place);
}

// Pairs of dtypes that no training step adds.
template <class C>
__global__ void __launch_bounds__(kBlock)
    axpy_any_kernel(const __grid_constant__ Layout layout, C alpha, const void* x, DType x_dtype,
                    void* y, DType y_dtype) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[2];
    locate(layout, item, offset);
    const C sum = load_as<C>(y, offset[0], y_dtype) + alpha * load_as<C>(x, offset[1], x_dtype);
    store_as(y, offset[0], y_dtype, sum);
  }
}

void check_arithmetic(BinaryOp op, DType dtype) {
  const bool floating = op == BinaryOp::pow || op == BinaryOp::atan2 || op == BinaryOp::distance;
  check(!floating || is_floating(dtype),
        "pow, atan2 and distance need a floating-point dtype, got ", name_of(dtype));
}

}  // namespace

void binary(BinaryOp op, const Array& a, const Array& b, const Array& out) {
  check_arithmetic(op, out.dtype());
  visit_all(out.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const auto run = [&](const auto& fast) {
      elementwise("binary", Operands<T, T, T>(), fast, AnyBinary<T>{op}, out, a, b);
    };
    if constexpr (std::is_same_v<ComputeOf<T>, float>) {
      switch (op) {
        case BinaryOp::add:
          return run(FixedBinary<T, BinaryOp::add>());
        case BinaryOp::sub:
          return run(FixedBinary<T, BinaryOp::sub>());
        case BinaryOp::mul:
          return run(FixedBinary<T, BinaryOp::mul>());
        case BinaryOp::div:
          return run(FixedBinary<T, BinaryOp::div>());
        case BinaryOp::maximum:
          return run(FixedBinary<T, BinaryOp::maximum>());
        case BinaryOp::minimum:
          return run(FixedBinary<T, BinaryOp::minimum>());
        case BinaryOp::atan2:
          if constexpr (sizeof(T) == 2)
            return run(ShortAngle<T>());
          else
            return run(FixedBinary<T, BinaryOp::atan2>());
        default:
          break;
      }
    }
    run(AnyBinary<T>{op});
  });
}

void binary_scalar(BinaryOp op, const Array& a, double value, bool value_first, const Array& out) {
  check_arithmetic(op, out.dtype());
  visit_all(out.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const auto number = static_cast<ComputeOf<T>>(value);
    const AnyBinaryScalar<T> any{op, number, value_first};
    const auto run = [&](const auto& fast) {
      elementwise("binary_scalar", Operands<T, T>(), fast, any, out, a);
    };
    if constexpr (std::is_same_v<ComputeOf<T>, float>) {
      if (op == BinaryOp::add) return run(FixedBinaryScalar<T, BinaryOp::add>{number});
      if (op == BinaryOp::mul) return run(FixedBinaryScalar<T, BinaryOp::mul>{number});
    }
    run(any);
  });
}

void ternary(TernaryOp op, const Array& a, const Array& b, const Array& c, double value,
             const Array& out) {
  visit_floating(out.dtype(), "ternary", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const auto run = [&](const auto& f) {
      elementwise("ternary", Operands<T, T, T, T>(), f, f, out, a, b, c);
    };
    const auto number = static_cast<ComputeOf<T>>(value);
    switch (op) {
      case TernaryOp::lerp:
        return run(Ternary<T, TernaryOp::lerp>{number});
      case TernaryOp::addcmul:
        return run(Ternary<T, TernaryOp::addcmul>{number});
      case TernaryOp::clamp:
        return run(Ternary<T, TernaryOp::clamp>{number});
    }
  });
}

void axpy(double alpha, const Array& x, const Array& y) {
  if (y.numel() == 0) return;
  if (x.dtype() == y.dtype()) {
    return visit_floating(y.dtype(), "axpy", [&](auto tag) {
      using T = DeviceOf<decltype(tag)>;
      typed_axpy<T, T>(alpha, x, y);
    });
  }
  check(is_floating(x.dtype()) && is_floating(y.dtype()), "axpy needs floating-point dtypes, got ",
        name_of(x.dtype()), " and ", name_of(y.dtype()));
  if (y.dtype() == DType::f32 && x.dtype() == DType::f16)
    return typed_axpy<float, __half>(alpha, x, y);
  if (y.dtype() == DType::f32 && x.dtype() == DType::bf16)
    return typed_axpy<float, __nv_bfloat16>(alpha, x, y);

  const Layout layout = make_layout({&y, &x}, 1);
  const bool wide = x.dtype() == DType::f64 || y.dtype() == DType::f64;
  if (wide) {
    launch("axpy", axpy_any_kernel<double>, grid_for(layout.items), kBlock, 0, layout, alpha,
           device_pointer(x), x.dtype(), device_pointer(y), y.dtype());
  } else {
    launch("axpy", axpy_any_kernel<float>, grid_for(layout.items), kBlock, 0, layout,
           static_cast<float>(alpha), device_pointer(x), x.dtype(), device_pointer(y), y.dtype());
  }
}

void scale(const Array& x, const Array& factor, const Array& out, float beta) {
  if (out.numel() == 0) return;
  if (x.dtype() == DType::f32 && out.dtype() == DType::f16)
    return typed_scale<__half, float>(x, factor, out, beta);
  if (x.dtype() == DType::f32 && out.dtype() == DType::bf16)
    return typed_scale<__nv_bfloat16, float>(x, factor, out, beta);
  check(x.dtype() == out.dtype(), "scale cannot turn ", name_of(x.dtype()), " into ",
        name_of(out.dtype()));
  visit_floating(x.dtype(), "scale", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    typed_scale<T, T>(x, factor, out, beta);
  });
}

}  // namespace binade::kernels::cuda
