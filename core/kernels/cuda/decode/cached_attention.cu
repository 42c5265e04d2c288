// Attention of few queries against a long cache. A block takes a share of the keys of one key head,
// for a handful of its queries; groups of lanes take keys in turn, each with a running softmax of
// its own (Milakov & Gimelshein 2018). The blocks that share a query are a cluster, and read each
// other's sums to merge them (after Dao et al. 2023, "Flash-Decoding", where a second kernel does
// that). Devices without clusters have one share. The number of shares follows from the capacity
// and the batch, never from the lengths, which only the device knows.
#include <cooperative_groups.h>

#include <algorithm>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kElements = 8;     // of a key, a lane
constexpr int kKeys = 2;         // keys that a group of lanes reads at a time
constexpr int kLeastShare = 32;  // keys that are worth a block
constexpr int kMostShares = 8;   // blocks of a portable cluster

struct Strides {
  int64_t batch, head, row;
};

struct Problem {
  PassView pass;
  int heads, key_heads, dim, capacity;
  Strides q, cache_k, cache_v, out;
  const int64_t* visible;  // null: causal
  int visible_row;         // words of a row: 0 or T
  float scale;             // with log2(e)
  int shares;
  bool whole;  // rows may be read and written in vectors
};

template <class T>
__device__ __forceinline__ void load_elements(const T* row, int from, int dim, bool whole,
                                              float (&values)[kElements]) {
  if (whole) {
    if (from < dim) {
      detail::load_run<kElements>(row + from, values);
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < kElements; ++e) values[e] = from + e < dim ? widen(row[from + e]) : 0.0f;
}

// One query's running softmax over the keys that a group of lanes has seen; a lane has kElements of
// the sum of values.
struct Running {
  float largest, total, sums[kElements];

  __device__ __forceinline__ void clear() {
    largest = -INFINITY;
    total = 0;
#pragma unroll
    for (float& s : sums) s = 0;
  }
  __device__ __forceinline__ void add(float score, const float (&value)[kElements]) {
    if (score > largest) {
      const float factor = exp2f(largest - score);  // 0 for the first
      total *= factor;
#pragma unroll
      for (float& s : sums) s *= factor;
      largest = score;
    }
    const float p = exp2f(score - largest);
    total += p;
#pragma unroll
    for (int e = 0; e < kElements; ++e) sums[e] += p * value[e];
  }
  // With that of the lane whose number differs in the bits of `mask`; both get the same.
  __device__ __forceinline__ void merge_across(int mask) {
    const float other = __shfl_xor_sync(0xffffffffu, largest, mask);
    const float most = fmaxf(largest, other);
    const float factor = total == 0 ? 0 : exp2f(largest - most);
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

// The largest score, the sum of exponentials and of values that they weigh, a query each.
template <int kQueries, int kWidth>
struct Sums {
  float largest[kQueries], total[kQueries], sums[kQueries][kWidth];
};

// Block (share, key head · tiles of queries, row of the pass). kLanes lanes take a key; kQueries of
// the group's G·T queries.
template <class T, int kLanes, int kQueries>
__global__ void __launch_bounds__(kThreads)
    attend_kernel(const Problem p, const T* q, const T* keys, const T* values, T* out) {
  constexpr int kGroups = kThreads / kLanes, kWidth = kLanes * kElements;
  let_next_start();
  wait_for_previous();
  const int b = blockIdx.z, tokens = p.pass.tokens, group = p.heads / p.key_heads;
  const int tiles = static_cast<int>(ceil_div(group * tokens, kQueries));
  const int key_head = blockIdx.y / tiles, first_query = blockIdx.y % tiles * kQueries;
  const int slot = p.pass.slot(b), count = p.pass.count(b), length = p.pass.length(b);
  const int lane = threadIdx.x % kLanes, from = lane * kElements, my_group = threadIdx.x / kLanes;

  const int end = count > 0 ? min(length + p.pass.first + count, p.capacity) : 0;
  int share = static_cast<int>(ceil_div(end, p.shares));
  share = max(share, kLeastShare);
  const int begin = blockIdx.x * share, stop = min(begin + share, end);

  float query[kQueries][kElements];
  uint64_t sees[kQueries];
  bool counts[kQueries];
  Running running[kQueries];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    const int index = first_query + i, t = index % tokens, head = key_head * group + index / tokens;
    running[i].clear();
    sees[i] = 0;
    counts[i] = index < group * tokens && t < count;
#pragma unroll
    for (float& e : query[i]) e = 0;
    if (counts[i]) {
      load_elements(q + b * p.q.batch + head * p.q.head + t * p.q.row, from, p.dim, p.whole,
                    query[i]);
#pragma unroll
      for (float& e : query[i]) e *= p.scale;
      // Bits 0 to first + t: 64 − (first + t + 1) are shifted out.
      sees[i] = p.visible ? static_cast<uint64_t>(p.visible[b * p.visible_row + t])
                          : ~uint64_t{0} >> (63 - p.pass.first - t);
    }
  }

  const T* key_rows = keys + slot * p.cache_k.batch + key_head * p.cache_k.head;
  const T* value_rows = values + slot * p.cache_v.batch + key_head * p.cache_v.head;
  // All lanes of a warp go round equally often, as they shuffle.
  for (int start = begin; start < stop; start += kGroups * kKeys) {
    float key[kKeys][kElements] = {}, value[kKeys][kElements] = {};
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const int j = start + k * kGroups + my_group;
      if (j >= stop) continue;
      load_elements(key_rows + int64_t{j} * p.cache_k.row, from, p.dim, p.whole, key[k]);
      load_elements(value_rows + int64_t{j} * p.cache_v.row, from, p.dim, p.whole, value[k]);
    }
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const int j = start + k * kGroups + my_group;
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        float score = 0;
#pragma unroll
        for (int e = 0; e < kElements; ++e) score += query[i][e] * key[k][e];
#pragma unroll
        for (int mask = kLanes / 2; mask > 0; mask /= 2)
          score += __shfl_xor_sync(0xffffffffu, score, mask);
        if (j < stop && (j < length ? counts[i] : (sees[i] >> (j - length) & 1) != 0))
          running[i].add(score, value[k]);
      }
    }
  }

  // The groups of a warp become one, then the warps of a block, then the blocks of a cluster, each
  // time in a fixed order.
  constexpr int kWarps = kThreads / kWarp;
  __shared__ Sums<kQueries, kWidth> warps[kWarps], block;
  const int warp = threadIdx.x / kWarp;
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
#pragma unroll
    for (int mask = kLanes; mask < kWarp; mask *= 2) running[i].merge_across(mask);
    if (threadIdx.x % kWarp < kLanes) {
      warps[warp].largest[i] = running[i].largest;
      warps[warp].total[i] = running[i].total;
#pragma unroll
      for (int e = 0; e < kElements; ++e) warps[warp].sums[i][from + e] = running[i].sums[e];
    }
  }
  __syncthreads();
  // sums[d] of query i over `parts` places, each of which part_of(n) gives.
  const auto merged = [](int parts, const auto& part_of, int i, int d, float& most, float& all) {
    most = -INFINITY;
    for (int n = 0; n < parts; ++n) most = fmaxf(most, part_of(n).largest[i]);
    float sum = 0;
    all = 0;
    for (int n = 0; n < parts; ++n) {
      const auto& part = part_of(n);
      const float factor = part.total[i] == 0 ? 0 : exp2f(part.largest[i] - most);
      sum += factor * part.sums[i][d];
      all += factor * part.total[i];
    }
    return sum;
  };
  const auto write = [&](int i, int d, float sum, float all) {
    const int index = first_query + i, t = index % tokens, head = key_head * group + index / tokens;
    out[b * p.out.batch + head * p.out.head + t * p.out.row + d] =
        narrow<T>(all == 0 ? 0.0f : sum / all);
  };
  const int places = min(kQueries, group * tokens - first_query) * p.dim;
  for (int place = threadIdx.x; place < places; place += kThreads) {
    const int i = place / p.dim, d = place % p.dim;
    float most, all;
    const auto warp_part = [&](int n) -> const auto& {
      return warps[n];
    };
    const float sum = merged(kWarps, warp_part, i, d, most, all);
    if (p.shares == 1) {
      write(i, d, sum, all);
      continue;
    }
    block.sums[i][d] = sum;
    if (d == 0) {
      block.largest[i] = most;
      block.total[i] = all;
    }
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (p.shares == 1) return;
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  const int rank = blockIdx.x;
  for (int place = rank * kThreads + threadIdx.x; place < places; place += p.shares * kThreads) {
    const int i = place / p.dim, d = place % p.dim;
    float most, all;
    const auto share = [&](int n) -> const auto& {
      return *cluster.map_shared_rank(&block, n);
    };
    const float sum = merged(p.shares, share, i, d, most, all);
    write(i, d, sum, all);
  }
  cluster.sync();  // until nobody reads this block's memory
#endif
}

