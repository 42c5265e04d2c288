// Attention: cuDNN's fused kernels where they take the problem, otherwise matmuls and a softmax.
#include <binade/core/kernels/attention.h>

#include <binade/core/kernels/cuda/attention/attention_cudnn.h>
#include <binade/core/kernels/cuda/attention/attention_plain.h>

namespace binade::kernels::cuda {

void attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
               const Array& out, const Array& logsumexp) {
  if (!cudnn_attention(q, k, v, params, out, logsumexp))
    plain_attention(q, k, v, params, out, logsumexp);
}

void attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                        const Array& logsumexp, const Array& dout, const AttentionParams& params,
                        const Array& dq, const Array& dk, const Array& dv) {
  if (!cudnn_attention_backward(q, k, v, out, logsumexp, dout, params, dq, dk, dv))
    plain_attention_backward(q, k, v, logsumexp, dout, params, dq, dk, dv);
}

}  // namespace binade::kernels::cuda
