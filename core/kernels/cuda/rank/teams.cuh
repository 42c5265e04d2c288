// The teams of core/kernels/rank/list.h on a GPU: a warp, a block, and a cluster of blocks.
#pragma once

#include <cooperative_groups.h>

#include <binade/core/kernels/rank/list.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>

namespace binade::kernels::cuda {

// By falling score, then by index, as one number; NaN has its place. −0 is 0.
__device__ __forceinline__ uint64_t sort_key(float x, int index) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  const uint32_t falling = bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
  return uint64_t{falling} << 32 | static_cast<uint32_t>(index);
}

// The inclusive scan over a warp.
template <class T, class Op>
__device__ __forceinline__ T warp_scan(T value, Op op) {
  static_assert(sizeof(T) % 4 == 0);
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    unsigned words[sizeof(T) / 4];
    memcpy(words, &value, sizeof(T));
#pragma unroll
    for (unsigned& word : words) word = __shfl_up_sync(0xffffffffu, word, offset);
    T before;
    memcpy(&before, words, sizeof(T));
    if (lane >= offset) value = op(before, value);
  }
  return value;
}

// Lists of at most 32 documents. Each thread is a group of its own.
class WarpTeam {
 public:
  static constexpr bool kAlone = false;
  static constexpr int kMostDocuments = 32;
  __device__ static int lane() { return threadIdx.x % 32; }
  __device__ static int lanes() { return 32; }
  __device__ static int group() { return lane(); }
  __device__ static int groups() { return 32; }
  __device__ static int member() { return 0; }
  __device__ static int members() { return 1; }
  __device__ static void sync() { __syncwarp(); }
  template <class T, class Op>
  __device__ static T reduce(const T& value, Op op) {
    return warp_reduce(value, op);
  }
  template <class T, class Op>
  __device__ static T group_reduce(const T& value, Op) {
    return value;
  }
  template <class Get, class Put, class Op>
  __device__ static void scan(int n, const Get& get, const Put& put, Op op) {
    using T = decltype(get(0));
    T value{};
    if (lane() < n) value = get(lane());
    value = warp_scan(value, op);
    if (lane() < n) put(lane(), value);
    sync();
  }
  template <class Key>
  __device__ static void sort_descending(const rank::RankList<float>&, int n, const Key& key,
                                         int* order) {
    const uint64_t own = lane() < n ? sort_key(key(lane()), lane()) : 0;
    int place = 0;
    for (int j = 0; j < n; ++j) place += __shfl_sync(0xffffffffu, own, j) < own;
    if (lane() < n) order[place] = lane();
    sync();
  }
};

// What blocks share: sorting by a network whose comparisons all go one way, so that it takes any
// n. `sync` is called by all `lanes` threads.
template <class Sync>
__device__ __forceinline__ void sort_keys(uint64_t* keys, int n, int lane, int lanes,
                                          const Sync& sync) {
  const auto in_order = [&](int low, int high) {
    if (high >= n) return;
    const uint64_t a = keys[low], b = keys[high];
    if (a > b) {
      keys[low] = b;
      keys[high] = a;
    }
  };
  int pairs = 1;  // half of the next power of two
  while (2 * pairs < n) pairs *= 2;
  for (int half = 1; half <= pairs; half *= 2) {
    // Two sorted runs of `half` become a bitonic one by reading the second backwards.
    for (int t = lane; t < pairs; t += lanes) {
      const int start = t / half * 2 * half, place = t % half;
      in_order(start + place, start + 2 * half - 1 - place);
    }
    sync();
    for (int distance = half / 2; distance > 0; distance /= 2) {
      for (int t = lane; t < pairs; t += lanes) {
        const int low = t / distance * 2 * distance + t % distance;
        in_order(low, low + distance);
      }
      sync();
    }
  }
}

// A block. Groups are its warps.
template <int kThreads>
class BlockTeam {
 public:
  static constexpr int kWarps = kThreads / 32;
  static_assert((kWarps & (kWarps - 1)) == 0 && kWarps <= 32);
  static constexpr int kSharedKeys = 2048;
  static constexpr bool kAlone = false;

