#include <binade/core/kernels/rank/soft_ranks.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_soft_ranks, rank::visit_soft_ranks)

}  // namespace binade::kernels::cuda
