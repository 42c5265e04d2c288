#include <binade/core/kernels/cpu/matmul/block_gemm.h>

#include <algorithm>

#include <Eigen/Core>

#include <binade/core/kernels/cpu/common/convert.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>
#include <binade/core/kernels/cpu/matmul/thin_matmul.h>

namespace binade::kernels::cpu {

namespace {

template <class T>
using RowMajorMap = Eigen::Map<
    Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
    Eigen::OuterStride<>>;
template <class T>
using ConstRowMajorMap =
    Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, 0,
               Eigen::OuterStride<>>;

// Calls visitor with the (rows, columns) block as an Eigen expression.
template <class T, class Visitor>
void visit_block(Block<const T> block, int64_t rows, int64_t columns, Visitor&& visitor) {
  const Eigen::OuterStride<> stride(block.leading);
  if (block.transposed)
    visitor(ConstRowMajorMap<T>(block.data, columns, rows, stride).transpose());
  else
    visitor(ConstRowMajorMap<T>(block.data, rows, columns, stride));
}

template <class T>
void eigen_gemm(int64_t m, int64_t n, int64_t k, Block<const T> a, Block<const T> b,
                bool accumulate, T* c, int64_t leading_c) {
  RowMajorMap<T> out(c, m, n, Eigen::OuterStride<>(leading_c));
  visit_block(a, m, k, [&](const auto& left) {
    visit_block(b, k, n, [&](const auto& right) {
      if (accumulate)
        out.noalias() += left * right;
      else
        out.noalias() = left * right;
    });
  });
}

// k = 0: the result is zero.
template <class T>
void zero_result(int64_t m, int64_t n, bool accumulate, T* c, int64_t leading_c) {
  if (accumulate) return;
  for (int64_t i = 0; i < m; ++i) std::fill_n(c + i * leading_c, n, T(0));
}

constexpr int64_t kChunk = 256;  // elements of a strided row packed at a time

template <class T>
void load(const void* source, DType dtype, int64_t stride, int64_t n, T* row) {
  if (stride == 1) return convert(source, dtype, row, dtype_of<T>(), n);
  const int64_t item = size_of(dtype);
  const auto* bytes = static_cast<const std::byte*>(source);
  alignas(double) std::byte packed[kChunk * sizeof(double)];
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t count = std::min(kChunk, n - i);
    gather_run(bytes + i * stride * item, stride * item, item, packed, count);
    convert(packed, dtype, row + i, dtype_of<T>(), count);
  }
}

template <class T>
void store(const T* row, int64_t n, void* target, DType dtype, int64_t stride) {
  if (stride == 1) return convert(row, dtype_of<T>(), target, dtype, n);
  const int64_t item = size_of(dtype);
  auto* bytes = static_cast<std::byte*>(target);
  alignas(double) std::byte packed[kChunk * sizeof(double)];
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t count = std::min(kChunk, n - i);
    convert(row + i, dtype_of<T>(), packed, dtype, count);
    scatter_run(packed, bytes + i * stride * item, stride * item, item, count);
  }
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> b,
          bool accumulate, float* c, int64_t leading_c) {
  if (k == 0) return zero_result(m, n, accumulate, c, leading_c);
  // Eigen is ahead with a single row, and where a panel of the micro-kernel would be half empty.
  if (m == 1 || 2 * n <= micro_kernel().columns)
    return eigen_gemm(m, n, k, a, b, accumulate, c, leading_c);
  // Transposing a panel of b costs as much as some rows do, sums across vectors as some steps do.
  constexpr int64_t kFewRows = 8, kStepsPerRow = 64;
  if (b.transposed && m <= kFewRows && k >= kStepsPerRow * m)
    return thin_gemm(m, n, k, a, b, accumulate, c, leading_c);
  multiply_by_panels(m, n, k, a, b, accumulate, c, leading_c);
}

void gemm(int64_t m, int64_t n, int64_t k, Block<const double> a, Block<const double> b,
          bool accumulate, double* c, int64_t leading_c) {
  if (k == 0) return zero_result(m, n, accumulate, c, leading_c);
  eigen_gemm(m, n, k, a, b, accumulate, c, leading_c);
}

void load_row(const void* source, DType dtype, int64_t stride, int64_t n, float* row) {
  load(source, dtype, stride, n, row);
}
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, double* row) {
  load(source, dtype, stride, n, row);
}
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, Half* row) {
  load(source, dtype, stride, n, row);
}
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, BFloat16* row) {
  load(source, dtype, stride, n, row);
}
void store_row(const float* row, int64_t n, void* target, DType dtype, int64_t stride) {
  store(row, n, target, dtype, stride);
}
void store_row(const double* row, int64_t n, void* target, DType dtype, int64_t stride) {
  store(row, n, target, dtype, stride);
}

template <class T>
bool usable_in_place(const MatrixView& matrix, int64_t rows, int64_t columns) {
  if (matrix.dtype != dtype_of<T>()) return false;
  const bool by_rows =
      (matrix.column_stride == 1 || columns == 1) && (matrix.row_stride >= columns || rows == 1);
  const bool by_columns =
      (matrix.row_stride == 1 || rows == 1) && (matrix.column_stride >= rows || columns == 1);
  return by_rows || by_columns;
}

template <class T>
Block<const T> block_of(const MatrixView& matrix, int64_t row, int64_t column, int64_t rows,
                        int64_t columns, T* buffer) {
  const std::byte* first = matrix.at(row, column);
  const bool by_rows = matrix.column_stride == 1 || columns == 1;
  if (usable_in_place<T>(matrix, rows, columns)) {
    const bool transposed = !(by_rows && (matrix.row_stride >= columns || rows == 1));
    // A stride along a dimension of size 1 says nothing; BLAS wants a plausible one.
    const int64_t leading =
        transposed ? std::max(matrix.column_stride, rows) : std::max(matrix.row_stride, columns);
    return {reinterpret_cast<const T*>(first), leading, transposed};
  }
  // Keep the order in memory: lines are read along the dimension with the smaller stride.
  const bool transposed = !by_rows && matrix.row_stride < matrix.column_stride;
  const int64_t lines = transposed ? columns : rows, length = transposed ? rows : columns;
  const int64_t line_stride = transposed ? matrix.column_stride : matrix.row_stride;
  const int64_t step = transposed ? matrix.row_stride : matrix.column_stride;
  if (step == 1 && line_stride == length) {  // no gaps: one long line
    load_row(first, matrix.dtype, 1, lines * length, buffer);
    return {buffer, length, transposed};
  }
  for (int64_t i = 0; i < lines; ++i)
    load_row(first + i * line_stride * size_of(matrix.dtype), matrix.dtype, step, length,
             buffer + i * length);
  return {buffer, length, transposed};
}

#define BINADE_BLOCK_OF(T)                                               \
  template bool usable_in_place<T>(const MatrixView&, int64_t, int64_t); \
  template Block<const T> block_of(const MatrixView&, int64_t, int64_t, int64_t, int64_t, T*);
BINADE_BLOCK_OF(float)
BINADE_BLOCK_OF(double)
BINADE_BLOCK_OF(Half)
BINADE_BLOCK_OF(BFloat16)
#undef BINADE_BLOCK_OF

}  // namespace binade::kernels::cpu
