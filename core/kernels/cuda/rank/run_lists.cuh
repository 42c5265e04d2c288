// Runs a ranking loss over the lists of a batch. How long the lists are is known on the device
// only, so up to three kernels share them: a warp for a list of up to 32 documents, a block up to
// 2048, a cluster of blocks above; from 257 documents on where there are so few lists that their
// clusters run at once. A batch that has no room for a long list does without its kernel.
#pragma once

#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/cuda/rank/run_family.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/rank/teams.cuh>

namespace binade::kernels::cuda {

struct RankWork {
  const float *scores, *labels, *weights, *list_weights;
  const int64_t* offsets;
  float *losses, *gradient;
  int64_t lists, rows;
  int columns;
  int arrays;
  float* work;
  int* orders;
  uint64_t* keys;
  rank::Draws draws;
  RankUsable usable;
  uint32_t* faults;
};

// List q, whose documents are rows [first, end), by one team.
template <class Team, class Loss>
__device__ __forceinline__ void run_list(Team team, const RankWork& a, const Loss& loss, int64_t q,
                                         int64_t first, int64_t end) {
  bool bad_label = false;
  const rank::RankList<float> list{static_cast<int>(end - first),
                                   a.columns,
                                   first,
                                   a.scores + first * a.columns,
                                   a.labels + first,
                                   a.weights ? a.weights + first : nullptr,
                                   a.gradient + first * a.columns,
                                   a.work + first * a.arrays,
                                   a.orders + first * 2,
                                   a.keys + first,
                                   a.draws,
                                   &bad_label};
  float value = 0;
  if (rank::takes_part(team, list, a.usable)) {
    const float weight = a.list_weights ? a.list_weights[q] : 1.0f;
    value = loss(team, list) * weight;
    if (weight != 1) rank::scale_gradient(team, list, weight);
    if (bad_label) note_fault(a.faults, DeviceFault::index_out_of_range);
  } else {
    for (int i = team.lane(); i < list.n * list.columns; i += team.lanes()) list.gradient[i] = 0;
  }
  if (team.lane() == 0) a.losses[q] = value;
  team.sync();
}

inline constexpr int kListThreads = 256;
inline constexpr int kLongThreads = 512, kLongBlocks = 8;
inline constexpr int kLongest = BlockTeam<kListThreads>::kSharedKeys;  // of a block

template <class Loss>
__global__ void __launch_bounds__(kListThreads) rank_short_lists(RankWork a, Loss loss) {
  wait_for_previous();
  const int64_t thread = int64_t{blockIdx.x} * kListThreads + threadIdx.x;
  const int64_t threads = int64_t{gridDim.x} * kListThreads;
  for (int64_t q = thread / 32; q < a.lists; q += threads / 32) {
    const int64_t first = a.offsets[q], end = a.offsets[q + 1];
    if (end - first <= WarpTeam::kMostDocuments) run_list(WarpTeam(), a, loss, q, first, end);
  }
  // Rows behind the last list.
  for (int64_t i = a.offsets[a.lists] * a.columns + thread; i < a.rows * a.columns; i += threads)
    a.gradient[i] = 0;
}

// Lists of more than a warp's documents, up to `most`.
template <class Loss>
__global__ void __launch_bounds__(kListThreads) rank_lists(RankWork a, Loss loss, int64_t most) {
  wait_for_previous();
  for (int64_t q = blockIdx.x; q < a.lists; q += gridDim.x) {
    const int64_t first = a.offsets[q], end = a.offsets[q + 1];
    if (end - first > WarpTeam::kMostDocuments && end - first <= most)
      run_list(BlockTeam<kListThreads>(), a, loss, q, first, end);
  }
}

// Longer lists than `shorter`.
template <class Loss>
__global__ void __launch_bounds__(kLongThreads)
    rank_long_lists(RankWork a, Loss loss, int64_t shorter) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  wait_for_previous();
  for (int64_t q = blockIdx.x / kLongBlocks; q < a.lists; q += gridDim.x / kLongBlocks) {
    const int64_t first = a.offsets[q], end = a.offsets[q + 1];
    if (end - first > shorter)
      run_list(ClusterTeam<kLongThreads, kLongBlocks>(), a, loss, q, first, end);
  }
#endif
}

template <class Loss>
int arrays_of(const Loss& loss) {
  if constexpr (requires { loss.arrays(); })
    return loss.arrays();
  else
    return Loss::kArrays;
}

template <class Loss>
void run_lists(const RankBatch& batch, const char* name, const Loss& loss) {
  const RankLists& in = batch.lists;
  RankWork a{};
  a.lists = in.offsets.numel() - 1;
  a.rows = in.labels.numel();
  a.arrays = arrays_of(loss);
  a.columns = in.scores.dims() == 2 ? static_cast<int>(in.scores.size(1)) : 1;
  if (a.rows == 0 && a.lists == 0) return;
  const auto floats = [](const Array& array) {
    return array.defined() ? device_data<float>(array) : nullptr;
  };
  a.scores = floats(in.scores);
  a.labels = floats(in.labels);
  a.weights = floats(in.weights);
  a.list_weights = floats(in.list_weights);
  a.offsets = device_data<const int64_t>(in.offsets);
  a.losses = floats(batch.losses);
  a.gradient = floats(batch.gradient);
  a.usable = batch.params.usable;
  a.faults = ::binade::cuda::fault_word();
  if (batch.key.step.defined())
    a.draws = {batch.key.seed, device_data<const int64_t>(batch.key.step), batch.key.place};
  const Workspace<float> work(std::max<int64_t>(a.rows * a.arrays, 1));
  const Workspace<int> orders(std::max<int64_t>(2 * a.rows, 1));
  const Workspace<uint64_t> keys(a.rows > kLongest ? a.rows : 1);
  a.work = work.data();
  a.orders = orders.data();
  a.keys = keys.data();

  launch_early(name, rank_short_lists<Loss>, grid_for(std::max(32 * a.lists, a.rows), kListThreads),
               kListThreads, EarlyOptions{}, a, loss);
  // No more lists than this can be longer than `shorter`.
  const auto most_lists = [&](int64_t shorter) {
    return std::min(a.lists, a.rows / (shorter + 1));
  };
  const auto& device = ::binade::cuda::device_properties();
  const bool clusters = device.major >= 9,
             few_lists = kLongBlocks * a.lists <= 2 * device.multiprocessors;
  const int64_t of_blocks = few_lists ? kListThreads : kLongest,
                most = clusters ? of_blocks : a.rows;
  launch_early(name, rank_lists<Loss>, one_block_each(most_lists(WarpTeam::kMostDocuments)),
               kListThreads, EarlyOptions{}, a, loss, most);
  if (a.rows > most)
    launch_early(name, rank_long_lists<Loss>, one_block_each(kLongBlocks * most_lists(most)),
                 kLongThreads, EarlyOptions{.cluster = kLongBlocks}, a, loss, most);
}

// Runs the losses that visit(params, body) knows.
#define BINADE_RANK_FAMILY(name, visit)                                                          \
  bool name(const RankBatch& batch) {                                                            \
    return visit<float>(batch.params, [&](const auto& loss) { run_lists(batch, #name, loss); }); \
  }

}  // namespace binade::kernels::cuda