  __device__ static int lane() { return threadIdx.x; }
  __device__ static int lanes() { return kThreads; }
  __device__ static int group() { return threadIdx.x / 32; }
  __device__ static int groups() { return kWarps; }
  __device__ static int member() { return threadIdx.x % 32; }
  __device__ static int members() { return 32; }
  __device__ static void sync() { __syncthreads(); }
  template <class T, class Op>
  __device__ static T group_reduce(const T& value, Op op) {
    return warp_reduce(value, op);
  }
  template <class T, class Op>
  __device__ static T reduce(T value, Op op) {
    value = warp_reduce(value, op);
    value = warp_values<T>(value, member() == 0)[member() % kWarps];
#pragma unroll
    for (int mask = kWarps / 2; mask > 0; mask /= 2) value = op(value, shuffle_xor(value, mask));
    return value;
  }
  // The inclusive scan over the block's threads; `all`: of the whole block.
  template <class T, class Op>
  __device__ static T scan_threads(T value, Op op, T& all) {
    value = warp_scan(value, op);
    const T* totals = warp_values<T>(value, member() == 31);
    T before{};
    all = T{};
    for (int w = 0; w < kWarps; ++w) {
      if (w == group()) before = all;
      all = op(all, totals[w]);
    }
    return op(before, value);
  }
  template <class Get, class Put, class Op>
  __device__ static void scan(int n, const Get& get, const Put& put, Op op) {
    using T = decltype(get(0));
    T carry{};
    for (int start = 0; start < n; start += kThreads) {
      const int i = start + lane();
      T value{}, all;
      if (i < n) value = get(i);
      value = scan_threads(value, op, all);
      if (i < n) put(i, op(carry, value));
      carry = op(carry, all);
    }
    sync();
  }
  template <class Key>
  __device__ static void sort_descending(const rank::RankList<float>& list, int n, const Key& key,
                                         int* order) {
    uint64_t* keys = n <= kSharedKeys ? shared_keys() : list.keys;
    for (int i = lane(); i < n; i += kThreads) keys[i] = sort_key(key(i), i);
    sync();
    sort_keys(keys, n, lane(), kThreads, [] { sync(); });
    for (int r = lane(); r < n; r += kThreads) order[r] = static_cast<int>(keys[r] & 0xffffffffu);
    sync();
  }

 private:
  // One array, however many kinds of keys are sorted by.
  __device__ static uint64_t* shared_keys() {
    __shared__ uint64_t keys[kSharedKeys];
    return keys;
  }
  // The values of the threads that `write`, one a warp, by warp.
  template <class T>
  __device__ static const T* warp_values(const T& value, bool write) {
    __shared__ alignas(16) unsigned char memory[kWarps * sizeof(T)];
    T* values = reinterpret_cast<T*>(memory);
    __syncthreads();  // an earlier call's readers are done
    if (write) values[group()] = value;
    __syncthreads();
    return values;
  }
};

// The blocks of a cluster, for long lists; devices of compute capability 9.0 and newer.
template <int kThreads, int kBlocks>
class ClusterTeam {
 public:
  using Block = BlockTeam<kThreads>;
  static constexpr bool kAlone = false;
  __device__ static int rank() { return static_cast<int>(blockIdx.x % kBlocks); }
  __device__ static int lane() { return rank() * kThreads + static_cast<int>(threadIdx.x); }
  __device__ static int lanes() { return kThreads * kBlocks; }
  __device__ static int group() { return lane() / 32; }
  __device__ static int groups() { return kThreads * kBlocks / 32; }
  __device__ static int member() { return threadIdx.x % 32; }
  __device__ static int members() { return 32; }
  __device__ static void sync() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    cooperative_groups::this_cluster().sync();
#endif
  }
  template <class T, class Op>
  __device__ static T group_reduce(const T& value, Op op) {
    return warp_reduce(value, op);
  }
  template <class T, class Op>
  __device__ static T reduce(T value, Op op) {
    value = Block::reduce(value, op);
    T totals[kBlocks];
    exchange(value, totals);
    T all = totals[0];
#pragma unroll
    for (int b = 1; b < kBlocks; ++b) all = op(all, totals[b]);
    return all;
  }
  template <class Get, class Put, class Op>
  __device__ static void scan(int n, const Get& get, const Put& put, Op op) {
    using T = decltype(get(0));
    T carry{};
    for (int start = 0; start < n; start += lanes()) {
      const int i = start + lane();
      T value{}, all, totals[kBlocks];
      if (i < n) value = get(i);
      value = Block::scan_threads(value, op, all);
      exchange(all, totals);
      T before = carry;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        if (b == rank()) before = carry;
        carry = op(carry, totals[b]);
      }
      if (i < n) put(i, op(before, value));
    }
    sync();
  }
  template <class Key>
  __device__ static void sort_descending(const rank::RankList<float>& list, int n, const Key& key,
                                         int* order) {
    if (n <= Block::kSharedKeys) {  // one block's barriers cost less than the cluster's
      if (rank() == 0) Block::sort_descending(list, n, key, order);
      sync();
      return;
    }
    for (int i = lane(); i < n; i += lanes()) list.keys[i] = sort_key(key(i), i);
    sync();
    sort_keys(list.keys, n, lane(), lanes(), [] { sync(); });
    for (int r = lane(); r < n; r += lanes())
      order[r] = static_cast<int>(list.keys[r] & 0xffffffffu);
    sync();
  }

 private:
  // The values of all blocks, by block.
  template <class T>
  __device__ static void exchange(const T& value, T* totals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    __shared__ alignas(16) unsigned char memory[sizeof(T)];
    const auto cluster = cooperative_groups::this_cluster();
    if (threadIdx.x == 0) *reinterpret_cast<T*>(memory) = value;
    cluster.sync();
#pragma unroll
    for (int b = 0; b < kBlocks; ++b)
      totals[b] = *reinterpret_cast<const T*>(cluster.map_shared_rank(memory, b));
    cluster.sync();  // until nobody reads this block's memory
#endif
  }
};

}  // namespace binade::kernels::cuda
