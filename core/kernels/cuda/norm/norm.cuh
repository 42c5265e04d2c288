// What the forward and backward kernels of layer norm and RMS norm share.
#pragma once

#include <binade/core/kernels/norm.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

// A vector along the columns, of any floating dtype; null: not there.
struct NormColumns {
  const void* data;
  DType dtype;

  // Weights are short: a strided one is packed rather than read with a stride.
  static Array packed(const Array& columns) {
    return columns.defined() ? columns.contiguous() : columns;
  }
  static NormColumns of(const Array& packed) {
    return packed.defined() ? NormColumns{device_pointer(packed), packed.dtype()}
                            : NormColumns{nullptr, DType::f32};
  }
};

template <class T>
T* data_or_null(const Array& array) {
  return array.defined() ? device_data<T>(array) : nullptr;
}

inline int64_t row_stride(const Array& x) {
  return x.defined() ? x.stride(0) : 0;
}

inline bool has_aligned_rows(const Array& x) {
  return !x.defined() || rows_aligned(x.data(), x.stride(0), size_of(x.dtype()));
}

}  // namespace binade::kernels::cuda
