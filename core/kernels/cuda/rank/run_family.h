// The families of ranking losses, each in a file of its own. Free of CUDA headers.
#pragma once

#include <binade/core/kernels/rank/batch.h>

namespace binade::kernels::cuda {

BINADE_DECLARE_RANK_FAMILIES

}  // namespace binade::kernels::cuda
