// Searching a row of logits for tokens by their order, which a block of kThreads does without
// sorting them: a histogram over the range of logits, then over the digits of the keys that are
// left (private to this folder). Sums are of integers, so atomics leave no trace of their order.
#pragma once

#include <binade/core/kernels/sample_rules.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

constexpr int kThreads = 1024;
constexpr int kBins = 256;

// Ascending like the logits, equal for both zeros; NaN above everything.
__device__ __forceinline__ uint32_t key_of(float x) {
  constexpr uint32_t kSign = 0x80000000u;
  if (x != x) return ~0u;
  if (x == 0) return kSign;
  const uint32_t bits = __float_as_uint(x);
  return bits & kSign ? ~bits : bits | kSign;
}

// The way back.
__device__ __forceinline__ float logit_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

template <class T>
struct Row {
  const T* data;
  int vocabulary;
  const int32_t* forbidden;
  int forbidden_count;  // 0 once they are allowed

  __device__ __forceinline__ float at(int i) const { return allowed(i, data[i]); }
  __device__ __forceinline__ float allowed(int i, T logit) const {
    for (int f = 0; f < forbidden_count; ++f)
      if (forbidden[f] == i) return -INFINITY;
    return widen(logit);
  }
};

// The largest logit and the first token that has it; the smallest one that is not −∞.
struct Range {
  uint64_t largest;  // key, then the complement of the token
  uint32_t smallest, unused;

  __device__ __forceinline__ uint32_t key() const { return static_cast<uint32_t>(largest >> 32); }
  __device__ __forceinline__ int token() const {
    return static_cast<int>(~0u - static_cast<uint32_t>(largest));
  }
  // Whether a token can be chosen: no NaN, and not only −∞.
  __device__ __forceinline__ bool valid() const {
    return key() != ~0u && key() > key_of(-INFINITY);
  }
};
struct RangeFold {
  __device__ Range operator()(const Range& a, const Range& b) const {
    return {max(a.largest, b.largest), min(a.smallest, b.smallest), 0};
  }
};

// NaN if either is.
__device__ __forceinline__ float larger_or_nan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}

// Its largest logit with the first token that has it, and on request its smallest. One block reads
// a whole row: several vectors of logits are under way at a time, and of each thread's best one
// only the vector is noted at first.
template <class T>
__device__ Range range_of(const Row<T>& row, bool with_smallest = true) {
  constexpr int kWidth = kVecWidth<T>, kAtOnce = 4;
  const bool aligned = reinterpret_cast<uintptr_t>(row.data) % 16 == 0;
  const int vectors = aligned ? row.vocabulary / kWidth : 0;
  float best = -INFINITY, smallest = INFINITY;
  int best_vector = -1;
  for (int first = threadIdx.x; first < vectors; first += kAtOnce * kThreads) {
    Vec<T, kWidth> values[kAtOnce];
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v)
      if (first + v * kThreads < vectors)
        values[v] = load_vec<kWidth>(row.data + (first + v * kThreads) * kWidth);
#pragma unroll
    for (int v = 0; v < kAtOnce; ++v) {
      const int vector = first + v * kThreads;
      if (vector >= vectors) break;
      float most = -INFINITY;
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        const float x = row.allowed(vector * kWidth + e, values[v][e]);
        most = larger_or_nan(most, x);
        if (with_smallest && x > -INFINITY) smallest = fminf(smallest, x);
      }
      if (best == best && !(most <= best)) {  // the first of equals, and of NaNs
        best = most;
        best_vector = vector;
      }
    }
  }
  Range range{0, ~0u, 0};
  const auto see = [&](int i, float x) {
    range.largest =
        max(range.largest, uint64_t{key_of(x)} << 32 | (~0u - static_cast<uint32_t>(i)));
  };
  for (int e = 0; best_vector >= 0 && e < kWidth; ++e)
    see(best_vector * kWidth + e, row.at(best_vector * kWidth + e));
  for (int i = vectors * kWidth + threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float x = row.at(i);
    see(i, x);
    if (x > -INFINITY) smallest = fminf(smallest, x);
  }
  if (smallest < INFINITY) range.smallest = key_of(smallest);
  return block_reduce<kThreads>(range, RangeFold(), Range{0, ~0u, 0});
}

// Tokens down to a last one, in their order.
struct Kept {
  uint32_t key = 0;
  int token = INT32_MAX;
  __device__ __forceinline__ bool has(uint32_t other, int other_token) const {
    return other > key || (other == key && other_token <= token);
  }
};

// What the search measures.
struct ByCount {
  __device__ __forceinline__ uint64_t operator()(float) const { return 1; }
};
struct ByWeight {
  float largest;
  double temperature;
  __device__ __forceinline__ uint64_t operator()(float logit) const {
    return sample_weight(logit, largest, temperature);
  }
};

struct Shared {
  unsigned long long bins[kBins];
  unsigned long long total, before;
  int bin, warps[kThreads / kWarp];
  int token;
};

