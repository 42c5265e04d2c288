// Attention over splits, forward: a running softmax over the tiles of keys that a tile of queries
// sees (Milakov & Gimelshein 2018).
#include <binade/core/kernels/cuda/attention/attention_splits.h>

#include <binade/core/kernels/cuda/attention/split_attend.cuh>

namespace binade::kernels::cuda {

namespace {

// Block (tile of queries, query head, row of the batch).
template <int kDim, class T>
__global__ void __launch_bounds__(kSplitThreads)
    attend_splits(SplitProblem p, HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v,
                  HeadRows<T> out, float* logsumexp, TileLists lists) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  constexpr int kTiles = kSplitTile / 8;
  extern __shared__ __align__(16) unsigned char bytes[];
  auto& memory = *reinterpret_cast<SplitMemory<kDim, 1>*>(bytes);
  const int tile = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y),
            batch = static_cast<int>(blockIdx.z), key_head = head / p.group;
  const int32_t* const list = lists.at(batch, tile);
  const LaneRows own(true, p.query_slots, batch, tile, p.queries);
  const int first_query = tile * kSplitTile;
  start_rows(memory.own[0], q.at(batch, head, first_query), q.row, p.queries - first_query, p.dim);

  WarpRows<kDim> asked;
  float sums[kDim / 8][4] = {}, total[2] = {};
  float largest[2] = {-INFINITY, -INFINITY};  // scores, not scaled
  const float scale = p.scale * kLog2E;
  stream_tiles(
      memory.stages, list[0],
      [&](int i, SplitStage<kDim>& stage) {
        start_keys(stage, p, k, v, batch, key_head, SeenTile{list[1 + i]});
      },
      [&](int i, SplitStage<kDim>& stage) {
        const SeenTile seen{list[1 + i]};
        if (i == 0) asked.load(memory.own[0]);
        uint32_t pairs = ~0u;
        if (seen.mixed()) {
          prepare_mixed<true>(stage);
          pairs = seen_pairs<true, kTiles>(own.slots, stage.slots, 0);
          if (!__any_sync(0xffffffffu, pairs != 0)) return;
        }
        float weights[kTiles][4];  // scores, to begin with
        multiply_rows<T>(weights, asked, stage.left, 0);
        if (seen.mixed()) hide_unseen(weights, pairs);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          float most = largest[r];
#pragma unroll
          for (const auto& scores : weights)
            most = fmaxf(most, fmaxf(scores[2 * r], scores[2 * r + 1]));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
          most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
          // Nothing seen so far: weights of 0.
          const float base = most == -INFINITY ? 0 : most * scale;
          const float factor = power_of_two(largest[r] * scale - base);
          largest[r] = most;
          total[r] *= factor;  // of this lane's keys until the end
#pragma unroll
          for (auto& sum : sums) {
            sum[2 * r] *= factor;
            sum[2 * r + 1] *= factor;
          }
#pragma unroll
          for (auto& scores : weights)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& weight = scores[2 * r + e];
              weight = power_of_two(weight * scale - base);
              total[r] += weight;
            }
        }
        add_weighted_rows<T>(sums, weights, stage.right, 0);
      });

  float factors[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    factors[r] = total[r] == 0 ? 0 : 1 / total[r];
    if (threadIdx.x % 4 == 0 && own.place(r) < p.queries)
      logsumexp[(static_cast<int64_t>(batch) * gridDim.y + head) * p.queries + own.place(r)] =
          total[r] == 0 ? -INFINITY : largest[r] * p.scale + logf(total[r]);
  }
  store_rows<kDim>(own, sums, factors, out.at(batch, head, 0), out.row, p.queries, p.dim);
#endif
}

}  // namespace

bool suits_split_attention(const AttentionParams& params, const Array& logsumexp,
                           std::initializer_list<const Array*> views) {
  if (!params.splits.defined() || params.causal || params.dropout > 0 || !(params.scale > 0))
    return false;
  if (logsumexp.dtype() != DType::f32 || !logsumexp.is_contiguous()) return false;
  const int64_t dim = (*views.begin())->size(3);
  if (dim == 0 || dim % 8 != 0 || dim > 128) return false;
  if (::binade::cuda::device_properties().major < 8) return false;
  return std::all_of(views.begin(), views.end(), [](const Array* view) {
    return is_half(view->dtype()) && view->numel() > 0 && view->stride(3) == 1 &&
           rows_aligned(view->data(), view->stride(0), 2) &&
           rows_aligned(view->data(), view->stride(1), 2) &&
           rows_aligned(view->data(), view->stride(2), 2);
  });
}

void split_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& out, const Array& logsumexp) {
  const SplitTiles tiles(params.splits, /*of_keys=*/false);
  const dim3 grid(static_cast<unsigned>(tiles.of_queries().tiles), static_cast<unsigned>(q.size(1)),
                  static_cast<unsigned>(q.size(0)));
  visit_half(q.dtype(), "attention", [&]<class T>(T) {
    visit_head_size(q.size(3), [&]<int kDim>(std::integral_constant<int, kDim>) {
      launch("split_attention", attend_splits<kDim, T>, grid, kSplitThreads,
             sizeof(SplitMemory<kDim, 1>), split_problem(q, k, params), head_rows<const T>(q),
             head_rows<const T>(k), head_rows<const T>(v), head_rows<T>(out),
             device_data<float>(logsumexp), tiles.of_queries());
    });
  });
}

}  // namespace binade::kernels::cuda
