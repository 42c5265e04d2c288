// Attention: fused kernels where they take the problem, cuDNN's or those over splits, otherwise
// matmuls and a softmax.
#include <binade/core/kernels/attention.h>

#include <binade/core/kernels/cuda/attention/attention_cudnn.h>
#include <binade/core/kernels/cuda/attention/attention_plain.h>
#include <binade/core/kernels/cuda/attention/attention_splits.h>
#include <binade/core/kernels/cuda/attention/document_bias.h>

namespace binade::kernels::cuda {

namespace {

// Documents become a bias, which lives as long as the result. A window goes into it: cuDNN takes no
// left bound beside a bias. One that hides no key is none.
struct Biased {
  AttentionParams fused, plain;
  Array bias;  // (B, 1, T, T), or undefined

  Biased(const AttentionParams& params, const Array& q, const Array& k) : fused(params) {
    if (params.window >= k.size(2)) fused.window = 0;
    if (params.documents.defined()) {
      bias = document_bias(params.documents, fused.window, q.dtype());
      fused.window = 0;
    }
    plain = fused;
    if (!bias.defined()) return;
    plain.documents = {};
    plain.mask = bias.expand({q.size(0), q.size(1), q.size(2), k.size(2)});
  }
};

}  // namespace

void attention(const Array& q, const Array& k, const Array& v, const AttentionParams& params,
               const Array& out, const Array& logsumexp) {
  if (suits_split_attention(params, logsumexp, {&q, &k, &v, &out}))
    return split_attention(q, k, v, params, out, logsumexp);
  const Biased with(params, q, k);
  if (!cudnn_attention(q, k, v, with.fused, with.bias, out, logsumexp))
    plain_attention(q, k, v, with.plain, out, logsumexp);
}

void attention_backward(const Array& q, const Array& k, const Array& v, const Array& out,
                        const Array& logsumexp, const Array& dout, const AttentionParams& params,
                        const Array& dq, const Array& dk, const Array& dv) {
  if (suits_split_attention(params, logsumexp, {&q, &k, &v, &out, &dout, &dq, &dk, &dv}))
    return split_attention_backward(q, k, v, out, logsumexp, dout, params, dq, dk, dv);
  const Biased with(params, q, k);
  if (!cudnn_attention_backward(q, k, v, out, logsumexp, dout, with.fused, with.bias, dq, dk, dv))
    plain_attention_backward(q, k, v, logsumexp, dout, with.plain, dq, dk, dv);
}

}  // namespace binade::kernels::cuda
