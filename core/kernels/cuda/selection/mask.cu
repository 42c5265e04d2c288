// The positions of a mask's true elements, in order: counts of chunks, their running sum, then each
// chunk writes its positions behind those before it.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kEach = kMaskChunk / kBlock;  // neighbouring elements of a thread
static_assert(kMaskChunk % kBlock == 0);

__device__ __forceinline__ int count_own(const bool* mask, int64_t count, int64_t begin) {
  int found = 0;
  for (int i = 0; i < kEach; ++i) found += begin + i < count && mask[begin + i];
  return found;
}

__global__ void __launch_bounds__(kBlock)
    count_kernel(const bool* mask, int64_t count, int64_t* ends) {
  const int64_t begin = blockIdx.x * kMaskChunk + threadIdx.x * kEach;
  const int total = block_reduce<kBlock>(count_own(mask, count, begin), Sum(), 0);
  if (threadIdx.x == 0) ends[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kBlock)
    positions_kernel(const bool* mask, int64_t count, const int64_t* ends, int64_t* out) {
  __shared__ int counts[kBlock];
  const int64_t begin = blockIdx.x * kMaskChunk + threadIdx.x * kEach;
  counts[threadIdx.x] = count_own(mask, count, begin);
  __syncthreads();
  int64_t place = blockIdx.x == 0 ? 0 : ends[blockIdx.x - 1];
  for (int i = 0; i < static_cast<int>(threadIdx.x); ++i) place += counts[i];
  for (int i = 0; i < kEach; ++i)
    if (begin + i < count && mask[begin + i]) out[place++] = begin + i;
}

}  // namespace

void count_mask(const Array& mask, const Array& ends) {
  if (mask.numel() == 0) return;
  launch("count_mask", count_kernel, one_block_each(ends.numel()), kBlock, 0,
         device_data<const bool>(mask), mask.numel(), device_data<int64_t>(ends));
  cumsum(ends, 0, false, ends);
}

void mask_positions(const Array& mask, const Array& ends, const Array& out) {
  if (out.numel() == 0) return;
  launch("mask_positions", positions_kernel, one_block_each(ends.numel()), kBlock, 0,
         device_data<const bool>(mask), mask.numel(), device_data<const int64_t>(ends),
         device_data<int64_t>(out));
}

}  // namespace binade::kernels::cuda
