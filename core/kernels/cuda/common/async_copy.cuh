// Copies from global into shared memory that run beside the threads (devices of compute capability
// 8.0 and newer).
#pragma once

#include <cstdint>

namespace binade::kernels::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

// Copies 16 bytes, or zeros; they are there once copies_done() was called and a barrier passed.
__device__ __forceinline__ void copy_beside(uint32_t to, const void* from, bool zeros) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(zeros ? 0 : 16)
               : "memory");
}
// Likewise 4 bytes.
__device__ __forceinline__ void copy_word_beside(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void close_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// All groups that this thread closed but the last `kLeft` are done.
template <int kLeft>
__device__ __forceinline__ void copies_done() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

#endif

}  // namespace binade::kernels::cuda
