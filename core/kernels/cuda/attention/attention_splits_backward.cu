// Attention over splits, backward (Dao et al. 2022, alg. 4): the probabilities P are computed again
// from the scores and logsumexp, and with dP those of their gradients, a score's is dS = P · (dP −
// Σ out · dout). A block sums dQ of a tile of queries over the keys that it sees, or dK and dV of a
// tile of keys over the queries that see it, those of all query heads of its head: nothing is
// shared between blocks. Half a streamed tile is taken at a time, for want of registers.
#include <binade/core/kernels/cuda/attention/attention_splits.h>

#include <binade/core/kernels/cuda/attention/split_attend.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kPart = kSplitTile / 2;  // columns of a streamed tile that are taken at a time

// What blocks read of queries.
template <class T>
struct QuerySide {
  HeadRows<const T> q, out, dout;
  const float* logsumexp;  // (B, Hq, Tq)
  float* inner;  // likewise, Σ out · dout: the kernel of queries leaves it to that of keys
  bool inner_is_there;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// In units of the scores' exponentials, which are of 2. Whoever sees nothing has no scores.
__device__ __forceinline__ float shift_of(float logsumexp) {
  return logsumexp == -INFINITY ? 0 : logsumexp * kLog2E;
}

// Σ out · dout of a block's queries, two threads each, in shared memory and in `inner`.
template <class T>
__device__ __forceinline__ void sum_inner(const T* out, int64_t out_row, const T* dout,
                                          int64_t dout_row, int count, int dim,
                                          float (&sums)[kSplitTile], float* inner) {
  constexpr int kWidth = kVecWidth<T>;
  const int row = threadIdx.x / 2;
  float sum = 0;
  if (row < count)
    for (int column = threadIdx.x % 2 * kWidth; column < dim; column += 2 * kWidth) {
      const auto a = load_vec<kWidth>(out + row * out_row + column);
      const auto b = load_vec<kWidth>(dout + row * dout_row + column);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum += widen(a.value[i]) * widen(b.value[i]);
    }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  if (threadIdx.x % 2 != 0) return;
  sums[row] = sum;
  if (row < count) inner[row] = sum;
}
#endif

// Block (tile of queries, query head, row of the batch).
template <int kDim, class T>
__global__ void __launch_bounds__(kSplitThreads)
    differentiate_queries(SplitProblem p, QuerySide<T> queries, HeadRows<const T> k,
                          HeadRows<const T> v, HeadRows<T> dq, TileLists lists) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& memory = *reinterpret_cast<SplitMemory<kDim, 2>*>(bytes);
  const int tile = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y),
            batch = static_cast<int>(blockIdx.z), key_head = head / p.group;
  const int32_t* const list = lists.at(batch, tile);
  const LaneRows own(true, p.query_slots, batch, tile, p.queries);
  const int first_query = tile * kSplitTile, left = p.queries - first_query;
  start_rows(memory.own[0], queries.q.at(batch, head, first_query), queries.q.row, left, p.dim);
  start_rows(memory.own[1], queries.dout.at(batch, head, first_query), queries.dout.row, left,
             p.dim);
  __shared__ float inner_sums[kSplitTile];
  const int64_t first_row = (static_cast<int64_t>(batch) * gridDim.y + head) * p.queries;
  if (!queries.inner_is_there) {
    sum_inner(queries.out.at(batch, head, first_query), queries.out.row,
              queries.dout.at(batch, head, first_query), queries.dout.row, left, p.dim, inner_sums,
              queries.inner + first_row + first_query);
    __syncthreads();
  }
  float shift[2] = {}, inner[2] = {};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (own.place(r) >= p.queries) continue;
    shift[r] = shift_of(queries.logsumexp[first_row + own.place(r)]);
    inner[r] = queries.inner_is_there ? queries.inner[first_row + own.place(r)]
                                      : inner_sums[own.place(r) - first_query];
  }

  WarpRows<kDim> asked, gradients;
  float sums[kDim / 8][4] = {};
  const float scale = p.scale * kLog2E;
  stream_tiles(
      memory.stages, list[0],
      [&](int i, SplitStage<kDim>& stage) {
        start_keys(stage, p, k, v, batch, key_head, SeenTile{list[1 + i]});
      },
      [&](int i, SplitStage<kDim>& stage) {
        const SeenTile seen{list[1 + i]};
        if (i == 0) {
          asked.load(memory.own[0]);
          gradients.load(memory.own[1]);
        }
        if (seen.mixed()) prepare_mixed<true>(stage);
#pragma unroll
        for (int first = 0; first < kSplitTile; first += kPart) {
          uint32_t pairs = ~0u;
          if (seen.mixed()) {
            pairs = seen_pairs<true, kPart / 8>(own.slots, stage.slots, first);
            if (!__any_sync(0xffffffffu, pairs != 0)) continue;
          }
          float scores[kPart / 8][4], dscores[kPart / 8][4];
          multiply_rows<T>(scores, asked, stage.left, first);
          multiply_rows<T>(dscores, gradients, stage.right, first);
          if (seen.mixed()) hide_unseen(scores, pairs);
#pragma unroll
          for (int n = 0; n < kPart / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float weight = power_of_two(scores[n][e] * scale - shift[e / 2]);
              dscores[n][e] = weight * (dscores[n][e] - inner[e / 2]) * p.scale;
            }
          add_weighted_rows<T>(sums, dscores, stage.left, first);
        }
      });
  const float factors[2] = {own.slots[0].sample < 0 ? 0.0f : 1.0f,
                            own.slots[1].sample < 0 ? 0.0f : 1.0f};
  store_rows<kDim>(own, sums, factors, dq.at(batch, head, 0), dq.row, p.queries, p.dim);
