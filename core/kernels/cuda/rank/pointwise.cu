#include <binade/core/kernels/rank/pointwise.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_pointwise, rank::visit_pointwise)

}  // namespace binade::kernels::cuda
