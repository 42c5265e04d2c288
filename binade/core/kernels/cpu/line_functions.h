// What an epilogue does to a line of sums, in f32 in the widest vectors that the processor has;
// every width gives the same bits. Private to this folder.
#pragma once

#include <cstdint>

namespace binade::kernels::cpu {

template <class T>
struct LineFunctions {
  // line += bias.
  void (*add)(T* line, const T* bias, int64_t n);
  // pre = line + bias, line = gelu_tanh(pre); `bias` and `pre` may be null.
  void (*gelu)(T* line, const T* bias, T* pre, int64_t n);
  // line *= gelu_tanh'(pre).
  void (*multiply_by_gelu_gradient)(T* line, const T* pre, int64_t n);
};

// For processors with AVX2 and FMA, which the build asks for at least …
extern const LineFunctions<float> kLineFunctionsAvx2;
// … and with AVX-512 besides.
extern const LineFunctions<float> kLineFunctionsAvx512;

// The widest that this processor has.
template <class T>
const LineFunctions<T>& line_functions();

}  // namespace binade::kernels::cpu