#endif
}

// Block (tile of keys, key head, row of the batch).
template <int kDim, class T>
__global__ void __launch_bounds__(kSplitThreads)
    differentiate_keys(SplitProblem p, QuerySide<T> queries, HeadRows<const T> k,
                       HeadRows<const T> v, HeadRows<T> dk, HeadRows<T> dv, TileLists lists) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& memory = *reinterpret_cast<SplitMemory<kDim, 2>*>(bytes);
  const int tile = static_cast<int>(blockIdx.x), key_head = static_cast<int>(blockIdx.y),
            batch = static_cast<int>(blockIdx.z);
  const int32_t* const list = lists.at(batch, tile);
  const LaneRows own(false, p.key_slots, batch, tile, p.keys);
  const int first_key = tile * kSplitTile, left = p.keys - first_key;
  start_rows(memory.own[0], k.at(batch, key_head, first_key), k.row, left, p.dim);
  start_rows(memory.own[1], v.at(batch, key_head, first_key), v.row, left, p.dim);

  float key_sums[kDim / 8][4] = {}, value_sums[kDim / 8][4] = {};
  const float scale = p.scale * kLog2E;
  const int tiles = list[0];
  stream_tiles(
      memory.stages, tiles * p.group,
      [&](int i, SplitStage<kDim>& stage) {
        const int head = key_head * p.group + i / tiles;
        const SeenTile seen{list[1 + i % tiles]};
        const int first = seen.first(), count = p.queries - first;
        start_rows(stage.left, queries.q.at(batch, head, first), queries.q.row, count, p.dim);
        start_rows(stage.right, queries.dout.at(batch, head, first), queries.dout.row, count,
                   p.dim);
        const int64_t row =
            (static_cast<int64_t>(batch) * gridDim.y * p.group + head) * p.queries + first;
        start_floats(stage.logsumexp, queries.logsumexp + row, count);
        start_floats(stage.inner, queries.inner + row, count);
        if (seen.mixed()) start_slots(stage.slots, p.query_slots, batch, first, p.queries);
      },
      [&](int i, SplitStage<kDim>& stage) {
        const SeenTile seen{list[1 + i % tiles]};
        if (seen.mixed()) prepare_mixed<false>(stage);
#pragma unroll
        for (int first = 0; first < kSplitTile; first += kPart) {
          uint32_t pairs = ~0u;
          if (seen.mixed()) {
            pairs = seen_pairs<false, kPart / 8>(own.slots, stage.slots, first);
            if (!__any_sync(0xffffffffu, pairs != 0)) continue;
          }
          float weights[kPart / 8][4], dscores[kPart / 8][4];
          {
            WarpRows<kDim> rows;
            rows.load(memory.own[0]);
            multiply_rows<T>(weights, rows, stage.left, first);
            rows.load(memory.own[1]);
            multiply_rows<T>(dscores, rows, stage.right, first);
          }
          if (seen.mixed()) hide_unseen(weights, pairs);
#pragma unroll
          for (int n = 0; n < kPart / 8; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
              const int column = first + n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + c;
              const float shift = shift_of(stage.logsumexp[column]), inner = stage.inner[column];
#pragma unroll
              for (int r = 0; r < 2; ++r) {
                float &weight = weights[n][r * 2 + c], &dscore = dscores[n][r * 2 + c];
                weight = power_of_two(weight * scale - shift);
                dscore = weight * (dscore - inner) * p.scale;
              }
            }
          add_weighted_rows<T>(value_sums, weights, stage.right, first);
          add_weighted_rows<T>(key_sums, dscores, stage.left, first);
        }
      });
  const float factors[2] = {own.slots[0].sample < 0 ? 0.0f : 1.0f,
                            own.slots[1].sample < 0 ? 0.0f : 1.0f};
  store_rows<kDim>(own, key_sums, factors, dk.at(batch, key_head, 0), dk.row, p.keys, p.dim);
  store_rows<kDim>(own, value_sums, factors, dv.at(batch, key_head, 0), dv.row, p.keys, p.dim);
