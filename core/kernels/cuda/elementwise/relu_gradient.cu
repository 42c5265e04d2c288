// ReLU's gradient from its output, and the column sums of it, in one pass.
#include <binade/core/kernels/relu_gradient.h>

#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/column_fold.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct Masked {
  __device__ __forceinline__ T operator()(T y, T dy) const {
    return widen(y) <= ComputeOf<T>(0) ? narrow<T>(ComputeOf<T>(0)) : dy;
  }
};

// Stores the rows of dx as they are folded.
template <int kVec, class T>
struct MaskedSource {
  using Element = T;
  struct Read {
    Vec<T, kVec> y, dy;
  };
  static constexpr int kWidth = kVec;
  static constexpr int kInFlight = 4;
  const T* y;
  const T* dy;
  T* dx;
  int64_t y_stride, dy_stride, dx_stride;

  __device__ __forceinline__ Read read(int64_t row, int64_t col) const {
    return {load_vec<kVec>(y + row * y_stride + col), load_vec<kVec>(dy + row * dy_stride + col)};
  }
  __device__ __forceinline__ Vec<T, kVec> values(const Read& read, int64_t row, int64_t col) const {
    Vec<T, kVec> masked;
#pragma unroll
    for (int i = 0; i < kVec; ++i) masked[i] = Masked<T>()(read.y[i], read.dy[i]);
    store_vec(dx + row * dx_stride + col, masked);
    return masked;
  }
};

// Whether rows can be read and written as vectors of 16 bytes.
template <class T>
bool is_vectorised(const Array& x) {
  return x.size(1) % kVecWidth<T> == 0 && x.stride(1) == 1 && x.stride(0) >= x.size(1) &&
         rows_aligned(x.data(), x.stride(0), size_of(x.dtype()));
}

}  // namespace

void relu_gradient(const Array& y, const Array& dy, const Array& dx, const Array& column_sums) {
  visit_floating(dx.dtype(), "relu_gradient", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    constexpr int kVec = kVecWidth<T>;
    const bool fits =
        dx.numel() > 0 && is_vectorised<T>(y) && is_vectorised<T>(dy) && is_vectorised<T>(dx);
    if (column_sums.defined() && fits) {
      const MaskedSource<kVec, T> rows{device_data<T>(y), device_data<T>(dy), device_data<T>(dx),
                                       y.stride(0),       dy.stride(0),       dx.stride(0)};
      const Target<ComputeOf<T>> sums{device_data<ComputeOf<T>>(column_sums), column_sums.dtype()};
      fold_columns("relu_gradient", rows, dx.size(0), dx.size(1), column_sums.stride(0),
                   SumFold<ComputeOf<T>>(), sums);
      return;
    }
    elementwise("relu_gradient", Operands<T, T, T>(), Masked<T>(), Masked<T>(), dx, y, dy);
    if (column_sums.defined()) reduce(ReduceOp::sum, dx, column_sums.unsqueeze(0), 0);
  });
}

}  // namespace binade::kernels::cuda
