// The loss of several decoding heads (Medusa, MTP) that predict tokens ahead from hidden states:
// linear_cross_entropy for K heads at once, with what training and validation want to know of each.
// Class: the matmuls half, the loss full.
#pragma once

#include <optional>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

// h ← h + SiLU(W·h + b) (Cai et al. 2024, Medusa's residual block): weight (D, D), bias (D) or
// undefined.
struct ResidualBlock {
  Tensor weight, bias;
};

// A distribution to learn from, p = softmax(hidden·weightᵀ / temperature); constant. The student's
// q is at temperature 1.
struct Teacher {
  Tensor hidden;  // (…, D'), as many rows as the labels of a head
  Tensor weight;  // (V, D')
  double temperature = 1;
  // Row i of a head is taught by row i + shift of `hidden`, as its label is: see shifted_labels().
  // A row without one is taught the uniform distribution, unless it is ignored.
  int64_t shift = 0;
};

struct DecodingHead {
  Tensor hidden;  // (…, D): rows of this head's own (MTP); undefined: those all heads share
  std::vector<ResidualBlock> blocks;
  // (V, D). One tensor may serve several heads: gradients add up. Frozen ones get none.
  Tensor weight;
  double coefficient = 1;  // λ, 0 or more. 0: statistics, but no gradient
  // A row's loss is hard · CE(label, q) + soft · KL(p ‖ q) − acceptance · Σ_v min(p, q). The last,
  // the chance that a draft sampled from q is accepted ("LK" loss), and `soft` need a teacher.
  double hard = 1, soft = 0, acceptance = 0;
  std::optional<Teacher> teacher;  // with all three at 0: for the overlap
};

struct MultiHeadLossOptions {
  int64_t ignore_index = -100;
  // (K) f32: head k's loss is its rows' sum / normalisers[k], the count of its valid labels in the
  // whole step, say. Undefined: the mean over its own valid rows (none: 0).
  Tensor normalisers;
  // Columns beyond so many are padding: out of softmax and ranks, with gradient 0. 0: there is
  // none.
  int64_t classes = 0;
  bool statistics = true;  // false: only loss and losses are made, not the rest of MultiHeadLoss
  bool ranks = false;      // MultiHeadLoss::ranks, too, which needs the statistics
  // As in LinearCrossEntropyOptions.
  std::optional<DType> logits_dtype;
  int64_t rows_per_chunk = 0;
};

// f32 (f64 for f64 operands). Only `loss` has a gradient.
struct MultiHeadLoss {
  Tensor loss;    // scalar: Σ λ_k · losses_k over the heads whose λ is not 0
  Tensor losses;  // (K)
  // Sums over the rows that are not ignored, for the user to divide and to add up over batches.
  Tensor valid;  // (K): their number
  // (K, 5), entry n: rows whose label is among the head's n + 1 likeliest classes. Its rank is the
  // number of classes with a larger logit, and of those before it with an equal one; NaN is no hit.
  Tensor hits;
  Tensor entropy;  // (K): −Σ q·log q, nats
  Tensor overlap;  // (K): Σ_v min(p, q); 0 for heads without a teacher
  // As labels, i32: the label's rank if it is among the five likeliest classes, otherwise 5; −1 in
  // ignored rows.
  Tensor ranks;
};

// hidden (…, D) or undefined, if every head has its own; labels (K, …) of i32/i64, one row of them
// for every head. Head k is its blocks, then its linear layer, then its loss.
//
// As linear_cross_entropy, it makes the gradients in the forward pass, chunk of rows by chunk of
// rows, and backward multiplies them by what the loss was multiplied by. They carry λ_k /
// normaliser and current_loss_scale(), so that half types hold them; without a loss scale those of
// f16 weights wait in f32. No logits are kept. Each gradient is made once and written where it
// belongs: the buffer a parameter's gradient is bound to (an optimizer's), if that is free, which
// it is after zero_grad(). So call zero_grad() before this, not between this and backward(). Not
// differentiable twice.
//
// Memory beside operands and such gradients, for N rows a head and L blocks, with 2-byte operands:
//   one chunk of logits: N·V·2 bytes, at most 1 GiB on a GPU (32 MiB on a CPU; with f32 logits the
//       gradients, with a teacher its logits, have a share in that), whatever K and V
//   (2L + 2)·N·D·2 bytes: the head at hand
//   V·D·4 bytes: sums of one half weight's gradient; none where all rows fit one chunk and the
//       weight serves one head
//   N·D·(4 + 2) bytes: the gradient of `hidden` and its sums, if it wants one
//   parameters whose gradient is not bound, or not free: one gradient each.
MultiHeadLoss multi_head_loss(const Tensor& hidden, const std::vector<DecodingHead>& heads,
                              const Tensor& labels, const MultiHeadLossOptions& options = {});

// The labels of heads that look further ahead: (K, B, T) of labels (B, T) i32/i64 and K shifts ≥ 0:
//   result[k, b, t] = labels[b, t + shifts[k]] if t + shifts[k] < T and documents[b, t] ==
//                     documents[b, t + shifts[k]], otherwise ignore_index.
// documents (B, T) i32/i64 numbers the packed document of every position; undefined: one a row.
// With targets that are shifted already, labels[t] = x_{t+1}, Medusa's head k = 1, 2, … at t
// predicts x_{t+k+1} and has shift k; shift 0 is the ordinary next token. With labels[t] = x_t they
// are k + 1 and 1.
Tensor shifted_labels(const Tensor& labels, const Tensor& documents,
                      const std::vector<int64_t>& shifts, int64_t ignore_index = -100);

}  // namespace binade
