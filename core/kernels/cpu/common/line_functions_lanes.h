// The functions of lines for vectors of any width. Included by one source file per
// instruction set, each compiled for its own: nothing here is an inline function that the linker
// could share between them.
#pragma once

#include <cstdint>
#include <limits>

#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/common/vector_math.h>

namespace binade::kernels::cpu {

namespace {

// gelu_tanh(x) = x/2 · (1 + tanh(u)) = x · sigmoid(2u) with u = √(2/π)·(x + 0.044715·x³).
constexpr double kGeluScale = 2 * 0.79788456080286535588, kGeluCubic = 0.044715;

template <class T>
BINADE_LANE T gelu_gate(T x) {
  return T(1) / (T(1) + fast_exp(-T(kGeluScale) * x * (T(1) + T(kGeluCubic) * x * x)));
}

template <class T>
void add_line(T* line, const T* bias, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) line[i] += bias[i];
}

template <class T, bool HasBias>
void relu_loop(T* line, const T* bias, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T x = HasBias ? line[i] + bias[i] : line[i];
    line[i] = x < T(0) ? T(0) : x;
  }
}
template <class T>
void relu_line(T* line, const T* bias, int64_t n) {
  bias != nullptr ? relu_loop<T, true>(line, bias, n) : relu_loop<T, false>(line, bias, n);
}

template <class T, bool HasBias, bool HasPre>
void gelu_loop(T* line, const T* bias, T* pre, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T x = HasBias ? line[i] + bias[i] : line[i];
    if constexpr (HasPre) pre[i] = x;
    line[i] = x * gelu_gate(x);
  }
}
template <class T>
void gelu_line(T* line, const T* bias, T* pre, int64_t n) {
  if (bias != nullptr)
    return pre != nullptr ? gelu_loop<T, true, true>(line, bias, pre, n)
                          : gelu_loop<T, true, false>(line, bias, pre, n);
  return pre != nullptr ? gelu_loop<T, false, true>(line, bias, pre, n)
                        : gelu_loop<T, false, false>(line, bias, pre, n);
}

template <class T>
void multiply_line_by_gelu_gradient(T* line, const T* pre, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T x = pre[i], gate = gelu_gate(x);
    const T slope = T(kGeluScale) * (T(1) + T(3 * kGeluCubic) * x * x);
    line[i] *= gate + x * gate * (T(1) - gate) * slope;
  }
}

template <class T>
void keep_line_where_above(T* line, const T* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) line[i] = y[i] <= T(0) ? T(0) : line[i];
}

template <class T>
T exponentiate_line(T* line, int64_t n, T& largest, T& total) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  T maximum = largest;
#pragma omp simd reduction(max : maximum)
  for (int64_t i = 0; i < n; ++i) maximum = maximum < line[i] ? line[i] : maximum;
  // Where all scores are −∞ nothing may be subtracted: −∞ − (−∞) is NaN.
  const T shift = maximum == kLowest ? T(0) : maximum;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    line[i] = fast_exp(line[i] - shift);
    sum += line[i];
  }
  const T rescale = fast_exp(largest - shift);
  largest = maximum;
  total = total * rescale + sum;
  return rescale;
}

template <class T>
void softmax_moments_line(T* p, const T* dp, int64_t n, T logsumexp, T& total, T& inner) {
  T sum = 0, weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
  for (int64_t i = 0; i < n; ++i) {
    p[i] = fast_exp(p[i] - logsumexp);
    sum += p[i];
    weighted += p[i] * dp[i];
  }
  total += sum;
  inner += weighted;
}

template <class T>
constexpr LineFunctions<T> make_line_functions() {
  return {&add_line<T>,
          &relu_line<T>,
          &gelu_line<T>,
          &multiply_line_by_gelu_gradient<T>,
          &keep_line_where_above<T>,
          &exponentiate_line<T>,
          &softmax_moments_line<T>};
}

}  // namespace

}  // namespace binade::kernels::cpu
