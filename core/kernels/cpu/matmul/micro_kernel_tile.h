// The micro-kernel for vectors of any width. Included by one source file per instruction set, each
// compiled for its own: nothing here is an inline function that the linker could share between
// them.
#pragma once

#include <utility>

#include <binade/core/kernels/cpu/matmul/micro_kernel.h>

namespace binade::kernels::cpu {

template <int Bytes>
struct VectorOf {
  using Type __attribute__((vector_size(Bytes))) = float;
  using Unaligned __attribute__((vector_size(Bytes), aligned(4), may_alias)) = float;
};

template <int Bytes, int Rows, int Vectors>
void multiply_tile(int64_t k, const float* a, int64_t leading_a, const float* b, bool accumulate,
                   float* c, int64_t leading_c) {
  using Vector = typename VectorOf<Bytes>::Type;
  using Unaligned = typename VectorOf<Bytes>::Unaligned;
  constexpr int kLanes = Bytes / static_cast<int>(sizeof(float));

  // Unrolled to the last loop, the sums are registers.
  Vector sums[Rows][Vectors] = {};
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
    __builtin_prefetch(c + row * leading_c, 1);
    __builtin_prefetch(c + row * leading_c + Vectors * kLanes - 1, 1);
  }
  // Three pointers and the leading dimension address all rows. The barrier at the end of the loop
  // keeps the compiler from giving each row a pointer of its own, for which there are no registers.
  const float *a0 = a, *a5 = a + 5 * leading_a, *a10 = a + 10 * leading_a;
  for (int64_t i = 0; i < k; ++i) {
    Vector right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) right[v] = *reinterpret_cast<const Vector*>(b + v * kLanes);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      const float* const from = row < 5 ? a0 : row < 10 ? a5 : a10;
      const Vector left = from[row % 5 * leading_a] - Vector{};  // in every lane
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[row][v] += left * right[v];
    }
    ++a0, ++a5, ++a10;
    asm("" : "+r"(a0), "+r"(a5), "+r"(a10), "+r"(leading_a));
    b += Vectors * kLanes;
  }
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      Unaligned* const target = reinterpret_cast<Unaligned*>(c + row * leading_c + v * kLanes);
      *target = accumulate ? *target + sums[row][v] : sums[row][v];
    }
  }
}

template <int Bytes, int Vectors, int... Row>
constexpr MicroKernel make_micro_kernel(std::integer_sequence<int, Row...>) {
  return {sizeof...(Row),
          Vectors * Bytes / static_cast<int>(sizeof(float)),
          {&multiply_tile<Bytes, Row + 1, Vectors>...}};
}

}  // namespace binade::kernels::cpu
