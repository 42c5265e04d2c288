// Comparisons, tests, choices and clamping.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct Compare {
  CompareOp op;
  __device__ __forceinline__ bool operator()(T left, T right) const {
    const ComputeOf<T> a = widen(left), b = widen(right);
    switch (op) {
      case CompareOp::eq:
        return a == b;
      case CompareOp::ne:
        return a != b;
      case CompareOp::lt:
        return a < b;
      case CompareOp::le:
        return a <= b;
      case CompareOp::gt:
        return a > b;
      case CompareOp::ge:
        return a >= b;
      case CompareOp::logical_and:
        return a != 0 && b != 0;
      case CompareOp::logical_or:
        return a != 0 || b != 0;
    }
    return false;
  }
};

template <class T>
struct Test {
  TestOp op;
  __device__ __forceinline__ bool operator()(T element) const {
    const auto x = widen(element);
    if (op == TestOp::logical_not) return x == 0;
    if constexpr (std::is_floating_point_v<ComputeOf<T>>) {
      if (op == TestOp::is_nan) return x != x;
      const bool finite = fabs(x) < static_cast<decltype(x)>(INFINITY);
      return op == TestOp::is_finite ? finite : !finite && x == x;
    } else {
      return op == TestOp::is_finite;
    }
  }
};

template <class T>
struct Choose {
  __device__ __forceinline__ T operator()(bool condition, T a, T b) const {
    return condition ? a : b;
  }
};

template <class T>
struct Clamp {
  ComputeOf<T> low, high;
  __device__ __forceinline__ T operator()(T x) const {  // NaN stays NaN
    ComputeOf<T> value = widen(x);
    if (value < low) value = low;
    if (value > high) value = high;
    return narrow<T>(value);
  }
};

// Bounds of integers: the numbers nearest to `value` that int64_t holds.
template <class C>
C bound(double value) {
  if constexpr (std::is_same_v<C, int64_t>) {
    if (value <= -0x1p63) return INT64_MIN;
    if (value >= 0x1p63) return INT64_MAX;
  }
  return static_cast<C>(value);
}

}  // namespace

void compare(CompareOp op, const Array& a, const Array& b, const Array& out) {
  visit_all(a.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const Compare<T> f{op};
    elementwise("compare", Operands<bool, T, T>(), f, f, out, a, b);
  });
}

void test(TestOp op, const Array& x, const Array& out) {
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const Test<T> f{op};
    elementwise("test", Operands<bool, T>(), f, f, out, x);
  });
}

void where(const Array& condition, const Array& a, const Array& b, const Array& out) {
  const auto run = [&]<class T>(T) {  // the bits are chosen, whatever they mean
    elementwise("where", Operands<T, bool, T, T>(), Choose<T>(), Choose<T>(), out, condition, a, b);
  };
  visit_bits(out.dtype(), run);
}

void clamp(const Array& x, double low, double high, const Array& out) {
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const Clamp<T> f{bound<C>(low), bound<C>(high)};
    elementwise("clamp", Operands<T, T>(), f, f, out, x);
  });
}

}  // namespace binade::kernels::cuda
