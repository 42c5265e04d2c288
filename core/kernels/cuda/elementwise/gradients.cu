// Gradients of ops of two and three operands: one pass reads what came in and writes all gradients
// that are wanted.
#include <binade/core/kernels/angle_rules.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct GradientOutputs {
  T* data[3];  // null: not wanted
};

// The op is known when the kernel is compiled …
template <BinaryOp kOp, class C>
struct FixedBinaryRule {
  static constexpr int kOperands = 2;
  __device__ __forceinline__ OperandGradients<C> operator()(C dy, C a, C b, C) const {
    return binary_gradient(kOp, a, b, dy);
  }
};
template <TernaryOp kOp, class C>
struct FixedTernaryRule {
  static constexpr int kOperands = 3;
  C value;
  __device__ __forceinline__ OperandGradients<C> operator()(C dy, C a, C b, C c) const {
    return ternary_gradient(kOp, a, b, c, value, dy);
  }
};
template <class T>
struct ShortAngleRule {  // atan2, of elements of 16 bits
  static constexpr int kOperands = 2;
  __device__ __forceinline__ OperandGradients<float> operator()(float dy, float a, float b,
                                                                float) const {
    return short_angle_gradient<InstructionsFor<T>>(a, b, dy);
  }
};
// … or where accesses are single elements, when it runs.
template <class C>
struct AnyBinaryRule {
  static constexpr int kOperands = 2;
  BinaryOp op;
  __device__ __forceinline__ OperandGradients<C> operator()(C dy, C a, C b, C) const {
    return binary_gradient(op, a, b, dy);
  }
};
template <class C>
struct AnyTernaryRule {
  static constexpr int kOperands = 3;
  TernaryOp op;
  C value;
  __device__ __forceinline__ OperandGradients<C> operator()(C dy, C a, C b, C c) const {
    return ternary_gradient(op, a, b, c, value, dy);
  }
};

// Operands of the layout: the gradients, which lie alike, dy, a, b and, if there is one, c. Null:
// the gradients that are wanted do not need it.
template <int kVec, class T, class Rule>
__global__ void __launch_bounds__(kBlock)
    gradients_kernel(const __grid_constant__ Layout layout, const Rule rule, const T* dy,
                     const T* a, const T* b, const T* c, GradientOutputs<T> out) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[2 + Rule::kOperands];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    const Vec<T, kVec> d = load_item<kVec>(layout, 1, dy, offset[1], count);
    Vec<T, kVec> x = d, y = d;
    if (a != nullptr) x = load_item<kVec>(layout, 2, a, offset[2], count);
    if (b != nullptr) y = load_item<kVec>(layout, 3, b, offset[3], count);
    Vec<T, kVec> z = y;
    if constexpr (Rule::kOperands == 3) z = load_item<kVec>(layout, 4, c, offset[4], count);
    Vec<T, kVec> gradient[Rule::kOperands];
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const OperandGradients<C> g = rule(widen(d[i]), widen(x[i]), widen(y[i]), widen(z[i]));
      gradient[0][i] = narrow<T>(g.a);
      gradient[1][i] = narrow<T>(g.b);
      if constexpr (Rule::kOperands == 3) gradient[2][i] = narrow<T>(g.c);
    }
#pragma unroll
    for (int k = 0; k < Rule::kOperands; ++k)
      if (out.data[k] != nullptr) store_item(out.data[k], offset[0], count, gradient[k]);
  }
}

