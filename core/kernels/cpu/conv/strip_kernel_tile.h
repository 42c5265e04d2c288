// The strip kernel for vectors of any width. Included by one source file per instruction set, each
// compiled for its own: nothing here is an inline function that the linker could share between
// them.
#pragma once

#include <utility>

#include <binade/core/kernels/cpu/conv/strip_kernel.h>

namespace binade::kernels::cpu {

template <int Bytes, int Rows, int Vectors>
void multiply_strip_tile(int64_t k, const float* a, int64_t leading_a, const float* b,
                         const int64_t* places, float* c, int64_t leading_c) {
  using Vector __attribute__((vector_size(Bytes))) = float;
  using Unaligned __attribute__((vector_size(Bytes), aligned(4), may_alias)) = float;
  constexpr int kLanes = Bytes / static_cast<int>(sizeof(float));

  Vector sums[Rows][Vectors] = {};
  // Three pointers and the leading dimension address all rows; the barrier keeps the compiler from
  // giving each row a pointer of its own.
  constexpr int kApart = Rows > 6 ? 5 : 3;
  const float *a0 = a, *a1 = a + kApart * leading_a, *a2 = a + 2 * kApart * leading_a;
  for (int64_t i = 0; i < k; ++i) {
    Vector right[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v)
      right[v] = *reinterpret_cast<const Unaligned*>(b + places[i] + v * kLanes);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      const float* const from = row < kApart ? a0 : row < 2 * kApart ? a1 : a2;
      const Vector left = from[row % kApart * leading_a] - Vector{};  // in every lane
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sums[row][v] += left * right[v];
    }
    ++a0, ++a1, ++a2;
    asm("" : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(leading_a));
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v)
      *reinterpret_cast<Unaligned*>(c + row * leading_c + v * kLanes) += sums[row][v];
  }
}

template <int Bytes, int... Row>
constexpr StripKernel make_strip_kernel(double single, std::integer_sequence<int, Row...>) {
  return {sizeof...(Row),
          Bytes / static_cast<int>(sizeof(float)),
          single,
          {{&multiply_strip_tile<Bytes, Row + 1, 1>, &multiply_strip_tile<Bytes, Row + 1, 2>}...}};
}

}  // namespace binade::kernels::cpu
