#include <binade/core/kernels/rank/soft_ranks.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_soft_ranks, rank::visit_soft_ranks)

}  // namespace binade::kernels::cpu
