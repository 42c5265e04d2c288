// Attention of several queries against a long cache, on tensor cores. A block takes a share of the
// keys of one key head for a tile of its queries; each warp takes 16 keys at a time, straight from
// the cache into registers. The blocks that share a tile are a cluster: each gets the sums of some
// of its queries from all the others, and merges them (after Dao et al. 2023, "Flash-Decoding").
#include <algorithm>

#include <binade/core/kernels/cuda/decode/attend_mma.cuh>
#include <binade/core/kernels/cuda/decode/attend_problem.cuh>
#include <binade/core/kernels/cuda/decode/block_launch.cuh>

namespace binade::kernels::cuda {

namespace {

template <int kDim>
inline constexpr int kTileWarps = 512 / kDim;  // as many as leave room for their sums

// A share keeps half of the warps busy, at the least.
template <int kDim>
inline constexpr int kLeastTileShare = kTileWarps<kDim>* kWarpKeys / 2;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
struct KeyRange {
  int begin, stop;
};
// Four dimensions of a query: the sums of up to kMost parts, each of which row_of(n) gives, in
// their order.
struct MergedQuad {
  float4 sum;
  float largest, total;
};
template <int kMost, int kDim, class RowOf>
__device__ __forceinline__ MergedQuad merge_quads(int parts, int d, const RowOf& row_of) {
  float4 sums[kMost];
  float2 ends[kMost];
  MergedQuad all{make_float4(0, 0, 0, 0), -INFINITY, 0};
#pragma unroll
  for (int n = 0; n < kMost; ++n) {
    const float* row = row_of(n < parts ? n : 0);
    sums[n] = *reinterpret_cast<const float4*>(row + d);
    ends[n] = *reinterpret_cast<const float2*>(row + kDim);
    if (n < parts) all.largest = fmaxf(all.largest, ends[n].x);
  }
#pragma unroll
  for (int n = 0; n < kMost; ++n) {
    // Who has seen nothing has no largest score.
    const float factor = n < parts && ends[n].y != 0 ? power_of_two(ends[n].x - all.largest) : 0.0f;
    if (factor == 0) continue;  // what was never written need not be a number
    all.sum.x += factor * sums[n].x;
    all.sum.y += factor * sums[n].y;
    all.sum.z += factor * sums[n].z;
    all.sum.w += factor * sums[n].w;
    all.total += factor * ends[n].y;
  }
  return all;
}
#endif

// Block (share, key head · tiles of queries, row of the pass).
template <int kDim, int kHalves, class T>
__global__ void __launch_bounds__(kTileWarps<kDim>* kWarp, 2)
    attend_tiles_kernel(const AttendProblem p, const T* q, const T* keys, const T* values, T* out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  constexpr int kRows = 8 * kHalves, kFloats = share_floats(kDim), kWarps = kTileWarps<kDim>,
                kThreads = kWarps * kWarp, kRound = kWarps * kWarpKeys, kQuads = kDim / 4;
  __shared__ __align__(16) unsigned char asked_of[kRows * row_bytes(kDim)];
  __shared__ __align__(16) float of_warps[kWarps][kRows * kFloats];
  __shared__ __align__(16) float of_shares[kRows * kFloats];  // of queries that this block merges
#if __CUDA_ARCH__ >= 900
  if (p.shares > 1) cluster_begin();
#endif
  let_next_start();
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int b = blockIdx.z, tokens = p.pass.tokens, group = p.group();
  const int tiles = (group * tokens + kRows - 1) / kRows;
  const Quotient tile = divide(blockIdx.y, tiles);
  const int key_head = tile.quotient, first_query = tile.rest * kRows;
  const int asked = min(kRows, group * tokens - first_query);
  const int key_stride = static_cast<int>(p.cache_k.row),
            value_stride = static_cast<int>(p.cache_v.row);
  const auto share_of = [&](int length, int count) {
    KeyRange range;
    const int end = count > 0 ? min(length + p.pass.first + count, p.capacity) : 0;
    // No query sees what lies further back than a window before the pending tokens.
    const int hidden = p.window > 0 ? max(0, min(length - p.window, end)) : 0;
    const int share = max((end - hidden + p.shares - 1) / p.shares, kLeastTileShare<kDim>);
    range.begin = min(hidden + static_cast<int>(blockIdx.x) * share, end);
    range.stop = min(range.begin + share, end);
    return range;
  };
#if __CUDA_ARCH__ >= 900
  // Most of the cache was written long ago. Its way to this block's cache begins before earlier
  // kernels have ended: a hint, so that a length that is about to change does no harm.
  if (!p.pass.slots) {
    const int hinted = max(0, min(p.pass.length(b), p.capacity));
    const KeyRange range = share_of(hinted, tokens);
    const int key = range.begin + warp * kWarpKeys + lane % kWarpKeys;
    if (key < min(range.stop, hinted))
      fetch_to_l2(lane < kWarpKeys ? keys + b * p.cache_k.batch + key_head * p.cache_k.head +
                                         int64_t{key} * key_stride
                                   : values + b * p.cache_v.batch + key_head * p.cache_v.head +
                                         int64_t{key} * value_stride);
  }
#endif
  wait_for_previous();
  const int slot = p.pass.slot(b), count = p.pass.count(b), length = p.pass.length(b);
  const auto [begin, stop] = share_of(length, count);

  const T* key_rows = keys + slot * p.cache_k.batch + key_head * p.cache_k.head;
  const T* value_rows = values + slot * p.cache_v.batch + key_head * p.cache_v.head;
  WarpKeys<kDim> held;
  const auto load = [&](int from) {
    held.load(key_rows + int64_t{from} * key_stride, key_stride,
              value_rows + int64_t{from} * value_stride, value_stride, stop - 1 - from);
  };
  const int own = begin + warp * kWarpKeys;
  if (own < stop) load(own);
  // Where query `row` of the tile begins.
  const auto place_of = [&](const AttendStrides& strides, int row) {
    const Quotient query = divide(first_query + row, tokens);
    return b * strides.batch + (key_head * group + query.quotient) * strides.head +
           query.rest * strides.row;
  };
#pragma unroll 1
  for (int i = threadIdx.x; i < asked * (kDim / 8); i += kThreads) {
    const int row = i / (kDim / 8), at = i % (kDim / 8);
    *reinterpret_cast<uint4*>(asked_of + row * row_bytes(kDim) + at * 16) =
        *reinterpret_cast<const uint4*>(q + place_of(p.q, row) + at * 8);
  }

  // What a lane's queries see: of the prefix from a token on, and of pending tokens.
  int first[kHalves];
  uint64_t sees[kHalves], seen_by_any = 0;
#pragma unroll
  for (int r = 0; r < kHalves; ++r) {
    const int row = lane / 4 + r * 8, t = divide(first_query + row, tokens).rest;
    const bool counts = row < asked && t < count;
    sees[r] = counts ? pending_seen(p.pass, p.visible, p.visible_row, b, t) : 0;
    first[r] = counts ? narrow_to_window(p.window, length, sees[r]) : length;
    seen_by_any |= sees[r];
  }
#pragma unroll
  for (int mask = 4; mask < kWarp; mask *= 2)
    seen_by_any |= __shfl_xor_sync(0xffffffffu, seen_by_any, mask);
  __syncthreads();

  WarpSoftmax<kDim, kHalves> softmax;
  for (int from = own; from < stop; from += kRound) {
    if (from != own) load(from);
    unsigned seen = 0;
#pragma unroll
    for (int r = 0; r < kHalves; ++r)
      seen |= lane_keys(seen_keys(from, stop, length, first[r], sees[r])) << (4 * r);
    if (from + kWarpKeys > min(stop, length))
      held.keep_values(lane_keys(seen_keys(from, stop, length, 0, seen_by_any)));
    softmax.template attend<T>(held, asked_of, row_bytes(kDim), asked, p.scale, seen, from == own);
  }
  softmax.finish();

  const int used = min(kWarps, (stop - begin + kWarpKeys - 1) / kWarpKeys);
  if (warp < used) softmax.leave(asked, of_warps[warp]);
  __syncthreads();
  const auto write = [&](int row, int d, const MergedQuad& all) {
    const float factor = all.total == 0 ? 0.0f : 1 / all.total;
    store_vec(out + place_of(p.out, row) + d,
              Vec<T, 4>{narrow<T>(all.sum.x * factor), narrow<T>(all.sum.y * factor),
                        narrow<T>(all.sum.z * factor), narrow<T>(all.sum.w * factor)});
  };
  const int rows_each = (asked + p.shares - 1) / p.shares;
#if __CUDA_ARCH__ >= 900
  if (p.shares > 1) cluster_wait();  // all blocks have begun: their memory may be written
#endif
#pragma unroll 1
  for (int place = threadIdx.x; place < asked * kQuads; place += kThreads) {
    const int row = place / kQuads, d = place % kQuads * 4;
    const MergedQuad all =
        merge_quads<kWarps, kDim>(used, d, [&](int n) { return of_warps[n] + row * kFloats; });
    if (p.shares == 1) {
      write(row, d, all);
      continue;
    }
#if __CUDA_ARCH__ >= 900
    const Quotient owner = divide(row, rows_each);
    const int at = (static_cast<int>(blockIdx.x) * rows_each + owner.rest) * kFloats;
    const uint32_t to = address_in_block(shared_address(of_shares + at), owner.quotient);
    put_vector(to + d * 4, {__float_as_uint(all.sum.x), __float_as_uint(all.sum.y),
                            __float_as_uint(all.sum.z), __float_as_uint(all.sum.w)});
    if (d == 0)
      put_words(to + kDim * 4, {__float_as_uint(all.largest), __float_as_uint(all.total)});
#endif
  }
#if __CUDA_ARCH__ >= 900
  if (p.shares == 1) return;
  cluster_sync();
  const int first_row = static_cast<int>(blockIdx.x) * rows_each;
  const int here = min(rows_each, asked - first_row) * kQuads;
#pragma unroll 1
  for (int place = threadIdx.x; place < here; place += kThreads) {
    const int row = place / kQuads, d = place % kQuads * 4;
    write(first_row + row, d, merge_quads<kMostShares, kDim>(p.shares, d, [&](int n) {
            return of_shares + (n * rows_each + row) * kFloats;
          }));
  }
#endif
#endif
}

template <int kDim, class T>
void run(AttendProblem& p, const Array& q, const Array& keys, const Array& values,
         const Array& out) {
  const auto with = [&]<int kHalves>(std::integral_constant<int, kHalves>) {
    const dim3 grid =
        share_keys(p, q.size(0), 8 * kHalves, /*blocks_per_processor=*/2, kLeastTileShare<kDim>);
    launch_early("cached_attention", attend_tiles_kernel<kDim, kHalves, T>, grid,
                 kTileWarps<kDim> * kWarp, EarlyOptions{.cluster = static_cast<unsigned>(p.shares)},
                 p, device_data<const T>(q), device_data<const T>(keys),
                 device_data<const T>(values), device_data<T>(out));
  };
  if (p.queries() <= 8)
    with(std::integral_constant<int, 1>());
  else
    with(std::integral_constant<int, 2>());
}

}  // namespace

bool suits_tiles(const AttendProblem& p, DType dtype) {
  // A single query has nothing to share a key's read with.
  return p.whole && p.queries() > 1 && (p.dim == 64 || p.dim == 128) &&
         (dtype == DType::f16 || dtype == DType::bf16) &&
         std::max(p.cache_k.row, p.cache_v.row) < int64_t{1} << 31 &&
         ::binade::cuda::device_properties().major >= 8;
}

void attend_tiles(AttendProblem p, const Array& q, const Array& keys, const Array& values,
                  const Array& out) {
  visit_half(q.dtype(), "cached_attention", [&]<class T>(T) {
    if (p.dim == 64)
      run<64, T>(p, q, keys, values, out);
    else
      run<128, T>(p, q, keys, values, out);
  });
}

}  // namespace binade::kernels::cuda
