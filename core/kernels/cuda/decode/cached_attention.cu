// Attention of few queries against a long cache. A block takes a share of the keys of one key head,
// for a handful of its queries; groups of lanes take keys in turn, each with a running softmax of
// its own (Milakov & Gimelshein 2018). A second kernel merges the shares (Dao et al. 2023, "Flash-
// Decoding"). The number of shares follows from the capacity and the batch, never from the lengths,
// which only the device knows.
#include <algorithm>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kElements = 8;     // of a key, a lane
constexpr int kLeastShare = 32;  // keys that are worth a block

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
  // Unless there is one share: (B, Hq, T, shares) of the largest score, the sum, and (…, D) sums.
  float *part_max, *part_sum, *part_out;
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
  for (int start = begin; start < stop; start += kGroups) {
    const int j = start + my_group;
    const bool there = j < stop;
    float key[kElements] = {}, value[kElements] = {};
    if (there) {
      load_elements(key_rows + int64_t{j} * p.cache_k.row, from, p.dim, p.whole, key);
      load_elements(value_rows + int64_t{j} * p.cache_v.row, from, p.dim, p.whole, value);
    }
#pragma unroll
    for (int i = 0; i < kQueries; ++i) {
      float score = 0;
#pragma unroll
      for (int e = 0; e < kElements; ++e) score += query[i][e] * key[e];
#pragma unroll
      for (int mask = kLanes / 2; mask > 0; mask /= 2)
        score += __shfl_xor_sync(0xffffffffu, score, mask);
      if (there && (j < length ? counts[i] : (sees[i] >> (j - length) & 1) != 0))
        running[i].add(score, value);
    }
  }

  // The groups' sums become the block's, in the order of groups.
  __shared__ float largest[kQueries][kGroups], total[kQueries][kGroups];
  __shared__ float sums[kQueries][kGroups][kWidth];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    if (lane == 0) {
      largest[i][my_group] = running[i].largest;
      total[i][my_group] = running[i].total;
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) sums[i][my_group][from + e] = running[i].sums[e];
  }
  __syncthreads();
  for (int place = threadIdx.x; place < kQueries * p.dim; place += kThreads) {
    const int i = place / p.dim, d = place % p.dim, index = first_query + i;
    if (index >= group * tokens) break;
    const int t = index % tokens, head = key_head * group + index / tokens;
    float most = -INFINITY;
    for (int g = 0; g < kGroups; ++g) most = fmaxf(most, largest[i][g]);
    float sum = 0, all = 0;
    for (int g = 0; g < kGroups; ++g) {
      if (total[i][g] == 0) continue;  // saw nothing
      const float factor = exp2f(largest[i][g] - most);
      sum += factor * sums[i][g][d];
      all += factor * total[i][g];
    }
    if (p.shares == 1) {
      out[b * p.out.batch + head * p.out.head + t * p.out.row + d] =
          narrow<T>(all == 0 ? 0.0f : sum / all);
      continue;
    }
    const int64_t part = ((int64_t{b} * p.heads + head) * tokens + t) * p.shares + blockIdx.x;
    p.part_out[part * p.dim + d] = sum;
    if (d == 0) {
      p.part_max[part] = most;
      p.part_sum[part] = all;
    }
  }
}

// A block merges the shares of one query.
template <class T>
__global__ void __launch_bounds__(kThreads) merge_kernel(const Problem p, T* out) {
  let_next_start();
  wait_for_previous();
  const int64_t row = blockIdx.x;
  const int t = static_cast<int>(row % p.pass.tokens);
  const int64_t head = row / p.pass.tokens % p.heads, b = row / p.pass.tokens / p.heads;
  const float *part_max = p.part_max + row * p.shares, *part_sum = p.part_sum + row * p.shares;
  float most = -INFINITY;
  for (int s = 0; s < p.shares; ++s)
    if (part_sum[s] != 0) most = fmaxf(most, part_max[s]);
  for (int d = threadIdx.x; d < p.dim; d += kThreads) {
    float sum = 0, all = 0;
    for (int s = 0; s < p.shares; ++s) {
      if (part_sum[s] == 0) continue;
      const float factor = exp2f(part_max[s] - most);
      sum += factor * p.part_out[(row * p.shares + s) * p.dim + d];
      all += factor * part_sum[s];
    }
    out[b * p.out.batch + head * p.out.head + t * p.out.row + d] =
        narrow<T>(all == 0 ? 0.0f : sum / all);
  }
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
    constexpr int64_t kBlocksPerProcessor = 4;
    const int64_t wanted =
        kBlocksPerProcessor * ::binade::cuda::device_properties().multiprocessors;
    p.shares = static_cast<int>(
        std::clamp<int64_t>(wanted / (batch * tiles), 1, ceil_div(p.capacity, 2 * kLeastShare)));
    p.shares = std::min(p.shares, 64);
    const int64_t parts = p.shares == 1 ? 0 : batch * p.heads * p.pass.tokens * p.shares;
    const Workspace<float> part_max(std::max<int64_t>(parts, 1)),
        part_sum(std::max<int64_t>(parts, 1)), part_out(std::max<int64_t>(parts * p.dim, 1));
    p.part_max = part_max.data();
    p.part_sum = part_sum.data();
    p.part_out = part_out.data();
    check(tiles <= 65535 && batch <= 65535,
          "cached attention takes batches and heads · queries "
          "below 65536, got a batch of ",
          batch, " and ", tiles, " tiles");
    launch_early("cached_attention", attend_kernel<T, kLanes, kQueries>,
                 dim3(static_cast<unsigned>(p.shares), static_cast<unsigned>(tiles),
                      static_cast<unsigned>(batch)),
                 kThreads, p, device_data<const T>(q), device_data<const T>(keys),
                 device_data<const T>(values), device_data<T>(out));
    if (p.shares > 1)
      launch_early("cached_attention_merge", merge_kernel<T>,
                   one_block_each(batch * p.heads * p.pass.tokens), kThreads, p,
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
                        reads_whole(q) && reads_whole(cached_keys) && reads_whole(cached_values),
                        nullptr,
                        nullptr,
                        nullptr};
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
