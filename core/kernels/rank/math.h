// Elementary functions of the ranking losses, for CPU and GPU.
#pragma once

#ifdef __CUDACC__
#define BINADE_RANK __device__ __forceinline__
#else
#include <binade/core/kernels/cpu/common/vector_math.h>
#define BINADE_RANK [[gnu::always_inline]] inline
#endif

#include <math.h>  // NOLINT(modernize-deprecated-headers): its overloads are global

#include <limits>

namespace binade::kernels::rank {

// As constants, which GPU code may use where it may not call the functions.
template <class T>
struct Range {
  static constexpr T kLeast = std::numeric_limits<T>::lowest();
  static constexpr T kMost = std::numeric_limits<T>::max();
  static constexpr T kEpsilon = std::numeric_limits<T>::epsilon();
};

#ifdef __CUDACC__
__device__ __forceinline__ float exponential(float x) {
  return __expf(x);  // 2 ulp beside the rounding of the argument
}
__device__ __forceinline__ double exponential(double x) {
  return exp(x);
}
#else
template <class C>
BINADE_RANK C exponential(C x) {
  return cpu::fast_exp(x);
}
#endif

// The logistic function at x and at −x, and ln(1 + e^x), without cancellation or overflow.
template <class C>
struct Logistic {
  C at, opposite, softplus;
};
template <class C>
BINADE_RANK Logistic<C> logistic(C x) {
  const C e = exponential(-fabs(x));
  const C larger = 1 / (1 + e), smaller = e * larger;
  return {x < 0 ? smaller : larger, x < 0 ? larger : smaller, (x > 0 ? x : C(0)) + log1p(e)};
}

// A distribution that is symmetrical around 0: its function and its density.
template <class C>
struct Step {
  C value, density;
};
template <class C>
BINADE_RANK Step<C> logistic_step(C x) {
  const C e = exponential(-fabs(x));
  const C larger = 1 / (1 + e), smaller = e * larger;
  return {x < 0 ? smaller : larger, larger * smaller};
}
template <class C>
BINADE_RANK Step<C> normal_step(C x) {
#ifdef __CUDACC__
  return {C(0.5) * erfc(-x * C(0.70710678118654752440)),
          C(0.39894228040143267794) * exponential(C(-0.5) * x * x)};
#else
  const cpu::Normal<C> normal = cpu::normal_at(x);
  return {normal.cdf, normal.density};
#endif
}

template <class C>
BINADE_RANK C gain(C label) {
  return exp2(label) - 1;
}
// 1/D of the rank r, counted from 0.
template <class C>
BINADE_RANK C discount(int r) {
  return 1 / log2(static_cast<C>(r) + 2);
}

}  // namespace binade::kernels::rank
