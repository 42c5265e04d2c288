// What is done to lines of sums in an epilogue and of scores in attention, in f32 in the widest
// vectors that the processor has. Every width gives the same bits, but for Σ. Private to this
// folder.
#pragma once

#include <cstdint>

namespace binade::kernels::cpu {

template <class T>
struct LineFunctions {
  // line += bias.
  void (*add)(T* line, const T* bias, int64_t n);
  // line = max(line + bias, 0), where NaN stays; `bias` may be null.
  void (*relu)(T* line, const T* bias, int64_t n);
  // pre = line + bias, line = gelu_tanh(pre); `bias` and `pre` may be null.
  void (*gelu)(T* line, const T* bias, T* pre, int64_t n);
  // line *= gelu_tanh'(pre).
  void (*multiply_by_gelu_gradient)(T* line, const T* pre, int64_t n);
  // line = 0 where y is 0 or below.
  void (*keep_where_above)(T* line, const T* y, int64_t n);
  // A running softmax: line = exp(line − the largest score so far), total = Σ of these so far.
  // Returns what earlier sums must be multiplied by.
  T (*exponentiate)(T* line, int64_t n, T& largest, T& total);
  // A softmax known by its logsumexp: p = exp(p − logsumexp), total += Σ p, inner += Σ p · dp.
  void (*softmax_moments)(T* p, const T* dp, int64_t n, T logsumexp, T& total, T& inner);
};

// For processors with AVX2 and FMA, which the build asks for at least …
extern const LineFunctions<float> kLineFunctionsAvx2;
// … and with AVX-512 besides.
extern const LineFunctions<float> kLineFunctionsAvx512;

// The widest that this processor has.
template <class T>
const LineFunctions<T>& line_functions();

}  // namespace binade::kernels::cpu
