// One share of the keys for a handful of queries (private to this folder): groups of lanes take
// keys in turn, each with a running softmax of its own (Milakov & Gimelshein 2018).
#pragma once

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/exponential.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

inline constexpr int kAttendThreads = 256;
inline constexpr int kAttendWarps = kAttendThreads / kWarp;
inline constexpr int kKeyElements = 8;  // of a key, a lane
inline constexpr int kKeysAtOnce = 2;   // keys that a group of lanes reads at a time
inline constexpr int kLeastShare = 32;  // keys that are worth a block
inline constexpr int kMostShares = 8;   // blocks of a portable cluster

template <class T>
__device__ __forceinline__ void load_elements(const T* row, int from, int dim, bool whole,
                                              float (&values)[kKeyElements]) {
  if (whole) {
    if (from < dim) {
      detail::load_run<kKeyElements>(row + from, values);
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < kKeyElements; ++e) values[e] = from + e < dim ? widen(row[from + e]) : 0.0f;
}

// One query's running softmax over the keys that a group of lanes has seen; a lane has kKeyElements
// of the sum of values.
struct Running {
  float largest, total, sums[kKeyElements];

  __device__ __forceinline__ void clear() {
    largest = -INFINITY;
    total = 0;
#pragma unroll
    for (float& s : sums) s = 0;
  }
  __device__ __forceinline__ void add(float score, const float (&value)[kKeyElements]) {
    if (score > largest) {
      const float factor = power_of_two(largest - score);  // 0 for the first
      total *= factor;
#pragma unroll
      for (float& s : sums) s *= factor;
      largest = score;
    }
    const float p = power_of_two(score - largest);
    total += p;
#pragma unroll
    for (int e = 0; e < kKeyElements; ++e) sums[e] += p * value[e];
  }
  // With that of the lane whose number differs in the bits of `mask`; both get the same.
  __device__ __forceinline__ void merge_across(int mask) {
    const float other = __shfl_xor_sync(0xffffffffu, largest, mask);
    const float most = fmaxf(largest, other);
    const float factor = total == 0 ? 0 : power_of_two(largest - most);
    total *= factor;
    total += __shfl_xor_sync(0xffffffffu, total, mask);
#pragma unroll
    for (float& s : sums) {
      s *= factor;
      s += __shfl_xor_sync(0xffffffffu, s, mask);
    }
    largest = most;
  }
};

// What a lane knows of the queries that its block answers.
template <int kQueries>
struct Queries {
  float elements[kQueries][kKeyElements];  // with the scale
  uint64_t sees[kQueries];                 // pending tokens
  int first[kQueries];                     // token of the prefix that is seen, where it counts

  __device__ __forceinline__ bool see(int i, int key, int length) const {
    return key < length ? key >= first[i] : (sees[i] >> (key - length) & 1) != 0;
  }
};
// What a window leaves of the tokens that a query sees: the first of the prefix, and in `sees` the
// last pending ones. Without a window: 0.
__device__ __forceinline__ int narrow_to_window(int window, int length, uint64_t& sees) {
  if (window == 0) return 0;
  const int pending = __popcll(sees);
  for (int drop = pending - window; drop > 0; --drop) sees &= sees - 1;  // the lowest bit
  return max(0, length + pending - window);
}
// What query token t of row b sees of the pending tokens; visible: null for causal.
__device__ __forceinline__ uint64_t pending_seen(const PassView& pass, const int64_t* visible,
                                                 int visible_row, int b, int t) {
  // Bits 0 to first + t: 64 − (first + t + 1) are shifted out.
  return visible ? static_cast<uint64_t>(visible[b * visible_row + t])
                 : ~uint64_t{0} >> (63 - pass.first - t);
}

// Rows of a head's keys or values.
template <class T>
struct HeadCache {
  const T* rows;
  int64_t stride;  // in elements
};

// Keys [begin, stop) of a slot that holds `length` tokens, pending ones behind it. All threads of
// a block of kAttendThreads.
template <int kLanes, int kQueries, class T>
__device__ __forceinline__ void attend_keys(const Queries<kQueries>& queries,
                                            const HeadCache<T>& keys, const HeadCache<T>& values,
                                            int dim, bool whole, int begin, int stop, int length,
                                            Running (&running)[kQueries]) {
  constexpr int kGroups = kAttendThreads / kLanes;
  const int from = threadIdx.x % kLanes * kKeyElements, my_group = threadIdx.x / kLanes;
  // All lanes of a warp go round equally often, as they shuffle.
  for (int start = begin; start < stop; start += kGroups * kKeysAtOnce) {
    float key[kKeysAtOnce][kKeyElements] = {}, value[kKeysAtOnce][kKeyElements] = {};
#pragma unroll
    for (int k = 0; k < kKeysAtOnce; ++k) {
      const int j = start + k * kGroups + my_group;
      if (j >= stop) continue;
      load_elements(keys.rows + int64_t{j} * keys.stride, from, dim, whole, key[k]);
      load_elements(values.rows + int64_t{j} * values.stride, from, dim, whole, value[k]);
    }
#pragma unroll
    for (int k = 0; k < kKeysAtOnce; ++k) {
      const int j = start + k * kGroups + my_group;
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        float score = 0;
#pragma unroll
        for (int e = 0; e < kKeyElements; ++e) score += queries.elements[i][e] * key[k][e];
#pragma unroll
        for (int mask = kLanes / 2; mask > 0; mask /= 2)
          score += __shfl_xor_sync(0xffffffffu, score, mask);
        if (j < stop && queries.see(i, j, length)) running[i].add(score, value[k]);
      }
    }
  }
}

// The largest score, the sum of exponentials and of values that they weigh, a query each.
template <int kQueries, int kWidth>
struct Sums {
  float largest[kQueries], total[kQueries], sums[kQueries][kWidth];
};

// Merges the groups of a warp, and writes them for the block.
template <int kLanes, int kQueries>
__device__ __forceinline__ void merge_warp(Running (&running)[kQueries],
                                           Sums<kQueries, kLanes * kKeyElements>& of_warp) {
  const int from = threadIdx.x % kLanes * kKeyElements;
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
#pragma unroll
    for (int mask = kLanes; mask < kWarp; mask *= 2) running[i].merge_across(mask);
    if (threadIdx.x % kWarp < kLanes) {
      of_warp.largest[i] = running[i].largest;
      of_warp.total[i] = running[i].total;
#pragma unroll
      for (int e = 0; e < kKeyElements; ++e) of_warp.sums[i][from + e] = running[i].sums[e];
    }
  }
}

struct Merged {
  float largest, total, sum;
};
// Of up to eight places in their order, each of which part_of(n) gives.
template <class PartOf>
__device__ __forceinline__ Merged merge_parts(int parts, const PartOf& part_of) {
  constexpr int kMost = 8;
  static_assert(kAttendWarps <= kMost && kMostShares <= kMost);
  Merged part[kMost], all{-INFINITY, 0, 0};
#pragma unroll
  for (int n = 0; n < kMost; ++n) part[n] = n < parts ? part_of(n) : Merged{-INFINITY, 0, 0};
#pragma unroll
  for (int n = 0; n < kMost; ++n) all.largest = fmaxf(all.largest, part[n].largest);
#pragma unroll
  for (int n = 0; n < kMost; ++n) {
    const float factor = part[n].total == 0 ? 0 : power_of_two(part[n].largest - all.largest);
    all.sum += factor * part[n].sum;
    all.total += factor * part[n].total;
  }
  return all;
}

}  // namespace binade::kernels::cuda
