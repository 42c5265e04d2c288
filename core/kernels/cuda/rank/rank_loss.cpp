#include <binade/core/kernels/cuda/rank/run_family.h>

namespace binade::kernels::cuda {

void rank_loss(const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
               const Array& losses, const Array& gradient) {
  run_rank_families({lists, params, key, losses, gradient},
                    {rank_pointwise, rank_pairs, rank_pair_sums, rank_softmax, rank_likelihood,
                     rank_soft_ranks, rank_neural_sort});
}

}  // namespace binade::kernels::cuda
