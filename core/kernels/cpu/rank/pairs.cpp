#include <binade/core/kernels/rank/pairs.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_pairs, rank::visit_pairs)

}  // namespace binade::kernels::cpu
