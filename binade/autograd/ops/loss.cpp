#include <binade/autograd/ops/loss.h>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

// How many labels are not ignored, at least 1, as a scalar on the device.
Array count_labels(const Array& labels, int64_t ignore_index, DType dtype) {
  const Device device = labels.device();
  const Array ignored = Array::full({}, static_cast<double>(ignore_index), labels.dtype(), device);
  const Array valid = Array::empty(labels.shape(), DType::boolean, device);
  BINADE_DISPATCH(device,
                  compare(kernels::CompareOp::ne, labels, ignored.expand(labels.shape()), valid));
  const Array total = Array::empty({1}, DType::i64, device);
  BINADE_DISPATCH(device, reduce(kernels::ReduceOp::sum, valid, total, 0));
  const Array count = total.to(dtype).view({});
  BINADE_DISPATCH(device, binary_scalar(kernels::BinaryOp::maximum, count, 1, false, count));
  return count;
}

void check_cross_entropy(const Tensor& logits, const Tensor& targets,
                         const CrossEntropyOptions& options) {
  const char* op = "cross_entropy";
  check_floating(op, "logits", logits);
  check_index(op, "targets", targets);
  check_device(op, {logits, targets, options.normaliser});
  check_constant(op, "normaliser", options.normaliser);
  check(logits.dims() == targets.dims() + 1 &&
            Shape(logits.shape().span().first(static_cast<size_t>(targets.dims()))) ==
                targets.shape(),
        op, ": logits must be (…, V) and targets (…), got logits ", Kind{logits}, " and targets ",
        Kind{targets});
  check(options.label_smoothing >= 0 && options.label_smoothing < 1, op,
        ": label_smoothing must be in [0, 1), got ", options.label_smoothing);
  check(!options.normaliser.defined() ||
            (is_floating(options.normaliser.dtype()) && options.normaliser.numel() == 1),
        op, ": normaliser must be one f32 number, got ", Kind{options.normaliser});
  check(options.classes >= 0 && options.classes <= logits.size(-1), op, ": there cannot be ",
        options.classes, " classes in logits ", Kind{logits});
}

// Operands of the losses that are written in public ops, in f32 (f64).
Tensor widened(const Tensor& x) {
  return to(x, statistics_dtype(x.dtype()));
}

void check_pair(const char* op, const char* what, const Tensor& x, const Tensor& target) {
  check_floating(op, what, x);
  check_floating(op, "target", target);
  check_device(op, {x, target});
  check_same_shape(op, x, target);
}

Tensor reduced(const Tensor& losses, Reduction reduction) {
  switch (reduction) {
    case Reduction::mean:
      return mean(losses);
    case Reduction::sum:
      return sum(losses);
    default:
      return losses;
  }
}

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options) {
  check_cross_entropy(logits, targets, options);
  const Device device = logits.device();
  const DType dtype = statistics_dtype(logits.dtype());
  const kernels::CrossEntropyParams params{options.ignore_index,
                                           static_cast<float>(options.label_smoothing)};
  const int64_t classes = options.classes ? options.classes : logits.size(-1);
  const Array rows = as_rows(logits.array()).slice(1, 0, classes);
  const Array labels = targets.array().reshape({rows.size(0)});
  const Array losses = Array::empty({rows.size(0)}, dtype, device);
  const Array logsumexp = empty_like(losses);
  BINADE_DISPATCH(device, cross_entropy(rows, labels, params, losses, logsumexp));

  const bool per_row = options.reduction == Reduction::none && !options.normaliser.defined();
  Array divisor;  // what the sum is divided by; undefined: nothing
  if (options.normaliser.defined())
    divisor = options.normaliser.array().to(dtype).reshape({});
  else if (options.reduction == Reduction::mean)
    divisor = count_labels(labels, options.ignore_index, dtype);
  Array value = losses.view(targets.shape());
  if (!per_row) {
    value = Array::empty({}, dtype, device);
    BINADE_DISPATCH(device, reduce(kernels::ReduceOp::sum, losses, value.view({1}), 0));
    if (divisor.defined())
      BINADE_DISPATCH(device, binary(kernels::BinaryOp::div, value, divisor, value));
  }
  return record("cross_entropy", {logits}, value,
                [logits = Saved(rows), labels = Saved(labels), logsumexp, divisor, params, per_row,
                 shape = logits.shape()](Backward& backward) {
                  const Array& rows = logits.array();
                  // Loss scale and normaliser meet in f32: (p − y)/N alone would flush to zero in
                  // f16.
                  Array dloss = backward.grad();
                  if (divisor.defined()) {
                    dloss = empty_like(divisor);
                    BINADE_DISPATCH(rows.device(), binary(kernels::BinaryOp::div, backward.grad(),
                                                          divisor, dloss));
                  }
                  const Shape row_shape{rows.size(0)};
                  dloss = per_row ? dloss.reshape(row_shape) : dloss.expand(row_shape);
                  const Array dlogits = Array::empty(shape, rows.dtype(), rows.device());
                  const Array drows = rows_to_write(dlogits);
                  if (rows.size(1) < drows.size(1)) drows.slice(1, rows.size(1)).zero();
                  BINADE_DISPATCH(rows.device(),
                                  cross_entropy_backward(rows, labels.array(), logsumexp, dloss,
                                                         params, drows.slice(1, 0, rows.size(1))));
                  backward.slot(0).add(dlogits);
                });
}

Tensor cross_entropy_soft(const Tensor& logits, const Tensor& probabilities, Reduction reduction) {
  check_pair("cross_entropy_soft", "logits", logits, probabilities);
  check(logits.dims() >= 1, "cross_entropy_soft: logits must be (…, V), got ", Kind{logits});
  return reduced(-sum(widened(probabilities) * log_softmax(widened(logits)), {-1}), reduction);
}

Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  check_pair("mse_loss", "x", x, target);
  return reduced(square(widened(x) - widened(target)), reduction);
}

Tensor bce_with_logits_loss(const Tensor& x_in, const Tensor& target_in, Reduction reduction) {
  check_pair("bce_with_logits_loss", "x", x_in, target_in);
  const Tensor x = widened(x_in), target = widened(target_in);
  // −t·log σ(x) − (1 − t)·log(1 − σ(x)); both logarithms keep their tails as softplus.
  return reduced(target * softplus(-x) + (1 - target) * softplus(x), reduction);
}

Tensor kl_div_loss(const Tensor& log_input, const Tensor& target_in, Reduction reduction) {
  check_pair("kl_div_loss", "log_input", log_input, target_in);
  check(log_input.dims() >= 1, "kl_div_loss: log_input must be (…, V), got ", Kind{log_input});
  const Tensor target = widened(target_in);
  // 0·log 0 is 0.
  const Tensor zero = Tensor::scalar(0, target.dtype(), target.device());
  const Tensor one = Tensor::scalar(1, target.dtype(), target.device());
  const Tensor positive = where(greater(target, zero), target, one);
  return reduced(sum(target * (log(positive) - widened(log_input)), {-1}), reduction);
}

Tensor smooth_l1_loss(const Tensor& x, const Tensor& target, double beta, Reduction reduction) {
  check_pair("smooth_l1_loss", "x", x, target);
  check(beta > 0, "smooth_l1_loss: beta must be above 0, got ", beta);
  const Tensor distance = abs(widened(x) - widened(target));
  const Tensor inside = clamp(distance, 0, beta);
  return reduced(square(inside) * (0.5 / beta) + (distance - inside), reduction);
}

}  // namespace binade
