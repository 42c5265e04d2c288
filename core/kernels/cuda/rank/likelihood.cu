#include <binade/core/kernels/rank/likelihood.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_likelihood, rank::visit_likelihood)

}  // namespace binade::kernels::cuda
