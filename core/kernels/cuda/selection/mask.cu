// The positions of a mask's true elements, in order: counts of chunks, their running sum, then each
// chunk writes its positions behind those before it.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kEach = kMaskChunk / kBlock;  // neighbouring elements of a thread
static_assert(kMaskChunk % kBlock == 0);

// A bit for each of the thread's elements that is true. Whole threads' worth is one access where
// the mask begins at a multiple of it.
__device__ __forceinline__ unsigned own_bits(const bool* mask, int64_t count, int64_t begin) {
  unsigned bits = 0;
  const bool whole = begin + kEach <= count && reinterpret_cast<uintptr_t>(mask) % kEach == 0;
  if (whole) {
    const auto values = load_vec<kEach>(mask + begin);
#pragma unroll
    for (int i = 0; i < kEach; ++i) bits |= static_cast<unsigned>(values[i]) << i;
  } else {
    for (int i = 0; i < kEach; ++i)
      if (begin + i < count && mask[begin + i]) bits |= 1u << i;
  }
  return bits;
}

__global__ void __launch_bounds__(kBlock)
    count_kernel(const bool* mask, int64_t count, int64_t* ends) {
  const int64_t begin = blockIdx.x * kMaskChunk + threadIdx.x * kEach;
  const int total = block_reduce<kBlock>(__popc(own_bits(mask, count, begin)), Sum(), 0);
  if (threadIdx.x == 0) ends[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kBlock)
    positions_kernel(const bool* mask, int64_t count, const int64_t* ends, int64_t* out) {
  constexpr int kWarps = kBlock / kWarp;
  __shared__ int totals[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t begin = blockIdx.x * kMaskChunk + threadIdx.x * kEach;
  const unsigned bits = own_bits(mask, count, begin);
  int through = __popc(bits);  // of this lane and those before it
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, through, distance);
    if (lane >= distance) through += before;
  }
  if (lane == kWarp - 1) totals[warp] = through;
  __syncthreads();
  int64_t place = (blockIdx.x == 0 ? 0 : ends[blockIdx.x - 1]) + through - __popc(bits);
  for (int w = 0; w < warp; ++w) place += totals[w];
#pragma unroll
  for (int i = 0; i < kEach; ++i)
    if (bits >> i & 1u) out[place++] = begin + i;
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
