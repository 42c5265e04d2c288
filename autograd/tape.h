// The tape, for those who write ops. An op computes its value and calls record(); what backward
// needs is captured by the function it passes. Two styles:
//
//   // fused: writes into the slots it is given
//   return record("rms_norm", {x, weight}, y, [x = Saved(x), ...](Backward& backward) {
//     if (auto dx = backward.slot(0).open()) kernel(..., dx.array, dx.beta);
//   });
//
//   // in public ops: differentiable again
//   return record("mul", {a, b}, y, [a = Saved(a), b = Saved(b)](const Tensor& dy) -> TensorList {
//     return {sum_to(dy * b.tensor(), a.shape()), sum_to(dy * a.tensor(), b.shape())};
//   });
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

// What users of the tape need comes with it.
#include <binade/autograd/anomaly.h>
#include <binade/autograd/custom_function.h>
#include <binade/autograd/observer.h>
#include <binade/autograd/recompute.h>
#include <binade/autograd/tensor.h>

namespace binade {

class BackwardWalk;
class GradLoan;

// A value kept for backward. Reading it after somebody changed it in place throws Error.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  explicit Saved(Array array);  // an op's output or a statistic: off the tape, so no cycle
  // Keeps how the tensor is recomputed where it has a recipe (recompute.h), otherwise its value.
  // For fused backward functions: tensor() is then off the tape.
  static Saved recomputed(const Tensor& tensor);
  bool defined() const { return array_.defined() || recipe_; }
  Array array() const;    // throws if modified since; with a recipe, recomputed by every call
  Tensor tensor() const;  // on the tape, if it was saved from a Tensor

 private:
  Array array_;
  std::shared_ptr<TensorState> state_;
  std::shared_ptr<const Recipe> recipe_;
  uint64_t version_ = 0;
};

// A gradient in the making: where one input's gradient goes and whether to add to it.
class GradSlot {
 public:
  struct Destination {
    Array array;     // undefined when the gradient is not needed
    float beta = 0;  // 0: overwrite, 1: add to what is there
    explicit operator bool() const { return array.defined(); }
  };
  bool needed() const { return pending_ != nullptr; }
  // Where to write beta·array + gradient; the array has the input's shape and dtype, contiguous
  // unless it was bound otherwise. Must be written by the caller.
  Destination open();
  // Gives a gradient computed elsewhere (input's shape and dtype): taken without a copy when it is
  // the first. `column_sums` (D) of a gradient (…, D), f32 or f64, may go with it.
  void add(const Array& gradient, const Array& column_sums = {});
  // Takes what the op's forward pass wrote into the leaf's buffer (grad_loan.h) for the gradient;
  // false if the values had to move out of it, or belong elsewhere in this walk: then open().
  bool accept(const std::shared_ptr<GradLoan>& loan);
  // Whether the op that gets this gradient has a use for its column sums: see want_column_sums().
  bool wants_column_sums() const;
  // Gives a gradient that is 0 where the input, ReLU's output, is 0 or below, and the column sums
  // of that; where wants_relu_gradient().
  void add_through_relu(const Array& gradient, const Array& column_sums = {});
  // Whether the op that gets this gradient would put it through ReLU: see want_relu_gradient().
  bool wants_relu_gradient() const;

 private:
  friend class Backward;
  friend class BackwardWalk;
  struct Pending* pending_ = nullptr;
};

// What a fused backward function gets.
class Backward {
 public:
  // Gradient of output i; undefined if nothing reached it (outputs of ops with several).
  const Array& grad(int output = 0) const { return of(output).gradient; }
  GradSlot& slot(int input) { return slots_[static_cast<size_t>(input)]; }
  bool needed(int input) const { return slots_[static_cast<size_t>(input)].needed(); }
  // The column sums (D) of grad(output) (…, D), if it came with them; otherwise undefined.
  const Array& column_sums(int output = 0) const { return of(output).column_sums; }
  // Whether grad(output), and its column sums, are through ReLU already: see want_relu_gradient().
  bool through_relu(int output = 0) const { return of(output).through_relu; }
  // Whether backward may run again (retain_graph): what was saved must stay as it is.
  bool retained() const { return retained_; }

 private:
  friend class BackwardWalk;
  struct Output {
    Array gradient, column_sums;
    bool through_relu;
  };
  const Output& of(int output) const { return outputs_[static_cast<size_t>(output)]; }

  std::vector<Output> outputs_;
  std::vector<GradSlot> slots_;
  bool retained_ = false;
  BackwardWalk* walk_ = nullptr;
  uint64_t sequence_ = 0;  // of the node
};

using FusedBackward = std::function<void(Backward&)>;
// Gradients of the inputs, in order; undefined ones for inputs that need none.
using OpsBackward = std::function<TensorList(const Tensor& dy)>;
using MultiOpsBackward = std::function<TensorList(const TensorList& dys)>;

// The tensor around `value`, recorded on the tape if grad mode is on and an input requires a
// gradient. Undefined inputs are allowed. `name` is a string literal: the op's name in errors.
Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              FusedBackward backward);
Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              OpsBackward backward);
// Ops with a list of inputs, or with several outputs.
TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  FusedBackward backward);
TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  MultiOpsBackward backward);
// A result that has no gradient (comparisons, argmax): not recorded, but observed.
Tensor record_constant(const char* name, std::initializer_list<Tensor> inputs, Array value);

// Asks whoever computes the gradient of `result`, a fresh op's only output, for its column sums,
// too. A linear layer does that for its bias: the norm that follows it has the numbers at hand, and
// the layer need not read its gradient once more.
void want_column_sums(const Tensor& result);

// Asks whoever computes the gradient of `result`, which is ReLU's output and a fresh op's only one,
// for what is left of it behind ReLU: a matmul that makes the gradient masks it, and sums its
// columns, for less than a pass of its own. Nobody is asked while anybody else looks at the
// gradient (hooks, retain_grad, autograd::grad).
void want_relu_gradient(const Tensor& result);

// Whether record() would put an op on these inputs on the tape: ops skip saving statistics
// otherwise.
bool will_record(std::initializer_list<Tensor> inputs);

}  // namespace binade
