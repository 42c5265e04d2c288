// Runs a ranking loss over the lists of a batch, lists in parallel.
#pragma once

#include <atomic>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/rank/lone_team.h>
#include <binade/core/kernels/rank/batch.h>

namespace binade::kernels::cpu {

// Arrays of a list's scratch.
template <class Loss>
int arrays_of(const Loss& loss) {
  if constexpr (requires { loss.arrays(); })
    return loss.arrays();
  else
    return Loss::kArrays;
}

template <class Loss>
void run_lists(const RankBatch& batch, const Loss& loss) {
  using C = typename Loss::Real;
  const RankLists& in = batch.lists;
  const int64_t lists = in.offsets.numel() - 1, rows = in.labels.numel();
  const int columns = in.scores.dims() == 2 ? static_cast<int>(in.scores.size(1)) : 1;
  const int64_t* offsets = in.offsets.data<int64_t>();
  const C* scores = in.scores.data<C>();
  const float* labels = in.labels.data<float>();
  const float* weights = in.weights.defined() ? in.weights.data<float>() : nullptr;
  const float* list_weights = in.list_weights.defined() ? in.list_weights.data<float>() : nullptr;
  const rank::Draws draws{batch.key.seed,
                          batch.key.step.defined() ? batch.key.step.data<int64_t>() : nullptr,
                          batch.key.place};
  C* losses = batch.losses.data<C>();
  C* gradient = batch.gradient.data<C>();
  const int64_t arrays = arrays_of(loss);
  std::atomic<bool> bad_label{false};
  // Some hundred documents are worth another thread.
  const int64_t grain = std::max<int64_t>(1, 512 * lists / std::max<int64_t>(rows, 1));
  parallel_for(lists, grain, [&](int64_t begin, int64_t end) {
    LoneTeam<C> team;
    std::vector<C> work;
    std::vector<int> orders;
    for (int64_t q = begin; q < end; ++q) {
      const int64_t first = offsets[q], count = offsets[q + 1] - first;
      losses[q] = 0;
      std::fill_n(gradient + first * columns, count * columns, C{0});
      bool bad = false;
      work.resize(static_cast<size_t>(arrays * count));
      orders.resize(static_cast<size_t>(2 * count));
      const rank::RankList<C> list{.n = static_cast<int>(count),
                                   .columns = columns,
                                   .first = first,
                                   .scores = scores + first * columns,
                                   .labels = labels + first,
                                   .weights = weights ? weights + first : nullptr,
                                   .gradient = gradient + first * columns,
                                   .work = work.data(),
                                   .orders = orders.data(),
                                   .keys = nullptr,
                                   .draws = draws,
                                   .bad_label = &bad};
      if (!rank::takes_part(team, list, batch.params.usable)) continue;
      losses[q] = loss(team, list);
      if (list_weights) {
        losses[q] *= static_cast<C>(list_weights[q]);
        rank::scale_gradient(team, list, static_cast<C>(list_weights[q]));
      }
      if (bad) bad_label = true;
    }
  });
  const int64_t used = offsets[lists] * columns;
  std::fill(gradient + used, gradient + rows * columns, C{0});
  check(!bad_label, "mcrank: a label is no class: with ", columns,
        " outputs a document, labels are whole numbers from 0 to ", columns - 1);
}

// Runs the losses that visit(params, body) knows, in f32 or f64.
#define BINADE_RANK_FAMILY(name, visit)                                                \
  bool name(const RankBatch& batch) {                                                  \
    const auto run = [&](const auto& loss) { run_lists(batch, loss); };                \
    return batch.lists.scores.dtype() == DType::f64 ? visit<double>(batch.params, run) \
                                                    : visit<float>(batch.params, run); \
  }

// See RankFamily.
bool rank_pointwise(const RankBatch& batch);
bool rank_pairs(const RankBatch& batch);
bool rank_pair_sums(const RankBatch& batch);
bool rank_softmax(const RankBatch& batch);
bool rank_likelihood(const RankBatch& batch);
bool rank_soft_ranks(const RankBatch& batch);
bool rank_neural_sort(const RankBatch& batch);

}  // namespace binade::kernels::cpu
