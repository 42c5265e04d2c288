#include <binade/core/kernels/rank/neural_sort.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_neural_sort, rank::visit_neural_sort)

}  // namespace binade::kernels::cpu
