// Reductions within a warp and within a block, in an order that never changes. Every thread gets
// the result, the same bits in all of them, provided that op(a, b) and op(b, a) are.
#pragma once

#include <binade/core/kernels/cuda/common/shuffle.cuh>

namespace binade::kernels::cuda {

// All 32 lanes of the warp must take part.
template <class T, class Op>
__device__ __forceinline__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value = op(value, shuffle_xor(value, mask));
  return value;
}

// All threads of a one-dimensional block of kThreads must take part; may be called repeatedly.
// `identity` changes no value when combined.
template <int kThreads, class T, class Op>
__device__ __forceinline__ T block_reduce(T value, Op op, const T& identity) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  value = warp_reduce(value, op);
  if constexpr (kThreads > 32) {
    __shared__ alignas(16) unsigned char memory[kThreads / 32 * sizeof(T)];
    T* partial = reinterpret_cast<T*>(memory);
    __syncthreads();  // an earlier call's readers are done
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = threadIdx.x % 32 < kThreads / 32 ? partial[threadIdx.x % 32] : identity;
    value = warp_reduce(value, op);
  }
  return value;
}

}  // namespace binade::kernels::cuda
