// Fused softmax cross-entropy over class indices.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

struct CrossEntropyParams {
  int64_t ignore_index = -100;  // such rows count nothing
  double label_smoothing = 0;   // ε: target is (1−ε)·onehot + ε/V
};

// logits (N, V) with contiguous rows (row stride ≥ V), any floating dtype; targets (N) i32 or i64.
// loss (N) and logsumexp (N), f32 (f64 for f64 logits): per-row loss, 0 for ignored rows.
BINADE_KERNEL(cross_entropy, const Array& logits, const Array& targets,
              const CrossEntropyParams& params, const Array& loss, const Array& logsumexp)
// dlogits = (softmax(logits) − target) · dloss[row]; dloss (N) f32 (may be expanded from one
// element). dlogits may be logits itself. It is computed in f32 and rounded once, so that
// dloss already carries loss scale and normaliser.
BINADE_KERNEL(cross_entropy_backward, const Array& logits, const Array& targets,
              const Array& logsumexp, const Array& dloss, const CrossEntropyParams& params,
              const Array& dlogits)

// Both in one pass: logits (N, W) with contiguous rows, of which the first `classes` columns count
// and the others are padding. loss (N) is cross_entropy's, to the bit; dlogits (N, W) =
// (softmax − target) · factor, 0 in padding and in ignored rows. dlogits is logits itself, or
// another array; then it may be half for f32 logits, and the rows of both begin at multiples of
// 16 bytes. `factor` is one number of loss's dtype (undefined: 1), which carries loss scale and
// normaliser.
BINADE_KERNEL(cross_entropy_with_gradient, const Array& logits, int64_t classes,
              const Array& targets, const CrossEntropyParams& params, const Array& factor,
              const Array& loss, const Array& dlogits)

}  // namespace binade::kernels
