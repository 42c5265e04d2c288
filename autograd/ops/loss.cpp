#include <binade/autograd/ops/loss.h>

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/indexing.h>
#include <binade/autograd/ops/logit_chunks.h>
#include <binade/autograd/ops/loss_checks.h>
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

void check_options(const char* op, const CrossEntropyOptions& options, int64_t columns) {
  check_normaliser(op, options.normaliser);
  check_smoothing(op, options.label_smoothing);
  check(options.classes >= 0 && options.classes <= columns, op, ": there cannot be ",
        options.classes, " classes in logits of ", columns, " columns");
}

kernels::CrossEntropyParams params_of(const CrossEntropyOptions& options) {
  return {options.ignore_index, options.label_smoothing};
}

// What the sum of the losses is divided by, a scalar; undefined: nothing.
Array divisor_of(const CrossEntropyOptions& options, const Array& labels, DType dtype) {
  if (options.normaliser.defined()) return options.normaliser.array().to(dtype).reshape({});
  if (options.reduction == Reduction::mean)
    return count_labels(labels, options.ignore_index, dtype);
  return {};
}

// a / b for scalars; a where there is no b.
Array divided(const Array& a, const Array& b) {
  if (!b.defined()) return a;
  const Array quotient = empty_like(b);
  BINADE_DISPATCH(a.device(), binary(kernels::BinaryOp::div, a, b, quotient));
  return quotient;
}

Array sum_divided(const Array& losses, const Array& divisor) {
  const Array sum = Array::empty({}, losses.dtype(), losses.device());
  BINADE_DISPATCH(sum.device(), reduce(kernels::ReduceOp::sum, losses, sum.view({1}), 0));
  return divided(sum, divisor);
}

struct CrossEntropyGradient {
  Saved logits;  // (N, V) without padding
  Saved labels;  // (N)
  Array logsumexp, divisor;
  kernels::CrossEntropyParams params;
  bool per_row;
  Shape shape;  // of the op's logits

  void operator()(Backward& backward) const {
    const Array& rows = logits.array();
    // Loss scale and normaliser meet in f32: (p − y)/N alone would flush to zero in f16.
    Array dloss = divided(backward.grad(), divisor);
    const Shape row_shape{rows.size(0)};
    dloss = per_row ? dloss.reshape(row_shape) : dloss.expand(row_shape);
    const Array dlogits = Array::empty(shape, rows.dtype(), rows.device());
    const Array drows = rows_to_write(dlogits);
    if (rows.size(1) < drows.size(1)) drows.slice(1, rows.size(1)).zero();
    BINADE_DISPATCH(rows.device(), cross_entropy_backward(rows, labels.array(), logsumexp, dloss,
                                                          params, drows.slice(1, 0, rows.size(1))));
    backward.slot(0).add(dlogits);
  }

