#include <binade/core/kernels/cuda/rank/run_family.h>

namespace binade::kernels::cuda {

void rank_loss(const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
               const Array& losses, const Array& gradient) {
  const RankBatch batch{lists, params, key, losses, gradient};
  BINADE_RUN_RANK_FAMILIES(batch);
}

}  // namespace binade::kernels::cuda
