// Losses written in public ops, from loss.h, and what class weights make of the others.
#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/loss.h>
#include <binade/autograd/ops/loss_checks.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

// Operands in f32 (f64).
Tensor widened(const Tensor& x) {
  return to(x, statistics_dtype(x.dtype()));
}

void check_pair(const char* op, const char* what, const Tensor& x, const Tensor& target,
                const Tensor& normaliser) {
  check_floating(op, what, x);
  check_floating(op, "target", target);
  check_device(op, {x, target, normaliser});
  check_same_shape(op, x, target);
  check_normaliser(op, normaliser);
}

Tensor over_normaliser(const Tensor& losses, const Tensor& normaliser) {
  return sum(losses) / reshape(to(normaliser, losses.dtype()), {});
}

Tensor reduced(const Tensor& losses, const LossOptions& options) {
  if (options.normaliser.defined()) return over_normaliser(losses, options.normaliser);
  switch (options.reduction) {
    case Reduction::mean:
      return mean(losses);
    case Reduction::sum:
      return sum(losses);
    default:
      return losses;
  }
}

struct TotalDistanceGradient {
  Saved x, target;

  void operator()(Backward& backward) const {
    const Array a = x.array(), b = target.array();
    const auto wanted = [&](int input) {
      return backward.needed(input) ? Array::empty(a.shape(), a.dtype(), a.device()) : Array();
    };
    const Array da = wanted(0), db = wanted(1);
    const Array dy = backward.grad().to(a.dtype()).expand(a.shape());
    BINADE_DISPATCH(a.device(), binary_backward(kernels::BinaryOp::distance, a, b, dy, da, db));
    if (da.defined()) backward.slot(0).add(da);
    if (db.defined()) backward.slot(1).add(db);
  }
  void operator()(BackwardOnTape& tape) const {
    const Tensor a = tape.input(0, x.array()), b = tape.input(1, target.array());
    tape.through(sum(abs(widened(a) - widened(b))), tape.grad());
  }
};

// Σ |x − target| in f32 (f64), of one dtype.
Tensor total_distance(const Tensor& x, const Tensor& target) {
  const Array y = Array::empty(Shape::filled(x.dims(), 1), statistics_dtype(x.dtype()), x.device());
  BINADE_DISPATCH(y.device(),
                  reduce_pairs(kernels::PairOp::distance, x.array(), target.array(), y));
  return record("l1_loss", {x, target}, y.view({}), TotalDistanceGradient{Saved(x), Saved(target)});
}

void check_class_weight(const char* op, const Tensor& weight, const Tensor& like, int64_t classes) {
  if (!weight.defined()) return;
  check_floating(op, "weight", weight);
  check_device(op, {like, weight});
  check_constant(op, "weight", weight);
  check(weight.shape() == Shape{classes}, op, ": weight must be (", classes,
        "), a number a class, ", "got ", Kind{weight});
}

// Targets, of which some do not count, and what each row weighs.
struct WeightedRows {
  Tensor labels;   // 0 where ignored
  Tensor ignored;  // bool
  Tensor weights;  // 0 where ignored

  // `weight` (classes) may be undefined: 1.
  WeightedRows(const Tensor& targets, int64_t ignore_index, const Tensor& weight, DType dtype)
      : ignored(equal(targets, Tensor::scalar(static_cast<double>(ignore_index), targets.dtype(),
                                              targets.device()))) {
    labels = masked_fill(targets, ignored, 0);
    if (weight.defined()) {
      const Tensor each = index_select(to(weight, dtype), 0, reshape(labels, {labels.numel()}));
      weights = masked_fill(reshape(each, targets.shape()), ignored, 0);
    } else {
      weights = to(logical_not(ignored), dtype);
    }
  }

  Tensor reduced(const Tensor& losses, Reduction reduction, const Tensor& normaliser) const {
    if (normaliser.defined()) return over_normaliser(losses, normaliser);
    if (reduction == Reduction::none) return losses;
    const Tensor total = sum(losses);
    if (reduction == Reduction::sum) return total;
    const Tensor weight = sum(weights);  // 0 only where nothing counts: 0/0 is 0
    return total / masked_fill(weight,
                               equal(weight, Tensor::scalar(0, weight.dtype(), weight.device())),
                               1);
  }
};

}  // namespace