  void operator()(BackwardOnTape& tape) const {
    const Array rows = logits.array();
    if (rows.numel() == 0) return tape.give(0, Tensor::zeros(shape, rows.dtype(), rows.device()));
    const Tensor targets(labels.array());
    const Tensor ignored = equal(targets, Tensor::scalar(static_cast<double>(params.ignore_index),
                                                         targets.dtype(), targets.device()));
    // The rows of which `logits` are a part.
    const Tensor x = record("slice", {tape.input(0)}, rows,
                            [shape = shape, width = rows.size(1)](const Tensor& d) -> TensorList {
                              const int64_t added = shape[shape.dims() - 1] - width;
                              return {reshape(pad(d, {0, added}), shape)};
                            });
    const Tensor wide = to(x, statistics_dtype(x.dtype()));
    const Tensor at_label =
        squeeze(gather(wide, 1, unsqueeze(masked_fill(targets, ignored, 0), 1)), 1);
    // The mean weighs every class alike: that is what smoothing mixes in.
    Tensor losses = binade::logsumexp(wide, {1}) - at_label * (1 - params.label_smoothing);
    if (params.label_smoothing != 0) losses = losses - mean(wide, {1}) * params.label_smoothing;
    losses = masked_fill(losses, ignored, 0);
    const Tensor value = per_row ? losses : sum(losses);
    tape.through(divisor.defined() ? value / Tensor(divisor) : value, tape.grad());
  }
};

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options) {
  check_targets("cross_entropy", "logits", logits, targets);
  check_device("cross_entropy", {logits, targets, options.normaliser});
  check_options("cross_entropy", options, logits.size(-1));
  if (options.weight.defined()) return weighted_cross_entropy(logits, targets, options);
  const Device device = logits.device();
  const DType dtype = statistics_dtype(logits.dtype());
  const kernels::CrossEntropyParams params = params_of(options);
  const int64_t classes = options.classes ? options.classes : logits.size(-1);
  const Array rows = as_rows(logits.array()).slice(1, 0, classes);
  const Array labels = targets.array().reshape({rows.size(0)});
  const Array losses = Array::empty({rows.size(0)}, dtype, device);
  const Array logsumexp = empty_like(losses);
  BINADE_DISPATCH(device, cross_entropy(rows, labels, params, losses, logsumexp));

  const bool per_row = options.reduction == Reduction::none && !options.normaliser.defined();
  const Array divisor = divisor_of(options, labels, dtype);
  const Array value = per_row ? losses.view(targets.shape()) : sum_divided(losses, divisor);
  return record("cross_entropy", {logits}, value,
                CrossEntropyGradient{Saved(rows), Saved(labels), logsumexp, divisor, params,
                                     per_row, logits.shape()});
}

namespace {

// The operands of one linear_cross_entropy, and its losses by chunks.
class LinearCrossEntropy {
 public:
  LinearCrossEntropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                     const LinearCrossEntropyOptions& options)
      : weight_(half_operand(weight)),
        params_(params_of(options)),
        classes_(options.classes ? options.classes : weight.size(0)) {
    const Array input = half_operand(x);
    check(input.dtype() == weight_.dtype(), "linear_cross_entropy: x ", Kind{x}, " and weight ",
          Kind{weight},
          " must have one dtype; convert with to(x, dtype) or run under amp::Autocast");
    rows_ = input.reshape({row_count(x.shape()), x.size(-1)});
    labels_ = targets.array().reshape({rows_.size(0)});
    losses_ = Array::empty({rows_.size(0)}, statistics_dtype(weight_.dtype()), weight_.device());
    layout_.rows = rows_.size(0);
    layout_.columns = weight.size(0);
    layout_.operands = weight_.dtype();
    layout_.logits = options.logits_dtype.value_or(LogitChunks::default_logits(weight_.dtype()));
    layout_.device = weight_.device();
    layout_.rows_per_chunk = options.rows_per_chunk;
  }

  const Array& labels() const { return labels_; }
  const Array& losses() const { return losses_; }

  void losses_alone() const {
    const Array logsumexp = empty_like(losses_);
    run(false, {}, [&](int64_t begin, int64_t end, const Array& logits, const Array&) {
      BINADE_DISPATCH(
          logits.device(),
          cross_entropy(logits.slice(1, 0, classes_), labels_.slice(0, begin, end), params_,
                        losses_.slice(0, begin, end), logsumexp.slice(0, begin, end)));
    });
  }

  // Also the gradients of Σ loss · factor: dx (N, D) and dweight (V, D); undefined ones are not
  // wanted.
  void losses_and_gradients(const Array& factor, const Array& dx, const Array& dweight) const {
    LogitChunks::Gradients to;
    to.rows = dx;
    to.weight = dweight;
    run(true, to, [&](int64_t begin, int64_t end, const Array& logits, const Array& dlogits) {
      BINADE_DISPATCH(logits.device(), cross_entropy_with_gradient(
                                           logits, classes_, labels_.slice(0, begin, end), params_,
                                           factor, losses_.slice(0, begin, end), dlogits));
    });
  }

