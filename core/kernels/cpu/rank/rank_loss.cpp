#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

void rank_loss(const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
               const Array& losses, const Array& gradient) {
  run_rank_families({lists, params, key, losses, gradient},
                    {rank_pointwise, rank_pairs, rank_pair_sums, rank_softmax, rank_likelihood,
                     rank_soft_ranks, rank_neural_sort});
}

}  // namespace binade::kernels::cpu
