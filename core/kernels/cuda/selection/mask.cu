// What a mask selects, in order: counts of chunks, their running sum, then each chunk moves its
// elements behind those before it, or back. A thread has a run of neighbours.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/selection.h>
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/warp_scan.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kEach = kMaskChunk / kBlock;  // neighbouring elements of a thread
static_assert(kMaskChunk % kBlock == 0 && kEach <= 16);

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

__device__ __forceinline__ int64_t own_begin() {
  return blockIdx.x * kMaskChunk + threadIdx.x * kEach;
}

__global__ void __launch_bounds__(kBlock)
    count_kernel(const bool* mask, int64_t count, int64_t* ends) {
  const int total = block_reduce<kBlock>(__popc(own_bits(mask, count, own_begin())), Sum(), 0);
  if (threadIdx.x == 0) ends[blockIdx.x] = total;
}

// How many elements of the block are true before the thread's own; `total`: in all of it.
__device__ __forceinline__ int block_place(int own, int& total) {
  constexpr int kWarps = kBlock / kWarp;
  __shared__ int totals[kWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int through = warp_scan(own, Sum());
  if (lane == kWarp - 1) totals[warp] = through;
  __syncthreads();
  int place = through - own;
  total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) place += totals[w];
    total += totals[w];
  }
  return place;
}

// Through shared memory, so that neighbouring threads write, or read, neighbours of what is
// compact.
template <bool kExpands, class T>
__global__ void __launch_bounds__(kBlock)
    move_masked_kernel(const T* x, const bool* mask, int64_t count, const int64_t* ends, T* out) {
  __shared__ T compact[kMaskChunk];
  const int64_t begin = own_begin();
  const unsigned bits = own_bits(mask, count, begin);
  int total;
  int place = block_place(__popc(bits), total);
  const int64_t start = blockIdx.x == 0 ? 0 : ends[blockIdx.x - 1];
  if constexpr (kExpands) {
    for (int i = threadIdx.x; i < total; i += kBlock) compact[i] = x[start + i];
    __syncthreads();
  }
  const T* const from = x + begin;
  T* const to = out + begin;
  const bool vectors = begin + kEach <= count &&
                       reinterpret_cast<uintptr_t>(kExpands ? to : const_cast<T*>(from)) % 16 == 0;
  constexpr int kVec = kVecWidth<T> < kEach ? kVecWidth<T> : kEach;
#pragma unroll
  for (int first = 0; first < kEach; first += kVec) {
    Vec<T, kVec> values;
    if constexpr (!kExpands) {
      if (vectors) {
        values = load_vec<kVec>(from + first);
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i)
          if (bits >> (first + i) & 1u) values[i] = from[first + i];
      }
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      const bool chosen = (bits >> (first + i) & 1u) != 0;
      if constexpr (kExpands) {
        values[i] = chosen ? compact[place] : T();
      } else {
        if (chosen) compact[place] = values[i];
      }
      place += chosen ? 1 : 0;
    }
    if constexpr (kExpands) {
      if (vectors) {
        store_vec(to + first, values);
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i)
          if (begin + first + i < count) to[first + i] = values[i];
      }
    }
  }
  if constexpr (!kExpands) {
    __syncthreads();
    for (int i = threadIdx.x; i < total; i += kBlock) out[start + i] = compact[i];
  }
}

template <bool kExpands>
void move_masked(const char* name, const Array& x, const Array& mask, const Array& ends,
                 const Array& out) {
  visit_bits(x.dtype(), [&]<class T>(T) {
    launch(name, move_masked_kernel<kExpands, T>, one_block_each(ends.numel()), kBlock, 0,
           device_data<const T>(x), device_data<const bool>(mask), mask.numel(),
           device_data<const int64_t>(ends), device_data<T>(out));
  });
}

}  // namespace

void count_mask(const Array& mask, const Array& ends) {
  if (mask.numel() == 0) return;
  launch("count_mask", count_kernel, one_block_each(ends.numel()), kBlock, 0,
         device_data<const bool>(mask), mask.numel(), device_data<int64_t>(ends));
  cumsum(ends, 0, false, ends);
}

void mask_compact(const Array& x, const Array& mask, const Array& ends, const Array& out) {
  if (out.numel() > 0) move_masked<false>("mask_compact", x, mask, ends, out);
}

void mask_expand(const Array& x, const Array& mask, const Array& ends, const Array& out) {
  if (out.numel() > 0) move_masked<true>("mask_expand", x, mask, ends, out);
}

}  // namespace binade::kernels::cuda
