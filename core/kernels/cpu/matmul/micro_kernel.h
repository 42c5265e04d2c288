// The innermost loop of the CPU's own matmuls (Goto & van de Geijn 2008; Van Zee & van de
// Geijn 2015): a tile of the output held in registers while a few rows of a and a packed
// micro-panel of b stream by. Private to this folder.
#pragma once

#include <cstdint>

namespace binade::kernels::cpu {

struct MicroKernel {
  static constexpr int64_t kMostRows = 14, kMostColumns = 32;
  // c (rows, columns) = a · b, or c += a · b when `accumulate`. a lies by rows; b holds `columns`
  // floats for every step along k, aligned to 64 bytes. `ahead` is what is multiplied next of b:
  // some kernels fetch k / kFetchSteps cache lines of it, which may reach beyond its end.
  using Multiply = void (*)(int64_t k, const float* a, int64_t leading_a, const float* b,
                            bool accumulate, float* c, int64_t leading_c, const float* ahead);
  static constexpr int64_t kFetchSteps = 8;
  // The same, bit by bit, for a b that lies by rows `leading_b` floats apart: it is read where it
  // is, which is faster where few rows of a meet it.
  using MultiplyInPlace = void (*)(int64_t k, const float* a, int64_t leading_a, const float* b,
                                   int64_t leading_b, bool accumulate, float* c, int64_t leading_c);

  int64_t rows, columns;         // of the largest tile
  Multiply multiply[kMostRows];  // [r − 1]: for tiles of r rows
  MultiplyInPlace multiply_in_place[kMostRows];
};

// For processors with AVX2 and FMA, which the build asks for at least …
extern const MicroKernel kMicroKernelAvx2;
// … and with AVX-512 besides.
extern const MicroKernel kMicroKernelAvx512;

// The widest that this processor has.
const MicroKernel& micro_kernel();

}  // namespace binade::kernels::cpu
