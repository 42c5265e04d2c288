// Checking the sums of a matrix's columns against the matrix.
#pragma once

#include "core/kernel_arrays.h"

namespace binade::test {

// How far `sums` (N) is from the sums of the columns of x (M, N), relative to the terms' size. Both
// on the CPU.
inline double column_sum_error(const Array& sums, const Array& x) {
  const int64_t cols = x.size(1);
  double worst = 0;
  for (int64_t j = 0; j < cols; ++j) {
    double sum = 0, size = 0;
    for (int64_t i = 0; i < x.size(0); ++i) {
      const double value = read(x, i * cols + j);
      sum += value;
      size += std::abs(value);
    }
    const double error = std::abs(read(sums, j) - sum);
    if (!(error <= worst * size)) worst = size > 0 ? error / size : INFINITY;
  }
  return worst;
}

}  // namespace binade::test
