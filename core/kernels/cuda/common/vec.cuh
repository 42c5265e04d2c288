// Short vectors of elements that move with one access of up to 16 bytes.
#pragma once

#include <cstdint>

namespace binade::kernels::cuda {

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vec {
  T value[kCount];
  __device__ __forceinline__ T& operator[](int i) { return value[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return value[i]; }
};

// Elements of a 16-byte access.
template <class T>
inline constexpr int kVecWidth = 16 / static_cast<int>(sizeof(T));

// The address must be a multiple of the vector's size.
template <int kCount, class T>
__device__ __forceinline__ Vec<T, kCount> load_vec(const T* data) {
  return *reinterpret_cast<const Vec<T, kCount>*>(data);
}
template <int kCount, class T>
__device__ __forceinline__ void store_vec(T* data, const Vec<T, kCount>& values) {
  if constexpr (sizeof(values) == 16) {
    // Spelled out: the compiler splits the store of a struct into its elements, and does not always
    // join them again (a loss kernel that wrote halves one by one ran at a third of its speed).
    const uint4 words = *reinterpret_cast<const uint4*>(&values);
    asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(data), "r"(words.x), "r"(words.y),
                 "r"(words.z), "r"(words.w)
                 : "memory");
  } else {
    *reinterpret_cast<Vec<T, kCount>*>(data) = values;
  }
}

// Whether rows of `row_stride` elements of `element_bytes` that start at `data` all begin at a
// multiple of `alignment` bytes.
inline bool rows_aligned(const void* data, int64_t row_stride, int64_t element_bytes,
                         int64_t alignment = 16) {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(alignment) == 0 &&
         row_stride * element_bytes % alignment == 0;
}

}  // namespace binade::kernels::cuda
