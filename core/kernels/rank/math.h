// Elementary functions of the ranking losses, for CPU and GPU.
#pragma once

#ifdef __CUDACC__
#define BINADE_RANK __device__ __forceinline__
#else
#include <binade/core/kernels/cpu/common/vector_math.h>
#define BINADE_RANK [[gnu::always_inline]] inline
#endif
// Before a loop over the members of a group whose sums (largest values) are named: a CPU's vectors
// are its lanes.
#ifdef __CUDACC__
#define BINADE_RANK_SIMD(...)
#define BINADE_RANK_SIMD_MAX(...)
#else
#define BINADE_RANK_PRAGMA(text) _Pragma(#text)
#define BINADE_RANK_SIMD(...) BINADE_RANK_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#define BINADE_RANK_SIMD_MAX(...) BINADE_RANK_PRAGMA(omp simd reduction(max : __VA_ARGS__))
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
// Within 2 ulp, for divisors below 2^126.
__device__ __forceinline__ float divide(float a, float b) {
  return __fdividef(a, b);
}
__device__ __forceinline__ double divide(double a, double b) {
  return a / b;
}
#else
template <class C>
BINADE_RANK C exponential(C x) {
  return cpu::fast_exp(x);
}
template <class C>
BINADE_RANK C divide(C a, C b) {
  return a / b;
}
#endif

// ln(1 + e) for e in [0, 1], with its full relative precision: 2 artanh(e / (2 + e)).
BINADE_RANK float log_one_plus(float e) {
  const float t = divide(e, 2 + e), square = t * t;
  float series = 1.0f / 13;
  series = fmaf(series, square, 1.0f / 11);
  series = fmaf(series, square, 1.0f / 9);
  series = fmaf(series, square, 1.0f / 7);
  series = fmaf(series, square, 1.0f / 5);
  series = fmaf(series, square, 1.0f / 3);
  return 2 * fmaf(t * square, series, t);
}
BINADE_RANK double log_one_plus(double e) {
  return log1p(e);
}

// The logistic function at x and at −x, and ln(1 + e^x), without cancellation or overflow.
template <class C>
struct Logistic {
  C at, opposite, softplus;
};
template <class C>
BINADE_RANK Logistic<C> logistic(C x) {
  const C e = exponential(-fabs(x));
  const C larger = divide(C(1), 1 + e), smaller = e * larger;
  return {x < 0 ? smaller : larger, x < 0 ? larger : smaller, (x > 0 ? x : C(0)) + log_one_plus(e)};
}

// A distribution that is symmetrical around 0: its function and its density.
template <class C>
struct Step {
  C value, density;
};
template <class C>
BINADE_RANK Step<C> logistic_step(C x) {
  const C e = exponential(-fabs(x));
  const C larger = divide(C(1), 1 + e), smaller = e * larger;
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
