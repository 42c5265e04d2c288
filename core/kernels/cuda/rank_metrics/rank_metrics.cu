// Ranks are counted, not sorted: how many documents come before one. Only documents with a gain
// need theirs.
#include <binade/core/kernels/rank_metrics.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

using Columns = RankMetricColumns;

constexpr int kListBlock = 128;  // threads of a list, documents of a tile
constexpr int kSumBlock = 512;

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Smaller {
  __device__ int64_t operator()(int64_t a, int64_t b) const { return a < b ? a : b; }
};

// A block a list. Threads take a document each, kListBlock at a time, and run over all documents in
// tiles of shared memory.
template <class T>
__global__ void __launch_bounds__(kListBlock)
    rank_metrics_kernel(const T* scores, const float* labels, const int64_t* offsets,
                        RankMetricRules rules, double* each) {
  using C = ComputeOf<T>;
  __shared__ C tile_scores[kListBlock];
  __shared__ float tile_labels[kListBlock];
  const int64_t begin = offsets[blockIdx.x], count = offsets[blockIdx.x + 1] - begin;
  double dcg = 0, ideal = 0;
  int64_t first = INT64_MAX, nans = 0;  // the first rank of a relevant document
  for (int64_t base = 0; base < count; base += kListBlock) {
    const int64_t mine = base + threadIdx.x;
    const bool inside = mine < count;
    const C score = inside ? widen(scores[begin + mine]) : C(0);
    const float label = inside ? labels[begin + mine] : 0;
    const bool counts = inside && (label >= 1 || rules.gain(label) > 0);
    nans += inside && score != score ? 1 : 0;
    if (!__syncthreads_or(counts)) continue;
    int64_t rank = 1, ideal_rank = 1;
    for (int64_t tile = 0; tile < count; tile += kListBlock) {
      const int64_t other = tile + threadIdx.x;
      __syncthreads();  // the tile before has been read
      if (other < count) {
        tile_scores[threadIdx.x] = widen(scores[begin + other]);
        tile_labels[threadIdx.x] = labels[begin + other];
      }
      __syncthreads();
      if (!counts) continue;
      const int size = static_cast<int>(count - tile < kListBlock ? count - tile : kListBlock);
      for (int j = 0; j < size; ++j) {
        rank += ranks_before(tile_scores[j], tile + j, score, mine) ? 1 : 0;
        ideal_rank += ranks_before(tile_labels[j], tile + j, label, mine) ? 1 : 0;
      }
    }
    if (!counts) continue;
    dcg += rules.gain(label) * rules.discount(rank);
    ideal += rules.gain(label) * rules.discount(ideal_rank);
    if (label >= 1 && rank < first) first = rank;
  }
  dcg = block_reduce<kListBlock>(dcg, Plus(), 0.0);
  ideal = block_reduce<kListBlock>(ideal, Plus(), 0.0);
  first = block_reduce<kListBlock>(first, Smaller(), int64_t{INT64_MAX});
  nans = block_reduce<kListBlock>(nans, Plus(), int64_t{0});
  if (threadIdx.x != 0) return;
  double* out = each + int64_t{blockIdx.x} * Columns::kEach;
  const bool relevant = first != INT64_MAX;
  const bool within = relevant && (rules.cut == 0 || first <= rules.cut);
  out[Columns::kNdcg] = count == 0 ? NAN : rules.or_empty(ideal > 0, dcg / ideal);
  out[Columns::kReciprocal] =
      count == 0 ? NAN : rules.or_empty(relevant, within ? 1 / static_cast<double>(first) : 0);
  out[Columns::kNan] = static_cast<double>(nans);
}

// One block.
__global__ void __launch_bounds__(kSumBlock)
    sum_rank_metrics_kernel(const double* each, int64_t lists, double* sums) {
  double local[Columns::kSums] = {};
  for (int64_t q = threadIdx.x; q < lists; q += kSumBlock)
    for (int column = 0; column < Columns::kEach; ++column) {
      const double value = each[q * Columns::kEach + column];
      if (value != value) continue;
      local[column] += value;
      if (column == Columns::kNdcg) local[Columns::kNdcgLists] += 1;
      if (column == Columns::kReciprocal) local[Columns::kReciprocalLists] += 1;
    }
  for (int i = 0; i < Columns::kSums; ++i) {
    const double sum = block_reduce<kSumBlock>(local[i], Plus(), 0.0);
    if (threadIdx.x == 0) sums[i] += sum;
  }
}

}  // namespace

void rank_metrics(const Array& scores, const Array& labels, const Array& offsets,
                  const RankMetricRules& rules, const Array& each, const Array& sums) {
  const int64_t lists = offsets.numel() - 1;
  visit_floating(scores.dtype(), "rank_metrics", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    launch("rank_metrics", rank_metrics_kernel<T>, one_block_each(lists), kListBlock, 0,
           device_data<T>(scores), device_data<float>(labels), device_data<int64_t>(offsets), rules,
           device_data<double>(each));
  });
  if (lists > 0)
    launch("sum_rank_metrics", sum_rank_metrics_kernel, 1, kSumBlock, 0, device_data<double>(each),
           lists, device_data<double>(sums));
}

}  // namespace binade::kernels::cuda
