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

// What is counted of every row beside its loss, in these columns of an (N, kCount) matrix of the
// loss's dtype; all 0 for ignored rows.
struct RowStatistics {
  static constexpr int64_t kHits = 5;  // of rank 0, of rank 0 or 1, …
  enum Column : int64_t {
    kValid = 0,     // 1
    kFirstHit = 1,  // n-th of kHits columns: 1 where the target's rank is below n
    kEntropy = 6,   // of softmax(logits), nats
    kOverlap = 7,   // Σ min(p, q) with the teacher; 0 without one
    kCount = 8,
  };
};

// Both in one pass: logits (N, W) with contiguous rows, of which the first `classes` columns count
// and the others are padding. loss (N) is cross_entropy's, to the bit; dlogits (N, W) =
// (softmax − target) · factor, 0 in padding and in ignored rows. dlogits is logits itself, or
// another array; then it may be half for f32 logits, and the rows of both begin at multiples of
// 16 bytes. `factor` is one number of loss's dtype (undefined: 1), which carries loss scale and
// normaliser. With `statistics` (N, RowStatistics::kCount), contiguous, the row is counted as well;
// then dlogits may be undefined. The target's rank is the number of classes with a larger logit,
// and of those before it with the same; a NaN counts as larger, and a target whose logit is NaN is
// no hit.
BINADE_KERNEL(cross_entropy_with_gradient, const Array& logits, int64_t classes,
              const Array& targets, const CrossEntropyParams& params, const Array& factor,
              const Array& loss, const Array& dlogits, const Array& statistics = Array())

struct DistillationParams {
  int64_t ignore_index = -100;
  // The loss of a row: hard · cross-entropy + soft · KL(p ‖ q) − acceptance · Σ min(p, q).
  double hard = 0, soft = 0, acceptance = 0;
  double temperature = 1;  // of the teacher
};
// The same with a teacher beside the targets: q = softmax(logits) and p = softmax(teacher /
// temperature) over the first `classes` columns of teacher (N, W), of logits' dtype. The rows of
// all arrays begin at multiples of 16 bytes. dlogits and statistics may each be undefined.
// With ∂ Σ min(p, q) / ∂q taken as 0 where p = q.
BINADE_KERNEL(distillation_with_gradient, const Array& logits, const Array& teacher,
              int64_t classes, const Array& targets, const DistillationParams& params,
              const Array& factor, const Array& loss, const Array& dlogits, const Array& statistics)

}  // namespace binade::kernels
