// Attention of few queries against a long cache. A block takes a share of the keys of one key head,
// for a handful of its queries; groups of lanes take keys in turn, each with a running softmax of
// its own (Milakov & Gimelshein 2018). The blocks that share a query are a cluster, and read each
// other's sums to merge them (after Dao et al. 2023, "Flash-Decoding", where a second kernel does
// that).
#include <cooperative_groups.h>

#include <algorithm>

#include <binade/core/kernels/cuda/decode/attend_problem.cuh>

namespace binade::kernels::cuda {

namespace {

// Block (share, key head · tiles of queries, row of the pass). kLanes lanes take a key; kQueries of
// the group's G·T queries.
template <class T, int kLanes, int kQueries>
__global__ void __launch_bounds__(kAttendThreads)
    attend_kernel(const AttendProblem p, const T* q, const T* keys, const T* values, T* out) {
  constexpr int kWidth = kLanes * kKeyElements;
  let_next_start();
  wait_for_previous();
  const int b = blockIdx.z, tokens = p.pass.tokens, group = p.group();
  const int tiles = static_cast<int>(ceil_div(group * tokens, kQueries));
  const int key_head = blockIdx.y / tiles, first_query = blockIdx.y % tiles * kQueries;
  const int slot = p.pass.slot(b), count = p.pass.count(b), length = p.pass.length(b);
  const int from = threadIdx.x % kLanes * kKeyElements;

  const int end = count > 0 ? min(length + p.pass.first + count, p.capacity) : 0;
  // No query sees what lies further back than a window before the pending tokens.
  const int hidden = p.window > 0 ? max(0, min(length - p.window, end)) : 0;
  int share = static_cast<int>(ceil_div(end - hidden, p.shares));
  share = max(share, kLeastShare);
  const int begin = min(hidden + static_cast<int>(blockIdx.x) * share, end),
            stop = min(begin + share, end);

  Queries<kQueries> queries;
  Running running[kQueries];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    const int index = first_query + i, t = index % tokens, head = key_head * group + index / tokens;
    running[i].clear();
    queries.sees[i] = 0;
    const bool counts = index < group * tokens && t < count;
    queries.first[i] = length;  // sees nothing
#pragma unroll
    for (float& e : queries.elements[i]) e = 0;
    if (counts) {
      load_elements(q + b * p.q.batch + head * p.q.head + t * p.q.row, from, p.dim, p.whole,
                    queries.elements[i]);
#pragma unroll
      for (float& e : queries.elements[i]) e *= p.scale;
      queries.sees[i] = pending_seen(p.pass, p.visible, p.visible_row, b, t);
      queries.first[i] = narrow_to_window(p.window, length, queries.sees[i]);
    }
  }
  const HeadCache<T> key_rows{keys + slot * p.cache_k.batch + key_head * p.cache_k.head,
                              p.cache_k.row};
  const HeadCache<T> value_rows{values + slot * p.cache_v.batch + key_head * p.cache_v.head,
                                p.cache_v.row};
  attend_keys<kLanes>(queries, key_rows, value_rows, p.dim, p.whole, begin, stop, length, running);

  // The groups of a warp become one, then the warps of a block, then the blocks of a cluster, each
  // time in a fixed order.
  __shared__ Sums<kQueries, kWidth> warps[kAttendWarps], block;
  merge_warp<kLanes>(running, warps[threadIdx.x / kWarp]);
  __syncthreads();
  const auto write = [&](int i, int d, const Merged& all) {
    const int index = first_query + i, t = index % tokens, head = key_head * group + index / tokens;
    out[b * p.out.batch + head * p.out.head + t * p.out.row + d] =
        narrow<T>(all.total == 0 ? 0.0f : all.sum / all.total);
  };
  const auto part_of = [](const Sums<kQueries, kWidth>& sums, int i, int d) -> Merged {
    return {sums.largest[i], sums.total[i], sums.sums[i][d]};
  };
  const int places = min(kQueries, group * tokens - first_query) * p.dim;
  for (int place = threadIdx.x; place < places; place += kAttendThreads) {
    const int i = place / p.dim, d = place % p.dim;
    const Merged all = merge_parts(kAttendWarps, [&](int n) { return part_of(warps[n], i, d); });
    if (p.shares == 1) {
      write(i, d, all);
      continue;
    }
    block.sums[i][d] = all.sum;
    if (d == 0) {
      block.largest[i] = all.largest;
      block.total[i] = all.total;
    }
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (p.shares == 1) return;
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  const int rank = blockIdx.x;
  for (int place = rank * kAttendThreads + threadIdx.x; place < places;
       place += p.shares * kAttendThreads) {
    const int i = place / p.dim, d = place % p.dim;
    write(i, d, merge_parts(p.shares, [&](int n) {
            return part_of(*cluster.map_shared_rank(&block, n), i, d);
          }));
  }
  cluster.sync();  // until nobody reads this block's memory
#endif
}

AttendStrides strides_of(const Array& array) {
  return {array.stride(0), array.stride(1), array.stride(2)};
}

bool reads_whole(const Array& array) {
  bool whole = array.size(3) % kKeyElements == 0 && is_run_aligned(array, kKeyElements);
  const int64_t bytes = size_of(array.dtype());
  for (int d = 0; d < 3; ++d) whole = whole && array.stride(d) * bytes % 16 == 0;
  return whole;
}

template <class T, int kLanes>
void attend(AttendProblem p, int64_t batch, const Array& q, const Array& keys, const Array& values,
            const Array& out) {
  const auto run = [&]<int kQueries>(std::integral_constant<int, kQueries>) {
    const dim3 grid = share_keys(p, batch, kQueries, /*blocks_per_processor=*/4, kLeastShare);
    launch_early("cached_attention", attend_kernel<T, kLanes, kQueries>, grid, kAttendThreads,
                 EarlyOptions{.cluster = static_cast<unsigned>(p.shares)}, p,
                 device_data<const T>(q), device_data<const T>(keys), device_data<const T>(values),
                 device_data<T>(out));
  };
  if (p.queries() == 1)
    run(std::integral_constant<int, 1>());
  else
    run(std::integral_constant<int, 4>());
}

}  // namespace

void cached_attention(const Array& q, const Array& cached_keys, const Array& cached_values,
                      const PassRows& rows, const Array& visible, float scale, int64_t window,
                      const Array& out) {
  const int64_t dim = q.size(3);
  check(dim <= 32 * kKeyElements && is_floating(q.dtype()) && q.dtype() != DType::f64,
        "cached attention on the GPU takes f32, f16 and bf16 heads of up to ", 32 * kKeyElements,
        " elements, got ", dim, ' ', name_of(q.dtype()));
  const AttendProblem problem{
      PassView(rows, q.size(2)),
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
      scale * kLog2E,
      static_cast<int>(std::min<int64_t>(window, cached_keys.size(2))),
      1,
      reads_whole(q) && reads_whole(cached_keys) && reads_whole(cached_values) && reads_whole(out)};
  if (suits_tiles(problem, q.dtype()))
    return attend_tiles(problem, q, cached_keys, cached_values, out);
  const auto run = [&]<class T>(T) {
    if (dim <= kKeyElements)
      attend<T, 1>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 4 * kKeyElements)
      attend<T, 4>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 8 * kKeyElements)
      attend<T, 8>(problem, q.size(0), q, cached_keys, cached_values, out);
    else if (dim <= 16 * kKeyElements)
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