namespace ops {

void check_targets(const char* op, const char* what, const Tensor& x, const Tensor& targets) {
  check_floating(op, what, x);
  check_index(op, "targets", targets);
  check(x.dims() == targets.dims() + 1 &&
            Shape(x.shape().span().first(static_cast<size_t>(targets.dims()))) == targets.shape(),
        op, ": ", what,
        " must have one dimension more than the targets and start with theirs, got ", what, ' ',
        Kind{x}, " and targets ", Kind{targets});
}

void check_normaliser(const char* op, const Tensor& normaliser) {
  check_constant(op, "normaliser", normaliser);
  check(!normaliser.defined() || (is_floating(normaliser.dtype()) && normaliser.numel() == 1), op,
        ": normaliser must be one f32 number, got ", Kind{normaliser});
}

void check_smoothing(const char* op, double label_smoothing) {
  check(label_smoothing >= 0 && label_smoothing < 1, op,
        ": label_smoothing must be in [0, 1), got ", label_smoothing);
}

Tensor weighted_cross_entropy(const Tensor& logits, const Tensor& targets,
                              const CrossEntropyOptions& options) {
  const int64_t classes = options.classes ? options.classes : logits.size(-1);
  check_class_weight("cross_entropy", options.weight, logits, classes);
  const DType dtype = statistics_dtype(logits.dtype());
  const WeightedRows rows(targets, options.ignore_index, options.weight, dtype);
  // The fused op makes a row's loss; a weight is one number more a row.
  CrossEntropyOptions plain;
  plain.ignore_index = options.ignore_index;
  plain.classes = options.classes;
  plain.reduction = Reduction::none;
  Tensor losses = cross_entropy(logits, targets, plain) * rows.weights;
  if (options.label_smoothing != 0) {
    // Smoothing gives every class ε/V of its own weighted loss: Σ w·(logsumexp − x).
    const Tensor x = to(slice(logits, -1, 0, classes), dtype), weight = to(options.weight, dtype);
    const Tensor of_all = sum(weight) * logsumexp(x, {-1}) - sum(x * weight, {-1});
    const double share = options.label_smoothing / static_cast<double>(classes);
    losses = losses * (1 - options.label_smoothing) + masked_fill(of_all * share, rows.ignored, 0);
  }
  return rows.reduced(losses, options.reduction, options.normaliser);
}

}  // namespace ops

Tensor nll_loss(const Tensor& log_probabilities, const Tensor& targets, const NllOptions& options) {
  const char* op = "nll_loss";
  check_targets(op, "log_probabilities", log_probabilities, targets);
  check_device(op, {log_probabilities, targets, options.normaliser});
  check_normaliser(op, options.normaliser);
  check_class_weight(op, options.weight, log_probabilities, log_probabilities.size(-1));
  const DType dtype = statistics_dtype(log_probabilities.dtype());
  const WeightedRows rows(targets, options.ignore_index, options.weight, dtype);
  const Tensor at_target = squeeze(gather(log_probabilities, -1, unsqueeze(rows.labels, -1)), -1);
  // An ignored row may be infinite: it is masked, not multiplied by 0.
  const Tensor losses = masked_fill(-to(at_target, dtype), rows.ignored, 0) * rows.weights;
  return rows.reduced(losses, options.reduction, options.normaliser);
}

Tensor cross_entropy_soft(const Tensor& logits, const Tensor& probabilities,
                          const SoftTargetOptions& options) {
  const char* op = "cross_entropy_soft";
  check_pair(op, "logits", logits, probabilities, options.normaliser);
  check(logits.dims() >= 1, op, ": logits must be (…, V), got ", Kind{logits});
  check_smoothing(op, options.label_smoothing);
  const int64_t classes = logits.size(-1);
  check_class_weight(op, options.weight, logits, classes);
  Tensor target = widened(probabilities);
  if (options.label_smoothing != 0)
    target = target * (1 - options.label_smoothing) +
             options.label_smoothing / static_cast<double>(classes);
  if (options.weight.defined()) target = target * to(options.weight, target.dtype());
  return reduced(-sum(target * log_softmax(widened(logits)), {-1}),
                 {options.reduction, options.normaliser});
}

