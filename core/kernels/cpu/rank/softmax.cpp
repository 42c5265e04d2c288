#include <binade/core/kernels/rank/softmax.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_softmax, rank::visit_softmax)

}  // namespace binade::kernels::cpu
