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

// A packed micro-panel of b: vectors lie one behind another …
template <int Bytes, int Vectors>
struct PackedPanel {
  using Vector = typename VectorOf<Bytes>::Type;

  Vector at(int step, int v) const {
    return *reinterpret_cast<const Vector*>(data + (step * Vectors + v) * kLanes);
  }
  void advance(int steps) { data += steps * Vectors * kLanes; }

  static constexpr int kLanes = Bytes / static_cast<int>(sizeof(float));
  const float* data;
};

// … and columns of a b that lies by rows, read where they are.
template <int Bytes>
struct ColumnsInPlace {
  using Vector = typename VectorOf<Bytes>::Type;
  using Unaligned = typename VectorOf<Bytes>::Unaligned;

  Vector at(int step, int v) const {
    return *reinterpret_cast<const Unaligned*>(data + step * leading + v * kLanes);
  }
  void advance(int steps) { data += steps * leading; }

  static constexpr int kLanes = Bytes / static_cast<int>(sizeof(float));
  const float* data;
  int64_t leading;
};

// Unroll: steps along k that are written out one behind another; more than one also fetch `ahead`.
template <int Bytes, int Rows, int Vectors, int Unroll, class Right>
inline __attribute__((always_inline)) void multiply_tile(int64_t k, const float* a,
                                                         int64_t leading_a, Right b,
                                                         bool accumulate, float* c,
                                                         int64_t leading_c,
                                                         [[maybe_unused]] const float* ahead) {
  using Vector = typename VectorOf<Bytes>::Type;
  using Unaligned = typename VectorOf<Bytes>::Unaligned;
  constexpr int kLanes = Bytes / static_cast<int>(sizeof(float)), kWidth = Vectors * kLanes;
  constexpr int kCacheLine = 64 / sizeof(float);

  // Unrolled to the last loop, the sums are registers.
  Vector sums[Rows][Vectors] = {};
#pragma GCC unroll 16
  for (int row = 0; row < Rows; ++row) {
    __builtin_prefetch(c + row * leading_c, 1);
    __builtin_prefetch(c + row * leading_c + kWidth - 1, 1);
  }
  // Three pointers and the leading dimension address all rows. The barrier at the end of the loop
  // keeps the compiler from giving each row a pointer of its own, for which there are no registers.
  constexpr int kApart = Rows > 6 ? 5 : 3;
  const float *a0 = a, *a1 = a + kApart * leading_a, *a2 = a + 2 * kApart * leading_a;
  const auto step = [&](int i) __attribute__((always_inline)) {
    Vector right[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) right[v] = b.at(i, v);
#pragma GCC unroll 16
    for (int row = 0; row < Rows; ++row) {
      const float* const from = row < kApart ? a0 : row < 2 * kApart ? a1 : a2;
      const Vector left = from[row % kApart * leading_a + i] - Vector{};  // in every lane
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[row][v] += left * right[v];
    }
  };
  const auto advance = [&](int steps) __attribute__((always_inline)) {
    a0 += steps, a1 += steps, a2 += steps;
    asm("" : "+r"(a0), "+r"(a1), "+r"(a2), "+r"(leading_a));
    b.advance(steps);
  };
  int64_t done = 0;
  for (; done + Unroll <= k; done += Unroll) {
#pragma GCC unroll 16
    for (int i = 0; i < Unroll; ++i) step(i);
    if constexpr (Unroll > 1) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += kCacheLine;
    }
    advance(Unroll);
  }
  if constexpr (Unroll > 1) {
    for (; done < k; ++done) {
      step(0);
      advance(1);
    }
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

template <int Bytes, int Rows, int Vectors, int Unroll>
void multiply_packed_tile(int64_t k, const float* a, int64_t leading_a, const float* b,
                          bool accumulate, float* c, int64_t leading_c, const float* ahead) {
  multiply_tile<Bytes, Rows, Vectors, Unroll>(k, a, leading_a, PackedPanel<Bytes, Vectors>{b},
                                              accumulate, c, leading_c, ahead);
}

template <int Bytes, int Rows, int Vectors>
void multiply_tile_in_place(int64_t k, const float* a, int64_t leading_a, const float* b,
                            int64_t leading_b, bool accumulate, float* c, int64_t leading_c) {
  multiply_tile<Bytes, Rows, Vectors, 1>(k, a, leading_a, ColumnsInPlace<Bytes>{b, leading_b},
                                         accumulate, c, leading_c, nullptr);
}

template <int Bytes, int Vectors, int Unroll, int... Row>
constexpr MicroKernel make_micro_kernel(std::integer_sequence<int, Row...>) {
  return {sizeof...(Row),
          Vectors * Bytes / static_cast<int>(sizeof(float)),
          {&multiply_packed_tile<Bytes, Row + 1, Vectors, Unroll>...},
          {&multiply_tile_in_place<Bytes, Row + 1, Vectors>...}};
}

}  // namespace binade::kernels::cpu
