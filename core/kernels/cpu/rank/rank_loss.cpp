#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

void rank_loss(const RankLists& lists, const RankLossParams& params, const PhiloxKey& key,
               const Array& losses, const Array& gradient) {
  const RankBatch batch{lists, params, key, losses, gradient};
  BINADE_RUN_RANK_FAMILIES(batch);
}

}  // namespace binade::kernels::cpu
