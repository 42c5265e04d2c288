// Tensor: an Array and its place on the tape. Copying a Tensor copies the handle.
//
// A leaf is a Tensor made from an Array; with `requires_grad` its gradient is kept after
// backward(). A gradient has the shape and dtype of its tensor. Ops are free functions
// (autograd/ops/*.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <binade/core/array.h>

namespace binade {

class Node;
struct TensorState;

struct BackwardOptions {
  bool retain_graph = false;  // keep saved values, so that backward can run again
  // Make the gradients differentiable (implies retain_graph). A tensor that keeps such a gradient
  // is part of the graph that the gradient holds, so this circle, and all that was saved for it,
  // stays in memory after its last handle is gone unless zero_grad() was called, or a backward()
  // without create_graph added to the gradient. grad() keeps nothing and makes no circle: prefer
  // it.
  bool create_graph = false;
};

class Tensor {
 public:
  Tensor() = default;  // undefined
  // A leaf.
  explicit Tensor(Array value, bool requires_grad = false);

  // Creation of leaves, as Array's.
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor ones(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32,
                     Device device = {});
  static Tensor scalar(double value, DType dtype = DType::f32, Device device = {});
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape, Device device = {}) {
    return Tensor(Array::from(values, shape, device));
  }
  // Foreign memory, not copied.
  static Tensor from_blob(void* data, const Shape& shape, DType dtype, Device device = {},
                          std::shared_ptr<void> owner = nullptr);

  bool defined() const { return state_ != nullptr; }
  const Array& array() const;  // the value, which knows nothing of the tape
  DType dtype() const { return form().dtype(); }
  Device device() const { return form().device(); }
  const Shape& shape() const { return form().shape(); }
  int dims() const { return form().dims(); }
  int64_t size(int dim) const { return form().size(dim); }
  int64_t numel() const { return form().numel(); }
  double item() const { return array().item(); }  // host synchronisation on a GPU
  template <class T>
  std::vector<T> to_vector() const {
    return array().to_vector<T>();
  }

  // ---- gradients --------------------------------------------------------------------------------

  bool requires_grad() const;  // whether backward would reach it
  bool is_leaf() const;
  // Leaves of floating dtype only.
  Tensor& set_requires_grad(bool requires_grad);
  // The same value off the tape. The one explicit way to cut the graph.
  Tensor detach() const;
  // The gradient kept from backward(); undefined if there is none. It is contiguous (a bound one:
  // the buffer) and in memory of its own: no other gradient, seed or hook shares it. With
  // create_graph, grad_tensor() is differentiable.
  Array grad() const;
  Tensor grad_tensor() const;
  // Forgets the gradient; the next backward overwrites instead of adding. Frees the graph of a
  // gradient made with create_graph.
  void zero_grad() const;
  // Makes backward write the gradient into `buffer` (shape and dtype of the tensor), for example a
  // slice of a parameter group's contiguous buffer. A gradient that is there already is copied into
  // it. Leaves only.
  void bind_grad(Array buffer) const;
  // For whoever writes into a bound buffer without backward. While the tensor has no gradient, an
  // op that computes gradients in its forward pass may have put them there for a backward to come;
  // they move away.
  void clear_grad_buffer() const;
  // Keep the gradient of a tensor that is not a leaf, as its hooks leave it.
  void retain_grad() const;
  // Called by every backward with the gradient that this backward brings, once it is complete; what
  // the hook returns, if defined, replaces it. A leaf adds the outcome to the gradient it has.
  // Hooks run in the order they were registered in; one that is removed or registered meanwhile
  // counts from the next backward on. The hook of an inner tensor lives as long as the graph;
  // one that holds its own tensor keeps both in memory until backward has run. What a hook computes
  // is off the tape unless backward is given create_graph.
  // Returns a function that removes the hook.
  std::function<void()> register_hook(std::function<Array(const Array& grad)> hook) const;

  // Gradients of this scalar (or with `seed`, of Σ seed·this) for all leaves that require one.
  void backward(const BackwardOptions& options = {}) const;
  void backward(const Tensor& seed, const BackwardOptions& options = {}) const;

  // Replaces the value of a leaf in place (optimizers, loading); refused on the tape.
  void set_value(const Array& value) const;

  const std::shared_ptr<TensorState>& state() const { return state_; }
  explicit Tensor(std::shared_ptr<TensorState> state) : state_(std::move(state)) {}

 private:
  // array(), for what is known without its values (value_guard.h).
  const Array& form() const;

  std::shared_ptr<TensorState> state_;
};

using TensorList = std::vector<Tensor>;

std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

// Gradients of `outputs` (seeded with ones, or with `seeds`) with respect to `inputs`, without
// touching anybody's grad(). Inputs that are not reached give undefined tensors. Results are
// contiguous, in memory of their own.
TensorList grad(const TensorList& outputs, const TensorList& inputs, const TensorList& seeds = {},
                const BackwardOptions& options = {});

// ---- grad mode (thread-local) -------------------------------------------------------------------

bool grad_enabled();
// Nothing is recorded while alive.
class GradModeScope {
 public:
  explicit GradModeScope(bool enabled);
  ~GradModeScope();
  GradModeScope(const GradModeScope&) = delete;
  GradModeScope& operator=(const GradModeScope&) = delete;

 private:
  bool previous_;
};
class NoGrad : public GradModeScope {
 public:
  NoGrad() : GradModeScope(false) {}
};
class EnableGrad : public GradModeScope {
 public:
  EnableGrad() : GradModeScope(true) {}
};

}  // namespace binade