template <class T, class Fast, class Any>
void run_gradients(const char* name, const Fast& fast, const Any& any, const Array& dy,
                   const Array& a, const Array& b, const Array& c, const Array (&wanted)[3],
                   bool reads_a_and_b = true) {
  constexpr int kVec = kVecWidth<T>;
  GradientOutputs<T> out{};
  const Array* first = nullptr;
  bool aligned = true;
  for (int k = 0; k < 3; ++k) {
    if (!wanted[k].defined()) continue;
    check(wanted[k].is_contiguous() && wanted[k].shape() == dy.shape(), name,
          ": gradients must be contiguous and have the shape ", dy.shape());
    out.data[k] = device_data<T>(wanted[k]);
    aligned &= rows_aligned(wanted[k].data(), 0, 1);
    if (first == nullptr) first = &wanted[k];
  }
  if (first == nullptr || dy.numel() == 0) return;
  const int vec = aligned ? kVec : 1;
  const Layout layout = Any::kOperands == 3 ? make_layout({first, &dy, &a, &b, &c}, vec)
                                            : make_layout({first, &dy, &a, &b}, vec);
  const T* third = Any::kOperands == 3 ? device_data<const T>(c) : nullptr;
  const auto run = [&](auto kernel, const auto& rule) {
    launch(name, kernel, grid_for(layout.items), kBlock, 0, layout, rule, device_data<const T>(dy),
           reads_a_and_b ? device_data<const T>(a) : nullptr,
           reads_a_and_b ? device_data<const T>(b) : nullptr, third, out);
  };
  if (layout.vec == kVec)
    run(gradients_kernel<kVec, T, Fast>, fast);
  else
    run(gradients_kernel<1, T, Any>, any);
}

template <class T>
struct InRange {
  ComputeOf<T> low, high;
  __device__ __forceinline__ T operator()(T x, T dy) const {  // a NaN lies outside of nothing
    const ComputeOf<T> value = widen(x);
    return value < low || value > high ? narrow<T>(ComputeOf<T>(0)) : dy;
  }
};

}  // namespace

void binary_backward(BinaryOp op, const Array& a, const Array& b, const Array& dy, const Array& da,
                     const Array& db) {
  visit_floating(dy.dtype(), "binary_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const auto run = [&](const auto& fast) {
      run_gradients<T>("binary_backward", fast, AnyBinaryRule<C>{op}, dy, a, b, {},
                       {da, db, Array()});
    };
    switch (op) {
      case BinaryOp::div:
        return run(FixedBinaryRule<BinaryOp::div, C>());
      case BinaryOp::atan2:
        if constexpr (sizeof(T) == 2)
          return run(ShortAngleRule<T>());
        else
          return run(FixedBinaryRule<BinaryOp::atan2, C>());
      case BinaryOp::maximum:
        return run(FixedBinaryRule<BinaryOp::maximum, C>());
      case BinaryOp::minimum:
        return run(FixedBinaryRule<BinaryOp::minimum, C>());
      case BinaryOp::distance:
        return run(FixedBinaryRule<BinaryOp::distance, C>());
      default:
        fail("binary_backward: not for this op");
    }
  });
}

void ternary_backward(TernaryOp op, const Array& a, const Array& b, const Array& c, double value,
                      const Array& dy, const Array& da, const Array& db, const Array& dc) {
  visit_floating(dy.dtype(), "ternary_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const auto number = static_cast<C>(value);
    const bool reads_a_and_b = op != TernaryOp::lerp || dc.defined();  // the weight's alone does
    const auto run = [&](const auto& fast) {
      run_gradients<T>("ternary_backward", fast, AnyTernaryRule<C>{op, number}, dy, a, b, c,
                       {da, db, dc}, reads_a_and_b);
    };
    switch (op) {
      case TernaryOp::lerp:
        return run(FixedTernaryRule<TernaryOp::lerp, C>{number});
      case TernaryOp::addcmul:
        return run(FixedTernaryRule<TernaryOp::addcmul, C>{number});
      case TernaryOp::clamp:
        return run(FixedTernaryRule<TernaryOp::clamp, C>{number});
    }
  });
}

void clamp_backward(const Array& x, double low, double high, const Array& dy, const Array& dx) {
  visit_floating(dy.dtype(), "clamp_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const InRange<T> f{static_cast<C>(low), static_cast<C>(high)};
    elementwise("clamp_backward", Operands<T, T, T>(), f, f, dx, x, dy);
  });
}

}  // namespace binade::kernels::cuda