Strides strides_of(const Array& array) {
  return {array.stride(0), array.stride(1), array.stride(2)};
}

bool reads_whole(const Array& array) {
  bool whole = array.size(3) % kElements == 0 && is_run_aligned(array, kElements);
  const int64_t bytes = size_of(array.dtype());
  for (int d = 0; d < 3; ++d) whole = whole && array.stride(d) * bytes % 16 == 0;
  return whole;
}

template <class T, int kLanes>
void attend(Problem p, int64_t batch, const Array& q, const Array& keys, const Array& values,
            const Array& out) {
  const int64_t queries = int64_t{p.heads / p.key_heads} * p.pass.tokens;
  const auto run = [&]<int kQueries>(std::integral_constant<int, kQueries>) {
    const int64_t tiles = p.key_heads * ceil_div(queries, kQueries);
    check(tiles <= 65535 && batch <= 65535,
          "cached attention takes batches and heads · queries "
          "below 65536, got a batch of ",
          batch, " and ", tiles, " tiles");
    // A power of two.
    const auto& device = ::binade::cuda::device_properties();
    constexpr int64_t kBlocksPerProcessor = 4;
    const int64_t wanted = std::min(kBlocksPerProcessor * device.multiprocessors / (batch * tiles),
                                    ceil_div(p.capacity, 2 * kLeastShare));
    p.shares = 1;
    while (device.major >= 9 && p.shares < std::min<int64_t>(wanted, kMostShares)) p.shares *= 2;
    launch_early("cached_attention", attend_kernel<T, kLanes, kQueries>,
                 dim3(static_cast<unsigned>(p.shares), static_cast<unsigned>(tiles),
                      static_cast<unsigned>(batch)),
                 kThreads, EarlyOptions{.cluster = static_cast<unsigned>(p.shares)}, p,
                 device_data<const T>(q), device_data<const T>(keys), device_data<const T>(values),
                 device_data<T>(out));
  };
  if (queries == 1)
    run(std::integral_constant<int, 1>());
  else
    run(std::integral_constant<int, 4>());
}

}  // namespace

