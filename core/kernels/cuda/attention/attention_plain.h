// Attention as matmuls and a softmax, for what cuDNN's fused kernels do not take: f32 and f64,
// masks, dropout, unaligned views. The scores lie in memory: B·Hq·Tq·Tk numbers.
#pragma once

#include <binade/core/kernels/attention.h>

namespace binade::kernels::cuda {

void plain_attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
                     const Array& out, const Array& logsumexp);
void plain_attention_backward(const Array& q, const Array& k, const Array& v,
                              const Array& logsumexp, const Array& dout,
                              const AttentionParams& params, const Array& dq, const Array& dk,
                              const Array& dv);

}  // namespace binade::kernels::cuda
