#include "sample.h"

namespace binade::opinfo {

namespace {

Reduction reduction_of(Sample& s) {
  const std::string name = s.text(-1, "reduction", "mean");
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  throw NotOffered("reduction " + name);
}

// Losses of two tensors of one shape.
struct Pair {
  Tensor x, target;

  explicit Pair(Sample& s) : x(s.tensor(0)), target(s.tensor(1, "target")) {
    if (x.shape() != target.shape()) throw NotOffered("operands that broadcast");
  }
};

}  // namespace

std::vector<Row> loss_rows() {
  return {
      {"nn.functional.cross_entropy",
       [](Sample& s) -> TensorList {
         Tensor logits = s.tensor(0);
         const Tensor targets = s.tensor(1, "target");
         CrossEntropyOptions options;
         if (s.given(-1, "weight")) options.weight = s.tensor(-1, "weight").detach();
         options.reduction = reduction_of(s);
         options.label_smoothing = s.number(-1, "label_smoothing", 0);
         options.ignore_index = s.integer(-1, "ignore_index", -100);
         if (is_floating(targets.dtype())) {
           if (logits.dims() != 2) throw NotOffered("soft targets");
           SoftTargetOptions soft{options.reduction};
           soft.label_smoothing = options.label_smoothing;
           soft.weight = options.weight;
           return {cross_entropy_soft(logits, targets, soft)};
         }
         // PyTorch's classes lie in dimension 1.
         for (int dim = 1; dim + 1 < logits.dims(); ++dim) logits = transpose(logits, dim, dim + 1);
         return {cross_entropy(logits, targets, options)};
       }},
      {"nn.functional.nll_loss",
       [](Sample& s) -> TensorList {
         Tensor x = s.tensor(0);
         if (x.dims() < 2) throw NotOffered("a single row");
         for (int dim = 1; dim + 1 < x.dims(); ++dim) x = transpose(x, dim, dim + 1);
         NllOptions options{reduction_of(s)};
         options.ignore_index = s.integer(-1, "ignore_index", -100);
         if (s.given(-1, "weight")) options.weight = s.tensor(-1, "weight").detach();
         return {nll_loss(x, s.tensor(1, "target"), options)};
       }},
      {"nn.functional.l1_loss",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         return {l1_loss(pair.x, pair.target, {reduction_of(s)})};
       }},
      {"nn.functional.mse_loss",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         return {mse_loss(pair.x, pair.target, {reduction_of(s)})};
       }},
      {"nn.functional.binary_cross_entropy_with_logits",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         BceOptions options{reduction_of(s)};
         if (s.given(-1, "weight")) options.weight = s.tensor(-1, "weight").detach();
         if (s.given(-1, "pos_weight")) options.pos_weight = s.tensor(-1, "pos_weight").detach();
         return {bce_with_logits_loss(pair.x, pair.target, options)};
       }},
      {"nn.functional.kl_div",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         s.only(-1, "log_target", false);
         const std::string reduction = s.text(-1, "reduction", "mean");
         if (pair.x.dims() == 0) throw NotOffered("a scalar");
         if (reduction == "sum")
           return {kl_div_loss(pair.x, pair.target, {.reduction = Reduction::sum})};
         if (reduction == "batchmean" && pair.x.dims() == 2)
           return {kl_div_loss(pair.x, pair.target, {.reduction = Reduction::mean})};
         throw NotOffered("reduction " + reduction);
       }},
      {"nn.functional.smooth_l1_loss",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         const double beta = s.number(-1, "beta", 1);
         if (beta == 0) throw NotOffered("beta 0");
         return {smooth_l1_loss(pair.x, pair.target, beta, {reduction_of(s)})};
       }},
      {"nn.functional.huber_loss",
       [](Sample& s) -> TensorList {
         const Pair pair(s);
         const double delta = s.number(-1, "delta", 1);
         return {smooth_l1_loss(pair.x, pair.target, delta, {reduction_of(s)}) * delta};
       }},
  };
}

}  // namespace binade::opinfo
