// The elementwise half of attention without fusion: masked softmax over rows of scores, and back.
#pragma once

#include <binade/core/kernels/attention.h>

namespace binade::kernels::cuda {

// scores (B, Hq, Tq, Tk) f32 (f64 for f64), contiguous: the products q·kᵀ. probabilities likewise
// in q's dtype: softmax(scale · scores + mask), after dropout; logsumexp (B, Hq, Tq) f32 or f64.
// A row that may attend to nothing gets zeros, and −∞ as its logsumexp.
void masked_softmax(const Array& scores, const AttentionParams& params, const Array& probabilities,
                    const Array& logsumexp);

// From dprobabilities (scores' dtype): probabilities again (after dropout, as the forward pass had
// them), and dscores, the gradient of the products, both in q's dtype.
void masked_softmax_backward(const Array& scores, const AttentionParams& params,
                             const Array& logsumexp, const Array& dprobabilities,
                             const Array& probabilities, const Array& dscores);

}  // namespace binade::kernels::cuda
