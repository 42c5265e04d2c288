#include <binade/core/kernels/rank/neural_sort.h>

#include <binade/core/kernels/cuda/rank/run_lists.cuh>

namespace binade::kernels::cuda {

BINADE_RANK_FAMILY(rank_neural_sort, rank::visit_neural_sort)

}  // namespace binade::kernels::cuda
