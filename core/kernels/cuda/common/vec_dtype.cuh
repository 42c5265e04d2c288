// Short runs of elements whose dtype is known at run time: a branch that is the same for the whole
// grid, beside accesses of up to 16 bytes.
#pragma once

#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace detail {

template <class T, int kCount>
inline constexpr int kPiece = kCount < kVecWidth<T> ? kCount : kVecWidth<T>;

template <int kCount, class T, class C>
__device__ __forceinline__ void load_run(const T* data, C* values) {
#pragma unroll
  for (int start = 0; start < kCount; start += kPiece<T, kCount>) {
    const auto piece = load_vec<kPiece<T, kCount>>(data + start);
#pragma unroll
    for (int i = 0; i < kPiece<T, kCount>; ++i) values[start + i] = static_cast<C>(widen(piece[i]));
  }
}

template <int kCount, class T, class C>
__device__ __forceinline__ void store_run(T* data, const C* values) {
#pragma unroll
  for (int start = 0; start < kCount; start += kPiece<T, kCount>) {
    Vec<T, kPiece<T, kCount>> piece;
#pragma unroll
    for (int i = 0; i < kPiece<T, kCount>; ++i) piece[i] = narrow<T>(values[start + i]);
    store_vec(data + start, piece);
  }
}

}  // namespace detail

// values[0, kCount) = data[offset, offset + kCount) for a floating dtype. The address must be a
// multiple of 16 bytes, or of the whole run where that is shorter (is_run_aligned).
template <int kCount, class C>
__device__ __forceinline__ void load_run_as(const void* data, int64_t offset, DType dtype,
                                            C* values) {
  switch (dtype) {
    case DType::f64:
      return detail::load_run<kCount>(static_cast<const double*>(data) + offset, values);
    case DType::f16:
      return detail::load_run<kCount>(static_cast<const __half*>(data) + offset, values);
    case DType::bf16:
      return detail::load_run<kCount>(static_cast<const __nv_bfloat16*>(data) + offset, values);
    default:
      return detail::load_run<kCount>(static_cast<const float*>(data) + offset, values);
  }
}

template <int kCount, class C>
__device__ __forceinline__ void store_run_as(void* data, int64_t offset, DType dtype,
                                             const C* values) {
  switch (dtype) {
    case DType::f64:
      return detail::store_run<kCount>(static_cast<double*>(data) + offset, values);
    case DType::f16:
      return detail::store_run<kCount>(static_cast<__half*>(data) + offset, values);
    case DType::bf16:
      return detail::store_run<kCount>(static_cast<__nv_bfloat16*>(data) + offset, values);
    default:
      return detail::store_run<kCount>(static_cast<float*>(data) + offset, values);
  }
}

// Whether runs of `count` elements of `array`, from its first, may be loaded; true for no array.
inline bool is_run_aligned(const Array& array, int64_t count) {
  if (!array.defined()) return true;
  const int64_t bytes = count * size_of(array.dtype());
  return rows_aligned(array.data(), 0, 1, bytes < 16 ? bytes : 16);
}

}  // namespace binade::kernels::cuda