// The first bin from the top whose running sum, which starts with `before`, exceeds the target
// (or the last one). All threads get the sum before it.
template <class TargetOf>
__device__ int find_bin(Shared& shared, uint64_t before, const TargetOf& target_of,
                        uint64_t& target, uint64_t& before_bin) {
  __syncthreads();
  constexpr int kPerLane = kBins / kWarp;
  if (threadIdx.x < kWarp) {
    const int lane = threadIdx.x;
    uint64_t mine = 0;
    for (int i = 0; i < kPerLane; ++i) mine += shared.bins[kBins - 1 - (lane * kPerLane + i)];
    uint64_t running = mine;
    for (int step = 1; step < kWarp; step *= 2) {
      const uint64_t other = __shfl_up_sync(0xffffffffu, running, step);
      if (lane >= step) running += other;
    }
    const uint64_t total = __shfl_sync(0xffffffffu, running, kWarp - 1);
    const uint64_t wanted = target_of(total);
    uint64_t sum = before + running - mine;
    const bool here = sum <= wanted && wanted < before + running;
    const unsigned any = __ballot_sync(0xffffffffu, here);
    if (here) {
      int i = 0;
      for (; i + 1 < kPerLane; ++i) {
        const uint64_t next = sum + shared.bins[kBins - 1 - (lane * kPerLane + i)];
        if (next > wanted) break;
        sum = next;
      }
      shared.bin = kBins - 1 - (lane * kPerLane + i);
      shared.before = sum;
    }
    if (lane == 0) {
      shared.total = wanted;
      if (any == 0) {  // a target beyond all sums: cannot be
        shared.bin = 0;
        shared.before = before;
      }
    }
  }
  __syncthreads();
  target = shared.total;
  before_bin = shared.before;
  return shared.bin;
}

// The first kept token, most probable first, at which the running sum of `measure` exceeds
// target_of(sum over all kept tokens).
template <class T, class Measure, class TargetOf>
__device__ Kept find(const Row<T>& row, const Kept& kept, float largest, float smallest,
                     const Measure& measure, const TargetOf& target_of, Shared& shared) {
  // Which of the range's bins a logit lies in: one that does not fall as the logit grows.
  const float scale = largest > smallest ? (kBins - 1) / (largest - smallest) : 0.0f;
  const auto coarse = [&](float x) {
    const float place = (largest - x) * scale;  // NaN for an infinite largest one
    if (place >= kBins - 1) return 0;
    return kBins - 1 - (place > 0 ? static_cast<int>(place) : 0);
  };
  const auto clear = [&] {
    __syncthreads();
    if (threadIdx.x < kBins) shared.bins[threadIdx.x] = 0;
    __syncthreads();
  };
  const auto add = [&](int bin, uint64_t amount) {
    if (amount) atomicAdd(&shared.bins[bin], static_cast<unsigned long long>(amount));
  };

  clear();
  for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
    const float x = row.at(i);
    if (kept.has(key_of(x), i)) add(coarse(x), measure(x));
  }
  uint64_t target = 0, before = 0;
  const int bin = find_bin(shared, 0, target_of, target, before);

  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    clear();
    for (int i = threadIdx.x; i < row.vocabulary; i += kThreads) {
      const float x = row.at(i);
      const uint32_t key = key_of(x);
      const bool same = shift == 24 || key >> (shift + 8) == prefix >> (shift + 8);
      if (same && kept.has(key, i) && coarse(x) == bin)
        add(static_cast<int>(key >> shift & 0xff), measure(x));
    }
    const auto same_target = [&](uint64_t) { return target; };
    uint64_t again = 0;
    prefix |= static_cast<uint32_t>(find_bin(shared, before, same_target, again, before)) << shift;
  }

  // Of equal logits, which all weigh the same: the one whose share the target falls into.
  const uint64_t weight = measure(logit_of(prefix));
  const auto rank = static_cast<int64_t>(weight ? (target - before) / weight : 0);
  int64_t seen = 0;
  if (threadIdx.x == 0) shared.token = -1;
  for (int start = 0; start < row.vocabulary; start += kThreads) {
    const int i = start + threadIdx.x;
    bool equal = false;
    if (i < row.vocabulary) {
      const uint32_t key = key_of(row.at(i));
      equal = key == prefix && kept.has(key, i);
    }
    const int count = __syncthreads_count(equal);
    if (seen + count > rank) {  // the same for all threads
      const unsigned votes = __ballot_sync(0xffffffffu, equal);
      const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
      if (lane == 0) shared.warps[warp] = __popc(votes);
      __syncthreads();
      int64_t mine = seen + __popc(votes & ((1u << lane) - 1));
      for (int w = 0; w < warp; ++w) mine += shared.warps[w];
      if (equal && mine == rank) shared.token = i;
      break;
    }
    seen += count;
  }
  __syncthreads();
  return {prefix, shared.token};
}

// The tokens that top-k and then top-p leave of a row.
template <class T>
__device__ Kept kept_tokens(const Row<T>& row, const Range& range, double temperature,
                            int64_t top_k, double top_p, Shared& shared) {
  const float largest = logit_of(range.key()), smallest = logit_of(range.smallest);
  Kept kept;
  if (top_k > 0 && top_k < row.vocabulary)
    kept = find(
        row, kept, largest, smallest, ByCount(),
        [&](uint64_t) { return static_cast<uint64_t>(top_k - 1); }, shared);
  if (top_p < 1)
    kept = find(
        row, kept, largest, smallest, ByWeight{largest, temperature},
        [&](uint64_t total) { return top_p_target(top_p, total) - 1; }, shared);
  return kept;
}

}  // namespace binade::kernels::cuda
