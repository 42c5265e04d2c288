#include <binade/core/kernels/rank/likelihood.h>

#include <binade/core/kernels/cpu/rank/run_lists.h>

namespace binade::kernels::cpu {

BINADE_RANK_FAMILY(rank_likelihood, rank::visit_likelihood)

}  // namespace binade::kernels::cpu
