// Attention through cuDNN's fused kernels (flash attention: the scores never lie in memory).
#pragma once

#include <binade/core/kernels/attention.h>

namespace binade::kernels::cuda {

// bias, which is added to the scores: (B, 1, Tq, Tk) contiguous of q's dtype with finite values, or
// undefined; it has no gradient. They return false, with nothing queued, for what cuDNN does not
// take: dtypes other than f16 and bf16, masks, dropout, a causal mask with more queries than keys,
// head sizes that are not a multiple of 8 or too large, and views without 16-byte aligned rows.
bool cudnn_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& bias, const Array& out, const Array& logsumexp);
bool cudnn_attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                              const Array& logsumexp, const Array& dout,
                              const AttentionParams& params, const Array& bias, const Array& dq,
                              const Array& dk, const Array& dv);

}  // namespace binade::kernels::cuda
