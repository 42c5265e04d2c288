// The families of ranking losses, each in a file of its own. Free of CUDA headers.
#pragma once

#include <binade/core/kernels/rank/batch.h>

namespace binade::kernels::cuda {

// See RankFamily.
bool rank_pointwise(const RankBatch& batch);
bool rank_pairs(const RankBatch& batch);
bool rank_pair_sums(const RankBatch& batch);
bool rank_softmax(const RankBatch& batch);
bool rank_likelihood(const RankBatch& batch);
bool rank_soft_ranks(const RankBatch& batch);
bool rank_neural_sort(const RankBatch& batch);

}  // namespace binade::kernels::cuda
