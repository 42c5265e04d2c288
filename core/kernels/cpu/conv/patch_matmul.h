// Convolutions as matmuls of filters and patches, the latter packed as the micro-kernel reads them,
// a part of an image's channels at a time. Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/conv/patches.h>
#include <binade/core/kernels/cpu/matmul/micro_kernel.h>

namespace binade::kernels::cpu {

// Output pixel (i, j) of the grid is pixel (row + i · row_step, column + j · column_step) of
// `array` (N, groups · filters, …), in any floating dtype.
struct PatchOutput {
  const Array& array;
  int64_t row = 0, row_step = 1, column = 0, column_step = 1;
  float beta = 0;              // 0 or 1: of what is there
  const void* bias = nullptr;  // one T for each of the array's channels

  std::byte* at(int64_t image, int64_t channel, int64_t i, int64_t j) const {
    const int64_t line = (image * array.size(1) + channel) * array.size(2) + row + i * row_step;
    return static_cast<std::byte*>(array.data()) +
           (line * array.size(3) + column + j * column_step) * size_of(array.dtype());
  }
  template <class T>
  T bias_of(int64_t channel) const {
    return bias ? static_cast<const T*>(bias)[channel] : T(0);
  }
};

// out (+)= filters · patches (of one tap at least) of images (N, groups · channels, H, W), whose
// channels are in order of groups. filters (groups, `filters`, channels · taps) lie in T, which
// sums are kept in: float or double. Work is cut by the shape alone, so the order of a sum does not
// depend on threads.
template <class T>
void multiply_patches(const Array& images, const PatchGrid& grid, int64_t groups, int64_t filters,
                      const T* weights, const PatchOutput& out);

// c (m, n, by rows) += a (m, k, by rows) · b (k, n), which lies in panels of panel_width<T>(n)
// columns, `panel` numbers apart.
void multiply_panels(int64_t m, int64_t n, int64_t k, Block<const float> a, const float* b,
                     int64_t panel, float* c, int64_t leading_c);
void multiply_panels(int64_t m, int64_t n, int64_t k, Block<const double> a, const double* b,
                     int64_t panel, double* c, int64_t leading_c);
// to (rows, columns) = the transpose of `from` (columns, rows), whose rows lie `leading` apart.
void transpose(int64_t rows, int64_t columns, const float* from, int64_t leading, float* to);
void transpose(int64_t rows, int64_t columns, const double* from, int64_t leading, double* to);

template <class T>
int64_t panel_width(int64_t columns) {
  return std::is_same_v<T, float> ? micro_kernel().columns : columns;
}

// `row` + beta · what `target` holds, stored there, `step` elements apart.
template <class T>
void store_with_beta(T* row, int64_t count, std::byte* target, DType dtype, int64_t step,
                     float beta);

}  // namespace binade::kernels::cpu
