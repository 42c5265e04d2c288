#include <binade/autograd/ops/norm.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/norm_on_tape.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/norm.h>

namespace binade {

using namespace ops;

namespace {

// The weight that an undefined one stands for.
Tensor given_or_ones(const char* op, const Tensor& weight, const Tensor& x) {
  check_floating(op, "x", x);
  check(x.dims() >= 1, op, ": x must be (…, D), got ", Kind{x});
  if (weight.defined()) return weight;
  return Tensor(Array::full({x.size(-1)}, 1, statistics_dtype(x.dtype()), x.device()));
}

void check_norm(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, bias});
  check(x.dims() >= 1 && weight.shape() == Shape{x.size(-1)}, op,
        ": weight must be (D) for x (…, D)", ", got x ", Kind{x}, " and weight ", Kind{weight});
  check(!bias.defined() || (is_floating(bias.dtype()) && bias.shape() == weight.shape()), op,
        ": bias must have the weight's shape, got weight ", Kind{weight}, " and bias ", Kind{bias});
}

// What both norms keep for backward; `mean` is undefined for RMS norm.
struct SavedNorm {
  Saved x;  // (N, D): what was normalised
  Saved weight;
  Array mean, rstd;  // (N)
  double eps;

  SavedNorm(const Array& x, const Tensor& weight, Array mean, Array rstd, double eps)
      : x(x), weight(weight.array()), mean(std::move(mean)), rstd(std::move(rstd)), eps(eps) {}

  // dx = dx_beta·dx + …; gradients that are undefined are not computed, nor are the sums of dx.
  void backward(const Array& dy, const Array& dx, float dx_beta, const GradSlot::Destination& dw,
                const GradSlot::Destination& db, const Array& dx_sums = {}) const {
    const Array rows = as_rows(dy);
    if (mean.defined())
      BINADE_DISPATCH(dy.device(), layer_norm_backward(rows, x.array(), weight.array(), mean, rstd,
                                                       rows_to_write(dx), dx_beta, dw.array,
                                                       dw.beta, db.array, db.beta, dx_sums));
    else
      BINADE_DISPATCH(dy.device(),
                      rms_norm_backward(rows, x.array(), weight.array(), rstd, rows_to_write(dx),
                                        dx_beta, dw.array, dw.beta));
  }

  // In public ops: `rows` is x on the tape, the weight is input number `weight_input`, and the bias
  // of a layer norm the next.
  void backward(BackwardOnTape& tape, const Tensor& rows, int weight_input,
                const Tensor& dy) const {
    const NormOnTape norm{{-1}, {0}, eps, mean.defined()};
    norm(tape, rows, tape.input(weight_input, weight.array()), weight_input, weight_input + 1, dy);
  }
};

// Of layer norm and RMS norm, recorded on x, weight and, for the first, bias.
struct NormGradient {
  SavedNorm saved;

  void operator()(Backward& backward) const {
    const auto dx = backward.slot(0).open();
    const auto dw = backward.slot(1).open();
    saved.backward(backward.grad(), dx.array, dx.beta, dw,
                   saved.mean.defined() ? backward.slot(2).open() : GradSlot::Destination());
  }
  void operator()(BackwardOnTape& tape) const {
    saved.backward(tape, tape.input(0, saved.x.array()), 1, tape.grad());
  }
};

// The gradient itself if nobody else can see it, so that it may be written over; otherwise a copy.
Array owned(const Array& gradient) {
  return gradient.is_unshared() && gradient.is_contiguous() ? gradient : gradient.clone();
}

Array row_statistic(const Array& rows) {
  return Array::empty({rows.size(0)}, statistics_dtype(rows.dtype()), rows.device());
}

// Under Recompute::norms, says how y, the norm of `rows`, is recomputed: by the same kernel, so to
// the same bits.
void offer_recipe(const Tensor& y, const Array& rows, const Tensor& weight, const Tensor& bias,
                  double eps, bool subtract_mean) {
  if (!recomputes(Recompute::norms) || !y.requires_grad()) return;
  attach_recipe(
      y,
      [rows = Saved(rows), weight = Saved(weight.array()), bias = Saved(array_of(bias)), eps,
       subtract_mean, shape = y.shape()]() -> Array {
        const Array x = rows.array();
        const Array again = Array::empty(shape, x.dtype(), x.device());
        const Array rstd = row_statistic(x);
        if (subtract_mean)
          BINADE_DISPATCH(x.device(), layer_norm(x, weight.array(), bias.array(), eps,
                                                 rows_to_write(again), row_statistic(x), rstd));
        else
          BINADE_DISPATCH(x.device(), rms_norm(x, weight.array(), eps, rows_to_write(again), rstd));
        return again;
      });
}