 private:
  template <class Loss>
  void run(bool wanted, const LogitChunks::Gradients& to, const Loss& loss) const {
    LogitChunks::Layout layout = layout_;
    layout.gradients = wanted;
    LogitChunks("linear_cross_entropy", layout).run(rows_, weight_, wanted, to, loss);
  }

  Array weight_, rows_, labels_, losses_;
  LogitChunks::Layout layout_;
  kernels::CrossEntropyParams params_;
  int64_t classes_;
};

void check_linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                                const LinearCrossEntropyOptions& options) {
  const char* op = "linear_cross_entropy";
  check_targets(op, "x", x, targets);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, targets, options.normaliser});
  check(weight.dims() == 2 && weight.size(0) > 0 && weight.size(1) == x.size(-1), op,
        ": x must be (…, D) and weight (V, D), got x ", Kind{x}, " and weight ", Kind{weight},
        "; the weight is stored with the classes first");
  check_options(op, options, weight.size(0));
  check(
      !options.weight.defined(), op,
      ": there are no class weights here; use cross_entropy(linear(x, weight), targets, options)");
  check(options.reduction != Reduction::none || options.normaliser.defined(), op,
        ": a loss for every row (Reduction::none) would need their gradients kept apart; use "
        "cross_entropy(linear(x, weight), targets, options)");
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tensor& targets,
                            const LinearCrossEntropyOptions& options) {
  check_linear_cross_entropy(x, weight, targets, options);
  const LinearCrossEntropy chunks(x, weight, targets, options);
  const DType dtype = chunks.losses().dtype();
  const Array divisor = divisor_of(options, chunks.labels(), dtype);
  if (!will_record({x, weight})) {
    chunks.losses_alone();
    return record("linear_cross_entropy", {x, weight}, sum_divided(chunks.losses(), divisor),
                  FusedBackward());
  }

  // With a loss scale S the gradients are stored as those of S · loss, which backward is about to
  // ask for: it multiplies by dloss / S, 1 as a rule. Without one they are those of the sum of the
  // losses, as no half number is lost from softmax − target alone.
  Array factor, seed = divisor;  // seed: what dloss is divided by
  if (const Array* scale = current_loss_scale()) {
    check(scale->device() == x.device(), "linear_cross_entropy: x ", Kind{x},
          " and the loss scale of amp::Autocast on ", scale->device(),
          " live on different devices");
    seed = Array::empty({}, dtype, x.device());  // a copy: the scale may move before backward
    BINADE_DISPATCH(x.device(), copy(scale->reshape({}), seed));
    factor = divided(seed, divisor);
  }
  Array dx, dweight;
  if (x.requires_grad()) dx = Array::empty(x.shape(), x.dtype(), x.device());
  if (weight.requires_grad()) dweight = Array::empty(weight.shape(), dtype, weight.device());
  chunks.losses_and_gradients(factor, rows_to_write(dx), dweight);

  const auto fused = [dx, dweight, seed](Backward& backward) {
    const Array factor = divided(backward.grad(), seed);
    if (backward.needed(0) && !backward.retained()) {
      BINADE_DISPATCH(dx.device(), scale(dx, factor, dx, 0));
      backward.slot(0).add(dx);
    } else if (const auto to = backward.slot(0).open()) {
      BINADE_DISPATCH(dx.device(), scale(dx, factor, to.array, to.beta));
    }
    if (const auto to = backward.slot(1).open())
      BINADE_DISPATCH(dweight.device(), scale(dweight, factor, to.array, to.beta));
  };
  return record(
      "linear_cross_entropy", {x, weight}, sum_divided(chunks.losses(), divisor),
      OnceDifferentiable{fused, "use cross_entropy(linear(x, weight), targets, options)"});
}

}  // namespace binade
