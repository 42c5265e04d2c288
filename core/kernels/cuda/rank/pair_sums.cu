#include <binade/core/kernels/rank/pair_sums.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_pair_sums, rank::visit_pair_sums)

}  // namespace binade::kernels::cuda