Tensor l1_loss(const Tensor& x_in, const Tensor& target_in, const LossOptions& options) {
  check_pair("l1_loss", "x", x_in, target_in, options.normaliser);
  const bool apart = options.reduction == Reduction::none && !options.normaliser.defined();
  if (apart || x_in.numel() == 0) return reduced(abs(widened(x_in) - widened(target_in)), options);
  Tensor x = x_in, target = target_in;
  autocast_widest(x, target);
  const Tensor total = total_distance(x, target);
  if (options.normaliser.defined())
    return total / reshape(to(options.normaliser, total.dtype()), {});
  return options.reduction == Reduction::sum ? total : total / static_cast<double>(x.numel());
}

Tensor mse_loss(const Tensor& x, const Tensor& target, const LossOptions& options) {
  check_pair("mse_loss", "x", x, target, options.normaliser);
  return reduced(square(widened(x) - widened(target)), options);
}

Tensor bce_with_logits_loss(const Tensor& x_in, const Tensor& target_in,
                            const BceOptions& options) {
  const char* op = "bce_with_logits_loss";
  check_pair(op, "x", x_in, target_in, options.normaliser);
  const Tensor x = widened(x_in), target = widened(target_in);
  const auto weight = [&](const char* name, const Tensor& given) {
    check_floating(op, name, given);
    check_device(op, {x_in, given});
    check_constant(op, name, given);
    const int added = x.dims() - given.dims();
    bool fits = added >= 0;
    for (int d = 0; fits && d < given.dims(); ++d)
      fits = given.size(d) == 1 || given.size(d) == x.size(added + d);
    check(fits, op, ": ", name, " must broadcast to x ", Kind{x}, ", got ", Kind{given});
    return to(given, x.dtype());
  };
  // −t·log σ(x) − (1 − t)·log(1 − σ(x)); both logarithms keep their tails as softplus.
  Tensor wanted = target * softplus(-x);
  if (options.pos_weight.defined()) wanted = wanted * weight("pos_weight", options.pos_weight);
  Tensor losses = wanted + (1 - target) * softplus(x);
  if (options.weight.defined()) losses = losses * weight("weight", options.weight);
  return reduced(losses, {options.reduction, options.normaliser});
}

Tensor kl_div_loss(const Tensor& log_input, const Tensor& target_in, const LossOptions& options) {
  check_pair("kl_div_loss", "log_input", log_input, target_in, options.normaliser);
  check(log_input.dims() >= 1, "kl_div_loss: log_input must be (…, V), got ", Kind{log_input});
  const Tensor target = widened(target_in);
  // 0·log 0 is 0; what is no probability (below 0, NaN) gives NaN.
  const Tensor zero = Tensor::scalar(0, target.dtype(), target.device());
  const Tensor one = Tensor::scalar(1, target.dtype(), target.device());
  const Tensor positive = where(equal(target, zero), one, target);
  return reduced(sum(target * (log(positive) - widened(log_input)), {-1}), options);
}

Tensor smooth_l1_loss(const Tensor& x, const Tensor& target, double beta,
                      const LossOptions& options) {
  check_pair("smooth_l1_loss", "x", x, target, options.normaliser);
  check(beta > 0, "smooth_l1_loss: beta must be above 0, got ", beta);
  const Tensor difference = widened(x) - widened(target);
  // Clamped on both sides rather than as a distance, whose slope at 0 would hide the parabola's
  // curvature 1/β from second derivatives.
  const Tensor inside = clamp(difference, -beta, beta);
  return reduced(square(inside) * (0.5 / beta) + (abs(difference) - abs(inside)), options);
}

}  // namespace binade