#endif
}

}  // namespace

void split_attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                              const Array& logsumexp, const Array& dout,
                              const AttentionParams& params, const Array& dq, const Array& dk,
                              const Array& dv) {
  const bool inner_is_there = params.inner.defined();
  const Array inner =
      inner_is_there ? params.inner : Array::empty(logsumexp.shape(), DType::f32, q.device());
  const SplitTiles tiles(params.splits, /*of_keys=*/true);
  const auto grid = [&](const TileLists& lists, int64_t heads) {
    return dim3(static_cast<unsigned>(lists.tiles), static_cast<unsigned>(heads),
                static_cast<unsigned>(q.size(0)));
  };
  const SplitProblem problem = split_problem(q, k, params);
  visit_half(q.dtype(), "attention_backward", [&]<class T>(T) {
    const QuerySide<T> queries{head_rows<const T>(q),     head_rows<const T>(out),
                               head_rows<const T>(dout),  device_data<const float>(logsumexp),
                               device_data<float>(inner), inner_is_there};
    visit_head_size(q.size(3), [&]<int kDim>(std::integral_constant<int, kDim>) {
      constexpr size_t kBytes = sizeof(SplitMemory<kDim, 2>);
      launch("split_attention_queries", differentiate_queries<kDim, T>,
             grid(tiles.of_queries(), q.size(1)), kSplitThreads, kBytes, problem, queries,
             head_rows<const T>(k), head_rows<const T>(v), head_rows<T>(dq), tiles.of_queries());
      launch("split_attention_keys", differentiate_keys<kDim, T>, grid(tiles.of_keys(), k.size(1)),
             kSplitThreads, kBytes, problem, queries, head_rows<const T>(k), head_rows<const T>(v),
             head_rows<T>(dk), head_rows<T>(dv), tiles.of_keys());
    });
  });
}

}  // namespace binade::kernels::cuda
