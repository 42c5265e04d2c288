// INTERNAL. Gradients of norms in public ops, for gradients of gradients.
#pragma once

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/reduce.h>

namespace binade::ops {

// y = normalised·weight + bias, normalised = (x − mean(x)) / √(var(x) + eps).
struct NormOnTape {
  Axes statistics;  // that mean and variance run over
  Axes broadcast;   // along which weight and bias have one value
  double eps = 0;
  bool subtract_mean = true;

  // x: what the op normalised, on the tape; `weight` as it broadcasts to x, and its and the bias's
  // places among the op's inputs. dy: the gradient of y.
  void operator()(BackwardOnTape& tape, const Tensor& x, const Tensor& weight, int weight_input,
                  int bias_input, const Tensor& dy) const;
};

}  // namespace binade::ops
