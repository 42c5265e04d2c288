// When the gradients of leaves are complete, told while backward still runs, and when their buffers
// are written again: so that they can travel to other ranks meanwhile.
#pragma once

#include <functional>

#include <binade/autograd/tensor.h>

namespace binade {

// Watches backward passes. Both functions are called by the thread that runs the pass, also under a
// capture.
class GradientWatch {
 public:
  virtual ~GradientWatch() = default;
  // Before the pass: the leaves that it may bring gradients, each once, but for those without
  // elements. All others it leaves alone.
  virtual void begin(const TensorList& leaves) = 0;
  // The pass brings this leaf nothing more: its gradient is what it will be at the end, or there is
  // none. Leaves are told in the order in which that comes to be, those with hooks last.
  virtual void complete(const Tensor& leaf) = 0;

  // While it lives, Tensor::backward() on this thread tells `watch` (null: nobody), but not what
  // runs inside of it: of leaves that a backward function reaches although they are none of its
  // op's inputs nothing is known, but for those of recompute().
  class Scope {
   public:
    explicit Scope(GradientWatch* watch);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    GradientWatch* previous_;
  };
};

// For whoever lets others read a leaf's bound gradient buffer between backward passes:
// `before_write` is called before backward, or an op that computes gradients in its forward pass,
// writes into it. Empty: nobody is.
void set_grad_guard(const Tensor& leaf, std::function<void()> before_write);

// A bound buffer goes, and the gradient that it held. The leaf's guard binds another one
// (Tensor::bind_grad) before something is written.
void release_grad_buffer(const Tensor& leaf);

}  // namespace binade