// Of the two ops that add first, recorded on x, residual, weight and, for layer norm, bias.
struct AddNormGradient {
  SavedNorm saved;

  void operator()(Backward& backward) const {
    // x and residual share one gradient: dsum + the norm's.
    const Array& dsum = backward.grad(0);
    const Array& dy = backward.grad(1);
    const bool needed = backward.needed(0) || backward.needed(1);
    Array total, sums;
    if (!dy.defined()) {
      total = dsum;
    } else {
      if (needed) total = dsum.defined() ? owned(dsum) : empty_like(dy);
      if (saved.mean.defined() && backward.slot(0).wants_column_sums())
        sums = Array::empty({dy.size(-1)}, statistics_dtype(dy.dtype()), dy.device());
      saved.backward(dy, total, dsum.defined() ? 1.0f : 0.0f, backward.slot(2).open(),
                     backward.slot(3).open(), sums);
    }
    if (backward.needed(0)) backward.slot(0).add(total, sums);
    if (backward.needed(1)) backward.slot(1).add(total);
  }

  void operator()(BackwardOnTape& tape) const {
    const Tensor &dsum = tape.grad(0), &dy = tape.grad(1);
    for (const int input : {0, 1}) tape.give(input, dsum);
    if (!dy.defined()) return;
    const Tensor sum = record("add", {tape.input(0), tape.input(1)},
                              saved.x.array().view(dy.shape()), [](const Tensor& d) -> TensorList {
                                return {d, d};
                              });
    saved.backward(tape, reshape(sum, saved.x.array().shape()), 2, dy);
  }
};

std::pair<Tensor, Tensor> add_norm_with(const char* op, const Tensor& x_in,
                                        const Tensor& residual_in, const Tensor& weight_in,
                                        const Tensor& bias, double eps, bool subtract_mean) {
  const Tensor weight = given_or_ones(op, weight_in, x_in);
  check_norm(op, x_in, weight, bias);
  check_floating(op, "residual", residual_in);
  check_device(op, {x_in, residual_in});
  check_same_shape(op, x_in, residual_in);
  Tensor x = x_in, residual = residual_in;
  autocast_widest(x, residual);
  const Array sum = Array::empty(x.shape(), x.dtype(), x.device());
  const Array y = empty_like(sum);
  const Array rows = rows_to_write(sum);
  const Array mean = subtract_mean ? row_statistic(rows) : Array();
  const Array rstd = row_statistic(rows);
  BINADE_DISPATCH(sum.device(),
                  add_norm(as_rows(x.array()), as_rows(residual.array()), weight.array(),
                           array_of(bias), eps, rows, rows_to_write(y), mean, rstd));
  const TensorList outputs = record(op, TensorList{x, residual, weight, bias}, {sum, y},
                                    AddNormGradient{{rows, weight, mean, rstd, eps}});
  offer_recipe(outputs[1], rows, weight, bias, eps, subtract_mean);
  return {outputs[0], outputs[1]};
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& weight_in, const Tensor& bias, double eps) {
  const Tensor weight = given_or_ones("layer_norm", weight_in, x);
  check_norm("layer_norm", x, weight, bias);
  const Array rows = as_rows(x.array());
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  const Array mean = row_statistic(rows), rstd = row_statistic(rows);
  BINADE_DISPATCH(x.device(), layer_norm(rows, weight.array(), array_of(bias), eps,
                                         rows_to_write(y), mean, rstd));
  const Tensor result =
      record("layer_norm", {x, weight, bias}, y, NormGradient{{rows, weight, mean, rstd, eps}});
  offer_recipe(result, rows, weight, bias, eps, true);
  return result;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight_in, double eps) {
  const Tensor weight = given_or_ones("rms_norm", weight_in, x);
  check_norm("rms_norm", x, weight, {});
  const Array rows = as_rows(x.array());
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  const Array rstd = row_statistic(rows);
  BINADE_DISPATCH(x.device(), rms_norm(rows, weight.array(), eps, rows_to_write(y), rstd));
  const Tensor result =
      record("rms_norm", {x, weight}, y, NormGradient{{rows, weight, Array(), rstd, eps}});
  offer_recipe(result, rows, weight, {}, eps, false);
  return result;
}

std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& residual,
                                         const Tensor& weight, const Tensor& bias, double eps) {
  return add_norm_with("add_layer_norm", x, residual, weight, bias, eps, true);
}

std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual,
                                       const Tensor& weight, double eps) {
  return add_norm_with("add_rms_norm", x, residual, weight, {}, eps, false);
}

}  // namespace binade
