// Attention over splits (split_rules.h) in fused kernels on tensor cores, after Dao 2023
// ("FlashAttention-2"). Queries and keys are taken in tiles of 64; the scores never lie in memory.
// Which tiles see each other is found on the device (split_tiles.cuh): pairs of tiles of which the
// rule leaves nothing are skipped, and only those of which it leaves a part evaluate it pair by
// pair. Sums run in one order, so that results are the same bits every time.
#pragma once

#include <initializer_list>

#include <binade/core/kernels/attention.h>

namespace binade::kernels::cuda {

// False for what they do not take: params without splits, dtypes other than f16 and bf16, a causal
// mask or dropout beside the splits, a scale that is not positive, head sizes that are not a
// multiple of 8 or above 128, views without 16-byte aligned rows, and devices older than 8.0.
// views: all that a call reads and writes, q and k first.
bool suits_split_attention(const AttentionParams& params, const Array& logsumexp,
                           std::initializer_list<const Array*> views);

// Spare slots may hold anything, infinities too: they get zeros, and change nothing.
void split_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& out, const Array& logsumexp);
void split_attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                              const Array& logsumexp, const Array& dout,
                              const AttentionParams& params, const Array& dq, const Array& dk,
                              const Array& dv);

}  // namespace binade::kernels::cuda