void cached_attention(const Array& q, const Array& cached_keys, const Array& cached_values,
                      const PassRows& rows, const Array& visible, float scale, const Array& out) {
  const int64_t dim = q.size(3);
  check(dim <= 32 * kElements && is_floating(q.dtype()) && q.dtype() != DType::f64,
        "cached attention on the GPU takes f32, f16 and bf16 heads of up to ", 32 * kElements,
        " elements, got ", dim, ' ', name_of(q.dtype()));
  const Problem problem{PassView(rows, q.size(2)),
                        static_cast<int>(q.size(1)),
                        static_cast<int>(cached_keys.size(1)),
                        static_cast<int>(dim),
                        static_cast<int>(cached_keys.size(2)),
                        strides_of(q),
                        strides_of(cached_keys),
                        strides_of(cached_values),
                        strides_of(out),
                        visible.defined() ? device_data<const int64_t>(visible) : nullptr,
                        static_cast<int>(visible.defined() && visible.dims() == 2 ? q.size(2) : 0),
                        scale * 1.44269504f,
                        1,
                        reads_whole(q) && reads_whole(cached_keys) && reads_whole(cached_values)};
  const auto run = [&]<class T>(T) {
    if (dim <= kElements)
      attend<T, 1>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 4 * kElements)
      attend<T, 4>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 8 * kElements)
      attend<T, 8>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 16 * kElements)
      attend<T, 16>(problem, q.size(0), q, cached_keys, cached_values, out);
    else
      attend<T, 32>(problem, q.size(0), q, cached_keys, cached_values, out);
  };
  switch (q.dtype()) {
    case DType::f16:
      return run(__half{});
    case DType::bf16:
      return run(__nv_bfloat16{});
    default:
      return run(float{});
  }
}

}  // namespace binade::kernels::cuda
