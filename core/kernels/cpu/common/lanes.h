// Sums and extremes over a run, vectorised in an order that depends on the length alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <binade/core/kernels/cpu/common/strided.h>
#include <binade/core/kernels/cpu/common/vector_math.h>

namespace binade::kernels::cpu {

// Σ term(i) for i in [0, count). Four sums run at once, so that one addition need not wait for the
// one before.
template <class C, class Term>
BINADE_LANE C sum_of(int64_t count, Term term) {
  const int64_t quarter = count / 4;
  C a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < quarter; ++i) {
    a += term(i);
    b += term(quarter + i);
    c += term(2 * quarter + i);
    d += term(3 * quarter + i);
  }
  C rest = 0;
  for (int64_t i = 4 * quarter; i < count; ++i) rest += term(i);
  return ((a + b) + (c + d)) + rest;
}

// The same for long runs (a vocabulary): sums of tiles in C, their sum in double.
template <class C, class Term>
BINADE_LANE double long_sum_of(int64_t count, Term term) {
  double total = 0;
  for (int64_t i = 0; i < count; i += kTile)
    total += static_cast<double>(
        sum_of<C>(std::min(kTile, count - i), [=](int64_t k) { return term(i + k); }));
  return total;
}

// The largest of x[0 .. count) that is not NaN; the lowest value (−inf) if there is none.
template <class C>
C max_of(const C* x, int64_t count) {
  using Limits = std::numeric_limits<C>;
  C result = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
#pragma omp simd reduction(max : result)
  for (int64_t i = 0; i < count; ++i) result = x[i] > result ? x[i] : result;
  return result;
}
template <class C>
C min_of(const C* x, int64_t count) {
  using Limits = std::numeric_limits<C>;
  C result = Limits::has_infinity ? Limits::infinity() : Limits::max();
#pragma omp simd reduction(min : result)
  for (int64_t i = 0; i < count; ++i) result = x[i] < result ? x[i] : result;
  return result;
}

template <class C>
bool has_nan(const C* x, int64_t count) {
  if constexpr (!std::numeric_limits<C>::has_quiet_NaN) return false;
  int found = 0;
#pragma omp simd reduction(| : found)
  for (int64_t i = 0; i < count; ++i) found |= x[i] != x[i];
  return found != 0;
}

// log Σ exp(x), shifted by the maximum.
template <class C>
double log_sum_exp(const C* x, int64_t count) {
  const C largest = max_of(x, count);
  const C shift = std::isfinite(largest) ? largest : C{0};  // all −inf gives −inf, +inf gives +inf
  const double total = long_sum_of<C>(count, [=](int64_t i) { return fast_exp(x[i] - shift); });
  return static_cast<double>(shift) + std::log(total);
}

}  // namespace binade::kernels::cpu
