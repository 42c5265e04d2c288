#include <binade/core/kernels/rank/pair_sums.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_pair_sums, rank::visit_pair_sums)

}  // namespace binade::kernels::cpu
