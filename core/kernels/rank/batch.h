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

inline void run_rank_families(const RankBatch& batch, std::initializer_list<RankFamily> families) {
  for (const RankFamily family : families)
    if (family(batch)) return;
  fail("rank_loss: there is no loss number ", static_cast<int>(batch.params.loss));
}

}  // namespace binade::kernels
