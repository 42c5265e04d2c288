// INTERNAL. From a loss that users name to the settings of its kernel.
#pragma once

#include <binade/core/kernels/rank.h>
#include <binade/heads/rank/losses.h>

namespace binade::heads::rank {

kernels::RankLossParams params_of(const LossSpec& spec);

}  // namespace binade::heads::rank
