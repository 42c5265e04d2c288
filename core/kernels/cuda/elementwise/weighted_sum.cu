// Sums of arrays that statistics scale.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct Scaled {
  using C = ComputeOf<T>;
  __device__ __forceinline__ T operator()(T x, C a) const { return narrow<T>(widen(x) * a); }
};
template <class T>
struct Deviation {
  using C = ComputeOf<T>;
  __device__ __forceinline__ T operator()(T x, C center, C a) const {
    return narrow<T>((widen(x) - center) * a);
  }
};
template <class T>
struct WeightedSum {
  using C = ComputeOf<T>;
  __device__ __forceinline__ T operator()(T x, C a, T y, C b) const {
    return narrow<T>(widen(x) * a + widen(y) * b);
  }
};

// elementwise() whose items are 16-byte vectors of T, however wide the statistics, C, that go with
// one are; its own are as wide as the widest operand's.
template <class T, class... In, class F, class... Arrays>
void by_vectors(Operands<T, In...> operands, const F& f, const Array& out, const Arrays&... in) {
  constexpr int kVec = kVecWidth<T>;
  if constexpr (sizeof(T) < 4) {
    if (out.numel() > 0) {
      const Layout layout = make_layout({&out, &in...}, kVec);
      if (layout.vec == kVec)
        return launch("weighted_sum", elementwise_kernel<kVec, F, T, In...>, grid_for(layout.items),
                      kBlock, 0, layout, f, device_data<T>(out), device_data<In>(in)...);
    }
  }
  elementwise("weighted_sum", operands, f, f, out, in...);
}

}  // namespace

void weighted_sum(const Array& x, const Array& center, const Array& a, const Array& y,
                  const Array& b, const Array& out) {
  visit_floating(out.dtype(), "weighted_sum", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    if (y.defined()) {
      const WeightedSum<T> f;
      by_vectors(Operands<T, T, C, T, C>(), f, out, x, a, y, b);
    } else if (center.defined()) {
      const Deviation<T> f;
      by_vectors(Operands<T, T, C, C>(), f, out, x, center, a);
    } else {
      const Scaled<T> f;
      by_vectors(Operands<T, T, C>(), f, out, x, a);
    }
  });
}

}  // namespace binade::kernels::cuda
