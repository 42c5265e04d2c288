// A batch of lists as the kernels of every device take it, and the way to the family that knows its
// loss.
#pragma once

#include <initializer_list>

#include <binade/core/error.h>
#include <binade/core/kernels/rank.h>

namespace binade::kernels {

struct RankBatch {
  const RankLists& lists;
  const RankLossParams& params;
  const PhiloxKey& key;
  const Array &losses, &gradient;
};

// Runs a batch of its losses and returns whether the loss is one of them.
using RankFamily = bool (*)(const RankBatch& batch);

// The families of losses, each a function of every device in a file of its own.
#define BINADE_RANK_FAMILIES(use)                                                                \
  use(rank_pointwise) use(rank_pairs) use(rank_pair_sums) use(rank_softmax) use(rank_likelihood) \
      use(rank_soft_ranks) use(rank_neural_sort)

// Declares those of a device, and runs the one that knows the loss; used in its namespace.
#define BINADE_DECLARE_RANK_FAMILY(family) bool family(const RankBatch& batch);
#define BINADE_NAME_RANK_FAMILY(family) family,
#define BINADE_DECLARE_RANK_FAMILIES BINADE_RANK_FAMILIES(BINADE_DECLARE_RANK_FAMILY)
#define BINADE_RUN_RANK_FAMILIES(batch) \
  run_rank_families(batch, {BINADE_RANK_FAMILIES(BINADE_NAME_RANK_FAMILY)})

inline void run_rank_families(const RankBatch& batch, std::initializer_list<RankFamily> families) {
  for (const RankFamily family : families)
    if (family(batch)) return;
  fail("rank_loss: there is no loss number ", static_cast<int>(batch.params.loss));
}

}  // namespace binade::kernels
