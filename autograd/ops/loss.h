// Losses. Class full: they read half inputs and compute in f32; the result is f32 (f64 for f64).
// Options go by name: mse_loss(x, target, {.reduction = Reduction::sum}).
#pragma once

#include <optional>

#include <binade/autograd/tensor.h>

namespace binade {

enum class Reduction : uint8_t { mean, sum, none };

struct CrossEntropyOptions {
  int64_t ignore_index = -100;
  double label_smoothing = 0;
  Reduction reduction =
      Reduction::mean;  // mean: over targets that are not ignored (none: 0/0 is 0)
  Tensor
      normaliser;  // f32 scalar: with it the result is sum / normaliser, whatever `reduction` says
  // Columns beyond so many are padding: out of the softmax, with gradient 0. 0: there is none.
  int64_t classes = 0;
  // (classes) of a floating dtype, or undefined: each row's loss is multiplied by its class's
  // weight, and the mean divides by the sum of these weights; smoothing weights every class's
  // share. Not in linear_cross_entropy.
  Tensor weight;
};
// logits (…, V), targets (…) of i32/i64 class indices. Fused: keeps the logits and a logsumexp a
// row.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options = {});
struct LinearCrossEntropyOptions : CrossEntropyOptions {
  // What logits are stored as: f32, or the dtype of the matmuls' operands. Unset: f32 for bf16,
  // whose 8 bits would round logits near 40 to eighths and small losses by a quarter; otherwise the
  // operands'.
  std::optional<DType> logits_dtype;
  // Rows of x whose logits exist at one time. 0: as many as take about 0.75 GiB on a GPU, 32 MiB on
  // a CPU.
  int64_t rows_per_chunk = 0;
};
// cross_entropy(linear(x, weight), targets, options) without all logits at once: x (…, D), weight
// (V, D), targets (…); the products are of class half. The loss is reduced (Reduction::none only
// with a normaliser). Where it is recorded, the forward pass goes over chunks of rows and makes the
// gradients at once: logits, softmax − target, from that a chunk of x's gradient
// and its share of the weight's, which is summed in f32. Backward multiplies both by what the loss
// was multiplied by; in half types they carry current_loss_scale() / normaliser until then.
// Not differentiable twice.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                            const LinearCrossEntropyOptions& options = {});

struct LossOptions {
  Reduction reduction = Reduction::mean;
  Tensor normaliser;  // as in CrossEntropyOptions
};
// −log_probabilities (…, V) at targets (…), class indices.
struct NllOptions {
  Reduction reduction = Reduction::mean;
  Tensor normaliser;
  int64_t ignore_index = -100;  // as in CrossEntropyOptions, and so is
  Tensor weight;
};
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& targets,
                const NllOptions& options = {});
// Soft targets: probabilities of logits' shape; −Σ weight·target·log_softmax(logits) a row, with
// target = (1 − label_smoothing)·probability + label_smoothing/V. The mean is over rows, whatever
// the weights.
struct SoftTargetOptions {
  Reduction reduction = Reduction::mean;
  Tensor normaliser;
  double label_smoothing = 0;
  Tensor weight;  // (V), or undefined
};
Tensor cross_entropy_soft(const Tensor& logits, const Tensor& probabilities,
                          const SoftTargetOptions& options = {});
Tensor l1_loss(const Tensor& x, const Tensor& target, const LossOptions& options = {});
Tensor mse_loss(const Tensor& x, const Tensor& target, const LossOptions& options = {});
// x are logits; stable for any magnitude. Both weights broadcast to x: `weight` multiplies an
// element's loss, `pos_weight` the part that the target asks for. The mean is over elements.
struct BceOptions {
  Reduction reduction = Reduction::mean;
  Tensor normaliser;
  Tensor weight, pos_weight;
};
Tensor bce_with_logits_loss(const Tensor& x, const Tensor& target, const BceOptions& options = {});
// Σ target·(log target − log_input) a row (last dimension); mean: over rows ("batchmean").
Tensor kl_div_loss(const Tensor& log_input, const Tensor& target, const LossOptions& options = {});
// Huber's: 0.5·d²/β below β, |d| − β/2 above.
Tensor smooth_l1_loss(const Tensor& x, const Tensor& target, double beta = 1,
                      const LossOptions& options = {});

}  // namespace binade
