// The innermost loop over patches that lie unpacked in a strip (strip_matmul.h): as the matmuls'
// micro-kernel, but each row of b is where its element of the kernel meets the pixels. Private to
// this folder.
#pragma once

#include <cstdint>

namespace binade::kernels::cpu {

struct StripKernel {
  static constexpr int64_t kMostRows = 14, kMostVectors = 2, kMostColumns = 32;
  // c (rows, vectors) += a (rows, k; by rows) · b, whose row i begins at b + places[i], aligned or
  // not.
  using Multiply = void (*)(int64_t k, const float* a, int64_t leading_a, const float* b,
                            const int64_t* places, float* c, int64_t leading_c);

  int64_t rows, lanes;  // of the largest tile, and of a vector
  // Time of a tile of one vector over that of two: with few rows it waits for its own sums.
  double single;
  Multiply multiply[kMostRows][kMostVectors];  // [rows − 1][vectors − 1]

  int64_t columns() const { return kMostVectors * lanes; }
};

// For processors with AVX2 and FMA, which the build asks for at least …
extern const StripKernel kStripKernelAvx2;
// … and with AVX-512 besides.
extern const StripKernel kStripKernelAvx512;

// The widest that this processor has.
const StripKernel& strip_kernel();

}  // namespace binade::kernels::cpu
