// INTERNAL. Gradients of fused ops that have gradients themselves. A fused backward function writes
// arrays, behind which there is no tape. Beside it an op may say what its gradient is in public
// ops; the walk takes that under create_graph, and the fused function, untouched, otherwise. Both
// are calls of one object, which holds what was saved once:
//
//   struct SoftmaxGradient {
//     Saved y;
//     void operator()(Backward& backward) const;      // the kernel
//     void operator()(BackwardOnTape& tape) const {   // in public ops
//       const Tensor probabilities = tape.output(0, y.array());
//       const Tensor weighted = probabilities * tape.grad();
//       tape.give(0, weighted - probabilities * sum(weighted, {-1}, true));
//     }
//   };
//   return record("softmax", {x}, y, SoftmaxGradient{Saved(y)});
//
// As public ops are differentiable, so is the result, as often as they are. An op that cannot say
// it is recorded with a FusedBackward alone, or with OnceDifferentiable, which says what to use
// instead.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include <binade/autograd/tape.h>

namespace binade {

// What backward under create_graph is given. Ops that run meanwhile are recorded; no precision
// policy is in effect.
class BackwardOnTape {
 public:
  const char* op() const;
  bool needed(int input) const;
  // Gradient of output i; undefined if nothing reached it (outputs of ops with several).
  const Tensor& grad(int output = 0) const { return grads_[static_cast<size_t>(output)]; }
  // Input i on the tape, with the value that the op read: it may have been cast or reshaped on the
  // way, and what is computed from it has its gradient cast and reshaped back. Without a value the
  // tensor has none to read: it is for record(), where the op's value is known.
  Tensor input(int i, const Array& value = {}) const;
  DType input_dtype(int i) const;  // of one that is needed
  // Output i on the tape, as a function of the inputs.
  Tensor output(int i, const Array& value) const;

  // A gradient of input i, added to what the walk has; shaped and cast as the input is. Undefined:
  // nothing.
  void give(int i, const Tensor& gradient);
  // Lets the walk go on from `value`, a function of inputs and outputs that was recorded meanwhile
  // and whose gradient is `gradient`. With a function that computes what the op does from its
  // inputs, through(f(inputs), grad()) is all that there is to do.
  void through(const Tensor& value, const Tensor& gradient);

 private:
  friend class BackwardWalk;
  BackwardOnTape(BackwardWalk& walk, std::shared_ptr<Node> node, TensorList grads);

  BackwardWalk& walk_;
  std::shared_ptr<Node> node_;
  TensorList grads_;
  TensorList given_;  // for the op's observer
};

// Exactly one of the two is given.
struct TwofoldBackward {
  std::function<void(Backward*, BackwardOnTape*)> run;
};
template <class T>
concept TwofoldGradient =
    std::invocable<const T&, Backward&> && std::invocable<const T&, BackwardOnTape&>;
template <TwofoldGradient Gradient>
TwofoldBackward twofold(Gradient gradient) {
  return {[gradient = std::move(gradient)](Backward* backward, BackwardOnTape* tape) {
    if (backward != nullptr)
      gradient(*backward);
    else
      gradient(*tape);
  }};
}

Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              TwofoldBackward backward);
TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  TwofoldBackward backward);
template <TwofoldGradient Gradient>
Tensor record(const char* name, std::initializer_list<Tensor> inputs, Array value,
              Gradient gradient) {
  return record(name, inputs, std::move(value), twofold(std::move(gradient)));
}
template <TwofoldGradient Gradient>
TensorList record(const char* name, const TensorList& inputs, std::vector<Array> values,
                  Gradient gradient) {
  return record(name, inputs, std::move(values), twofold(std::move(gradient)));
}

// For an op whose gradient has none. `instead` completes "…; " in the error: what to do.
template <std::invocable<Backward&> Fused>
struct OnceDifferentiable {
  Fused fused;
  const char* instead;
  void operator()(Backward& backward) const { fused(backward); }
  void operator()(BackwardOnTape& tape) const {
    fail(tape.op(), ": its gradient has no gradient (create_graph); ", instead);
  }
};
template <class Fused>
OnceDifferentiable(Fused, const char*) -> OnceDifferentiable<Fused>;

}  // namespace binade
