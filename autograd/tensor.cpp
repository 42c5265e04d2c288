#include <binade/autograd/tensor.h>

#include <ostream>

#include <binade/autograd/graph.h>
#include <binade/autograd/hooks.h>
#include <binade/autograd/value_guard.h>

namespace binade {

namespace {
thread_local bool recording = true;
}

bool grad_enabled() {
  return recording;
}
GradModeScope::GradModeScope(bool enabled) : previous_(recording) {
  recording = enabled;
}
GradModeScope::~GradModeScope() {
  recording = previous_;
}

Tensor::Tensor(Array value, bool requires_grad) : state_(std::make_shared<TensorState>()) {
  check(value.defined(), "a tensor needs a defined array");
  state_->value = std::move(value);
  if (requires_grad) set_requires_grad(true);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  return Tensor(Array::zeros(shape, dtype, device));
}
Tensor Tensor::ones(const Shape& shape, DType dtype, Device device) {
  return Tensor(Array::full(shape, 1, dtype, device));
}
Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  return Tensor(Array::full(shape, value, dtype, device));
}
Tensor Tensor::scalar(double value, DType dtype, Device device) {
  return Tensor(Array::full({}, value, dtype, device));
}
Tensor Tensor::from_blob(void* data, const Shape& shape, DType dtype, Device device,
                         std::shared_ptr<void> owner) {
  return Tensor(Array::from_blob(data, shape, dtype, device, std::move(owner)));
}

const Array& Tensor::form() const {
  check(state_ != nullptr, "the tensor is undefined");
  return state_->value;
}

const Array& Tensor::array() const {
  const Array& value = form();
  if (state_->value_guard) {
    const auto guard = state_->value_guard;  // it may take itself away
    (*guard)();
  }
  return value;
}

void set_value_guard(const Tensor& leaf, std::function<void()> before_use) {
  check(leaf.defined() && leaf.is_leaf(), "set_value_guard is for leaves");
  std::shared_ptr<const std::function<void()>>& guard = leaf.state()->value_guard;
  guard.reset();
  if (before_use) guard = std::make_shared<const std::function<void()>>(std::move(before_use));
}

bool has_value_guard(const Tensor& leaf) {
  return leaf.defined() && leaf.state()->value_guard != nullptr;
}

void give_value(const Tensor& leaf, Array value) {
  check(leaf.defined() && leaf.is_leaf() && value.shape() == leaf.shape() &&
            value.dtype() == leaf.dtype() && value.device() == leaf.device(),
        "give_value: a leaf gets a value of its own shape and dtype, where it is");
  leaf.state()->value = std::move(value);
}

bool Tensor::requires_grad() const {
  return state_ && state_->requires_grad;
}

bool Tensor::is_leaf() const {
  return state_ && state_->node == nullptr;
}

Tensor& Tensor::set_requires_grad(bool requires_grad) {
  check(defined() && is_leaf(), "set_requires_grad is for leaves; use detach() to leave the tape");
  check(!requires_grad || is_floating(dtype()), "a tensor of ", dtype(),
        " cannot require a gradient; convert it to a floating dtype");
  state_->requires_grad = requires_grad;
  return *this;
}

Tensor Tensor::detach() const {
  return Tensor(array());
}

Array Tensor::grad() const {
  check(defined(), "the tensor is undefined");
  const Pending& grad = state_->grad;
  if (!grad.holds) return {};
  return grad.tensor.defined() && !grad.bound ? grad.tensor.array() : grad.array;
}

Tensor Tensor::grad_tensor() const {
  check(defined(), "the tensor is undefined");
  const Pending& grad = state_->grad;
  if (!grad.holds) return {};
  return grad.tensor.defined() ? grad.tensor : Tensor(grad.array);
}

void Tensor::zero_grad() const {
  check(defined(), "the tensor is undefined");
  Pending& grad = state_->grad;
  grad.holds = false;
  grad.tensor = {};
  if (!grad.bound) grad.array = {};
}

void Tensor::bind_grad(Array buffer) const {
  check(defined() && is_leaf(), "bind_grad is for leaves");
  check(buffer.shape() == shape() && buffer.dtype() == dtype() && buffer.device() == device(),
        "bind_grad: a tensor of ", shape(), ' ', dtype(), " on ", device(), " got a buffer of ",
        buffer.shape(), ' ', buffer.dtype(), " on ", buffer.device());
  for (int i = 0; i < buffer.dims(); ++i)
    check(buffer.size(i) <= 1 || buffer.stride(i) != 0, "bind_grad: the buffer ", buffer.shape(),
          " repeats its elements along dimension ", i, "; give one that is not expanded");
  Pending& grad = state_->grad;
  grad.end_loan();
  if (grad.holds) buffer.copy_from(this->grad());
  grad.array = std::move(buffer);
  grad.bound = true;
}

void Tensor::clear_grad_buffer() const {
  check(defined(), "the tensor is undefined");
  state_->grad.end_loan();
}

void Tensor::retain_grad() const {
  check(requires_grad(), "retain_grad needs a tensor that requires a gradient");
  state_->retains_grad = true;
}

std::function<void()> Tensor::register_hook(GradHook hook) const {
  check(requires_grad(), "register_hook needs a tensor that requires a gradient");
  check(hook != nullptr, "register_hook needs a function");
  // Those of an inner tensor belong to the graph: its last handle may be gone before backward.
  std::shared_ptr<Hooks>& hooks =
      is_leaf() ? state_->hooks : state_->node->outputs[static_cast<size_t>(state_->output)].hooks;
  if (!hooks) hooks = std::make_shared<Hooks>();
  const int id = hooks->next_id++;
  hooks->entries.emplace_back(id, std::move(hook));
  return [weak = std::weak_ptr(hooks), id] {
    if (const auto remaining = weak.lock())
      std::erase_if(remaining->entries, [id](const auto& entry) { return entry.first == id; });
  };
}

void share_hooks(const Tensor& from, const Tensor& to) {
  to.state()->hooks = from.state()->hooks;
}

void Tensor::set_value(const Array& value) const {
  check(defined() && is_leaf(), "set_value is for leaves: this tensor is the result of an op");
  check(value.shape() == shape(), "set_value: a tensor of ", shape(), " got values of ",
        value.shape());
  array().copy_from(value);
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "Tensor(undefined)";
  out << tensor.array();
  if (tensor.is_leaf()) return tensor.requires_grad() ? out << " requires_grad" : out;
  return out << " from " << tensor.state()->node->name;
}

}  // namespace binade
