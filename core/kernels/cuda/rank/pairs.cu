#include <binade/core/kernels/rank/pairs.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_pairs, rank::visit_pairs)

}  // namespace binade::kernels::cuda
