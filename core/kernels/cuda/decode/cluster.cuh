// Blocks of a cluster that write into each other's shared memory (private to this folder; devices
// of compute capability 9.0 and newer).
#pragma once

#include <cstdint>

#include <binade/core/kernels/cuda/common/async_copy.cuh>

namespace binade::kernels::cuda {

inline constexpr int kCluster = 8;  // blocks; the most that is portable

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// Where a block of the cluster has what lies at the same place in this one's memory.
__device__ __forceinline__ uint32_t address_in_block(uint32_t address, int rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
__device__ __forceinline__ void put_word(uint32_t address, uint32_t word) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}
__device__ __forceinline__ void put_words(uint32_t address, uint2 words) {
  asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(words.x),
               "r"(words.y)
               : "memory");
}
__device__ __forceinline__ void put_vector(uint32_t address, uint4 words) {
  asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(words.x),
               "r"(words.y), "r"(words.z), "r"(words.w)
               : "memory");
}
// Calls put(address) with where each block of the cluster has `shared`.
template <class Put>
__device__ __forceinline__ void for_each_block(const void* shared, const Put& put) {
  const uint32_t own = shared_address(shared);
#pragma unroll
  for (int rank = 0; rank < kCluster; ++rank) put(address_in_block(own, rank));
}

// All threads of all blocks of the cluster arrive and wait; behind it they see what each other
// wrote before, in shared and in global memory.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
// Says no more than that this block has begun, so that its memory may be written: for
// cluster_wait().
__device__ __forceinline__ void cluster_begin() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

__device__ __forceinline__ void fetch_to_l2(const void* data) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(data));
}

#endif

}  // namespace binade::kernels::cuda
