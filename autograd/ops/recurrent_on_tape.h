// INTERNAL. GRU and LSTM step by step on the tape, for gradients of gradients.
#pragma once

#include <binade/autograd/on_tape.h>

namespace binade::ops {

// What the steps of a forward pass kept (core/kernels/recurrent.h), each as a function of the
// step's input, of weight and bias and of the state before it. Values are known, so no matmul of
// the forward pass runs again. All in f32 (f64).
class StepsOnTape {
 public:
  // From what a step kept (B, 4H) and the gradient of that: the gradients of its input and of the
  // state's part of it, W·h + b, (B, G·H) each.
  using Gradients = std::pair<Tensor, Tensor> (*)(const Tensor& kept, const Tensor& dkept);

  // The op's first inputs are x (B, T, G·H), weight (G·H, H) and bias (G·H). kept (T, B, 4H).
  StepsOnTape(const BackwardOnTape& tape, const Array& weight, const Array& kept,
              Gradients gradients);

  int64_t count() const { return kept_.size(0); }
  DType dtype() const { return kept_.dtype(); }
  // What step t kept, for the state (B, H) before it.
  Tensor kept(int64_t t, const Tensor& state) const;

 private:
  const char* op_;
  Array kept_;
  Gradients gradients_;
  TensorList x_;  // of each step; undefined where x has no gradient
  Tensor weight_, bias_;
};

// Part i of H columns.
Tensor part_of(const Tensor& x, int64_t i, int64_t width);

}  // namespace binade::ops
