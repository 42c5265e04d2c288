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

}  // namespace

void weighted_sum(const Array& x, const Array& center, const Array& a, const Array& y,
                  const Array& b, const Array& out) {
  visit_floating(out.dtype(), "weighted_sum", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    if (y.defined()) {
      const WeightedSum<T> f;
      elementwise("weighted_sum", Operands<T, T, C, T, C>(), f, f, out, x, a, y, b);
    } else if (center.defined()) {
      const Deviation<T> f;
      elementwise("weighted_sum", Operands<T, T, C, C>(), f, f, out, x, center, a);
    } else {
      const Scaled<T> f;
      elementwise("weighted_sum", Operands<T, T, C>(), f, f, out, x, a);
    }
  });
}

}  // namespace binade::kernels::cuda
