#include <binade/core/kernels/cuda/rank/run_family.h>

namespace binade::kernels::cuda {

void rank_loss(const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
               const Array& losses, const Array& gradient) {
  const RankBatch batch{lists, params, key, losses, gradient};
  for (const auto family : {rank_pointwise, rank_pairs, rank_pair_sums, rank_softmax,
                            rank_likelihood, rank_soft_ranks, rank_neural_sort})
    if (family(batch)) return;
  fail("rank_loss: there is no loss number ", static_cast<int>(params.loss));
}

}  // namespace binade::kernels::cuda
