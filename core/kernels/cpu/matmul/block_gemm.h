// Building blocks of the CPU's matmuls (private to this folder): one single-threaded
// matmul of blocks in memory, and rows of any floating dtype read into and written from the
// compute type (float for f16, bf16 and f32; double for f64).
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include <binade/core/dtype.h>
#include <binade/core/half.h>

namespace binade::kernels::cpu {

// A block of numbers as BLAS describes it: stored by rows `leading` elements apart, or,
// when `transposed`, by columns.
template <class T>
struct Block {
  T* data = nullptr;
  int64_t leading = 0;
  bool transposed = false;

  Block from(int64_t row, int64_t column) const {
    const int64_t offset = transposed ? column * leading + row : row * leading + column;
    return {data + offset, leading, transposed};
  }
  Block flipped() const { return {data, leading, !transposed}; }  // the transpose, in place
};

// c (m, n, by rows) = a (m, k) · b (k, n), or c += a · b when `accumulate`. Runs on the calling
// thread inside an OpenMP region; outside of one it may use all threads.
void gemm(int64_t m, int64_t n, int64_t k, Block<const float> a, Block<const float> b,
          bool accumulate, float* c, int64_t leading_c);
void gemm(int64_t m, int64_t n, int64_t k, Block<const double> a, Block<const double> b,
          bool accumulate, double* c, int64_t leading_c);

// n elements of `dtype` at `source`, `stride` elements apart, converted into `row`.
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, float* row);
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, double* row);
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, Half* row);
void load_row(const void* source, DType dtype, int64_t stride, int64_t n, BFloat16* row);
// The way back, rounded once.
void store_row(const float* row, int64_t n, void* target, DType dtype, int64_t stride);
void store_row(const double* row, int64_t n, void* target, DType dtype, int64_t stride);

// A view of a matrix of any floating dtype and strides.
struct MatrixView {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  int64_t row_stride = 0, column_stride = 0;

  std::byte* at(int64_t row, int64_t column) const {
    return data + (row * row_stride + column * column_stride) * size_of(dtype);
  }
};

// Memory that a thread keeps from call to call, so that tiles cost no allocation. Aligned, so that
// the order of a vectorised sum over it does not depend on where it lies. Contents are lost when it
// grows.
template <class T>
class Workspace {
 public:
  T* reserve(int64_t count) {
    if (count > capacity_) {
      data_.reset(new (std::align_val_t(kAlignment)) T[static_cast<size_t>(count)]);
      capacity_ = count;
    }
    return data_.get();
  }
  const T* data() const { return data_.get(); }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(T* data) const { ::operator delete[](data, std::align_val_t(kAlignment)); }
  };
  std::unique_ptr<T[], Free> data_;
  int64_t capacity_ = 0;
};

// A (rows, columns) part of `matrix` from (row, column) as a block of T (any floating dtype): in
// place where dtype and strides allow, otherwise converted into `buffer` (room for rows · columns
// elements).
template <class T>
Block<const T> block_of(const MatrixView& matrix, int64_t row, int64_t column, int64_t rows,
                        int64_t columns, T* buffer);
// Whether block_of needs no buffer for a (rows, columns) matrix.
template <class T>
bool usable_in_place(const MatrixView& matrix, int64_t rows, int64_t columns);

}  // namespace binade::kernels::cpu
