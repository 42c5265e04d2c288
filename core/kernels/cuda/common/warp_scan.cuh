// Running folds within a warp, of any type that shuffle.cuh takes.
#pragma once

#include <binade/core/kernels/cuda/common/shuffle.cuh>

namespace binade::kernels::cuda {

// join(…join(lane 0's, lane 1's)…, this lane's). All 32 lanes of the warp must take part.
template <class T, class Join>
__device__ __forceinline__ T warp_scan(T value, const Join& join) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T before = shuffle_up(value, distance);
    if (lane >= distance) value = join(before, value);
  }
  return value;
}
// join(this lane's, …join(lane 30's, lane 31's)…).
template <class T, class Join>
__device__ __forceinline__ T warp_scan_back(T value, const Join& join) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T behind = shuffle_down(value, distance);
    if (lane + distance < 32) value = join(value, behind);
  }
  return value;
}

}  // namespace binade::kernels::cuda
