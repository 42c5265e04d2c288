#include <binade/core/kernels/rank/pointwise.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_pointwise, rank::visit_pointwise)

}  // namespace binade::kernels::cpu
