#include <binade/core/kernels/rank/softmax.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_softmax, rank::visit_softmax)

}  // namespace binade::kernels::cuda
