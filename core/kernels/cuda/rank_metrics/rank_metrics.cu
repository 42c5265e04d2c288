// Lists are not sorted. With a short cut the documents in front of it are found one after the
// other; otherwise the rank of each document with a gain is counted: how many come before it.
#include <binade/core/kernels/rank_metrics.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

using Columns = RankMetricColumns;

constexpr int kListBlock = 256;  // threads of a list, documents of a tile
constexpr int kMostFound = 64;   // ranks that are found rather than counted
// Documents that a warp ranks alone: to wait for a block's other warps would take longer.
constexpr int kWarpDocuments = 256;
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

// A document by what it is ranked by; `place` -1: none.
template <class C>
struct Ranked {
  C value{};
  int64_t place = -1;
};
// The one that ranks first.
struct RanksFirst {
  template <class C>
  __device__ Ranked<C> operator()(const Ranked<C>& a, const Ranked<C>& b) const {
    if (a.place < 0 || b.place < 0) return a.place < 0 ? b : a;
    return ranks_before(a.value, a.place, b.value, b.place) ? a : b;
  }
};

// What a block knows of its list in the end, in all threads.
struct ListSums {
  double dcg = 0, ideal = 0;
  int64_t first = INT64_MAX;  // the first rank of a relevant document
};

// The document that ranks first among those of [0, count) for which takes(document) holds. Here and
// below, by the first kThreads threads of the block.
template <int kThreads, class C, class Value, class Takes>
__device__ Ranked<C> first_of(int64_t count, const Value& value, const Takes& takes) {
  Ranked<C> best;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const Ranked<C> document{value(i), i};
    if (takes(document)) best = RanksFirst()(best, document);
  }
  return block_reduce<kThreads>(best, RanksFirst(), Ranked<C>{});
}

// DCG of the order by value(i): thread r looks after the document of rank r + 1, of which there may
// not be more than threads.
template <int kThreads, class C, class Value>
__device__ double found_dcg(int64_t count, const float* labels, const RankMetricRules& rules,
                            const Value& value) {
  const int64_t ranks = rules.cut < count ? rules.cut : count;
  Ranked<C> last;
  int64_t mine = -1;
  for (int64_t r = 0; r < ranks; ++r) {
    last = first_of<kThreads, C>(count, value, [&](const Ranked<C>& document) {
      return last.place < 0 || ranks_before(last.value, last.place, document.value, document.place);
    });
    if (threadIdx.x == r) mine = last.place;
  }
  const double term =
      mine < 0 ? 0.0 : rules.gain(labels[mine]) * rules.discount(int64_t{threadIdx.x} + 1);
  return block_reduce<kThreads>(term, Plus(), 0.0);
}

template <int kThreads, class T>
__device__ ListSums found_sums(const T* scores, const float* labels, int64_t count,
                               const RankMetricRules& rules) {
  using C = ComputeOf<T>;
  const auto score = [&](int64_t i) { return widen(scores[i]); };
  const auto label = [&](int64_t i) { return labels[i]; };
  ListSums sums;
  sums.dcg = found_dcg<kThreads, C>(count, labels, rules, score);
  sums.ideal = found_dcg<kThreads, float>(count, labels, rules, label);
  const Ranked<C> first = first_of<kThreads, C>(
      count, score, [&](const Ranked<C>& document) { return labels[document.place] >= 1; });
  if (first.place < 0) return sums;
  int64_t before = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads)
    before += ranks_before(score(i), i, first.value, first.place) ? 1 : 0;
  sums.first = 1 + block_reduce<kThreads>(before, Plus(), int64_t{0});
  return sums;
}

// Threads take a document each, kListBlock at a time, and run over all documents in tiles of shared
// memory.
template <class T>
__device__ ListSums counted_sums(const T* scores, const float* labels, int64_t count,
                                 const RankMetricRules& rules) {
  using C = ComputeOf<T>;
  __shared__ C tile_scores[kListBlock];
  __shared__ float tile_labels[kListBlock];
  ListSums sums;
  for (int64_t base = 0; base < count; base += kListBlock) {
    const int64_t mine = base + threadIdx.x;
    const bool inside = mine < count;
    const C score = inside ? widen(scores[mine]) : C(0);
    const float label = inside ? labels[mine] : 0;
    const bool counts = inside && (label >= 1 || rules.gain(label) > 0);
    if (!__syncthreads_or(counts)) continue;
    int64_t rank = 1, ideal_rank = 1;
    for (int64_t tile = 0; tile < count; tile += kListBlock) {
      const int64_t other = tile + threadIdx.x;
      __syncthreads();  // the tile before has been read
      if (other < count) {
        tile_scores[threadIdx.x] = widen(scores[other]);
        tile_labels[threadIdx.x] = labels[other];
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
    sums.dcg += rules.gain(label) * rules.discount(rank);
    sums.ideal += rules.gain(label) * rules.discount(ideal_rank);
    if (label >= 1 && rank < sums.first) sums.first = rank;
  }
  sums.dcg = block_reduce<kListBlock>(sums.dcg, Plus(), 0.0);
  sums.ideal = block_reduce<kListBlock>(sums.ideal, Plus(), 0.0);
  sums.first = block_reduce<kListBlock>(sums.first, Smaller(), int64_t{INT64_MAX});
  return sums;
}

template <int kThreads, class T>
__device__ void write_metrics(const T* scores, int64_t count, const RankMetricRules& rules,
                              const ListSums& sums, double* out) {
  int64_t nans = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const auto score = widen(scores[i]);
    nans += score != score ? 1 : 0;
  }
  nans = block_reduce<kThreads>(nans, Plus(), int64_t{0});
  if (threadIdx.x != 0) return;
  const bool relevant = sums.first != INT64_MAX;
  const bool within = relevant && (rules.cut == 0 || sums.first <= rules.cut);
  out[Columns::kNdcg] = count == 0 ? NAN : rules.or_empty(sums.ideal > 0, sums.dcg / sums.ideal);
  out[Columns::kReciprocal] =
      count == 0 ? NAN : rules.or_empty(relevant, within ? 1 / static_cast<double>(sums.first) : 0);
  out[Columns::kNan] = static_cast<double>(nans);
}

// A block a list.
template <class T>
__global__ void __launch_bounds__(kListBlock)
    rank_metrics_kernel(const T* scores, const float* labels, const int64_t* offsets,
                        RankMetricRules rules, double* each) {
  const int64_t begin = offsets[blockIdx.x], count = offsets[blockIdx.x + 1] - begin;
  scores += begin;
  labels += begin;
  double* out = each + int64_t{blockIdx.x} * Columns::kEach;
  const bool finds = rules.cut > 0 && rules.cut <= kMostFound;
  if (finds && count <= kWarpDocuments && (rules.cut < count ? rules.cut : count) <= 32) {
    if (threadIdx.x < 32)
      write_metrics<32>(scores, count, rules, found_sums<32>(scores, labels, count, rules), out);
    return;
  }
  const ListSums sums = finds ? found_sums<kListBlock>(scores, labels, count, rules)
                              : counted_sums(scores, labels, count, rules);
  write_metrics<kListBlock>(scores, count, rules, sums, out);
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
