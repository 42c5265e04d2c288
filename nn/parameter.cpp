#include <binade/nn/parameter.h>

#include <utility>

#include <binade/autograd/hooks.h>
#include <binade/autograd/value_guard.h>

namespace binade::nn {

namespace {

// Puts a leaf around `value` in the tensor's place, with the same hooks and no gradient.
void renew(Tensor& tensor, Array value) {
  const Tensor before = std::exchange(tensor, Tensor(std::move(value), tensor.requires_grad()));
  share_hooks(before, tensor);
}

Array flat(const Array& values) {
  return values.view({values.numel()});
}

Array without_memory(const Shape& shape, DType dtype, Device device) {
  return Array::from_blob(nullptr, shape, dtype, device);
}

}  // namespace

Parameter::Parameter(Array value, bool keep_full_precision)
    : keep_full_precision_(keep_full_precision) {
  check(is_floating(value.dtype()), "a parameter needs a floating-point dtype, got ",
        name_of(value.dtype()));
  tensor_ = Tensor(std::move(value), /*requires_grad=*/true);
}

Parameter::Parameter(const Shape& shape, const Initialiser& values, bool keep_full_precision)
    : Parameter(Deferred::active() ? without_memory(shape, DType::f32, Device::cpu())
                                   : values(shape, Device::cpu()),
                keep_full_precision) {
  if (!Deferred::active()) return;
  held_->source = values.source(shape);
  defer(DType::f32, Device::cpu());
}

// A tensor without memory, which gets it, and its values, when it is first read. Callers who change
// a parameter copy what it holds: handles of the tensor before it keep what they had.
void Parameter::defer(DType dtype, Device device) {
  held_->bound = false;
  held_->master = {};
  renew(tensor_, without_memory(shape(), dtype, device));
  set_value_guard(tensor_, [state = std::weak_ptr(tensor_.state()), held = held_] {
    make_values(Tensor(state.lock()), *held);
  });
}

void Parameter::make_values(const Tensor& tensor, Held& held) {
  Array value;
  if (held.master_is == Master::deferred) {
    held.master = held.source->make(DType::f32, tensor.device());
    held.master_is = Master::here;
    value = held.master.to(tensor.dtype());
  } else {
    value = held.source->make(tensor.dtype(), tensor.device());
  }
  held.source.reset();
  give_value(tensor, std::move(value));
  set_value_guard(tensor, {});
}

// Gives a deferred parameter memory for values that are written next.
void Parameter::forget_source() {
  const auto source = take_source();
  if (!source) return;
  const Device device = held_->bound ? held_->home : tensor_.device();
  if (held_->master_is == Master::deferred) {
    held_->master = Array::empty(shape(), DType::f32, device);
    held_->master_is = Master::here;
  }
  if (!held_->bound) give_value(tensor_, Array::empty(shape(), tensor_.dtype(), tensor_.device()));
}

void Parameter::require_whole_master() const {
  if (!master_in_pieces()) return;
  const auto binding = binding_.lock();
  fail("the ranks of the run hold the master of parameter ",
       binding ? binding->name : "(its optimizer is gone)",
       " in pieces, which a run puts together when it ends; in a loop of your own call "
       "train::DataParallel::complete() on every rank first");
}

const Array& Parameter::master() const {
  require_whole_master();
  if (deferred()) tensor_.array();
  if (deferred()) {  // the copy is an optimizer's, the master has no place yet
    held_->master = held_->source->make(DType::f32, held_->home);
    held_->master_is = Master::here;
    held_->source.reset();
  }
  return held_->master_is == Master::here ? held_->master : tensor_.array();
}

Array Parameter::form() const {
  return without_memory(shape(), has_master() ? DType::f32 : tensor_.dtype(), tensor_.device());
}

void Parameter::set_trainable(bool trainable) {
  tensor_.set_requires_grad(trainable);
  if (!needs_master(tensor_.dtype(), wants_master_) || has_master() || !binding_.expired()) return;
  if (deferred()) {
    held_->master_is = Master::deferred;
  } else {
    held_->master = tensor_.array().to(DType::f32);
    held_->master_is = Master::here;
  }
}

// A frozen parameter that an optimizer holds may train again.
bool Parameter::needs_master(DType dtype, bool with_master) const {
  return with_master && is_half(dtype) && (trainable() || (has_master() && !binding_.expired()));
}

bool Parameter::computes_in(DType dtype, bool with_master) const {
  return dtype == tensor_.dtype() && has_master() == needs_master(dtype, with_master);
}

void Parameter::set_compute_dtype(DType dtype, bool with_master) {
  check(is_floating(dtype), "a parameter needs a floating-point dtype, got ", name_of(dtype));
  wants_master_ = with_master;
  if (computes_in(dtype, with_master)) return;
  require_unbound(kDtypeIsFixed);
  const bool needs = needs_master(dtype, with_master);
  if (deferred()) {
    held_ = std::make_shared<Held>(*held_);
    if (!needs && is_half(dtype)) held_->source = held_->source->rounded(dtype);
    held_->master_is = needs ? Master::deferred : Master::none;
    defer(dtype, tensor_.device());
    return;
  }
  const Array values = master();
  held_->master = needs ? values.to(DType::f32) : Array();
  held_->master_is = needs ? Master::here : Master::none;
  renew(tensor_, values.to(dtype));
}

void Parameter::assign(const Array& values) {
  check(values.shape() == shape(), "a parameter of shape ", shape(),
        " cannot take values of shape ", values.shape());
  require_whole_master();
  forget_source();
  const Array& master = held_->master;
  if (master.defined()) master.copy_from(values);
  // Through the master, so that the copy is always the master rounded.
  tensor_.array().copy_from(master.defined() ? master : values);
}

void Parameter::assign(const ValueSource& values) {
  check(values.shape() == shape(), "a parameter of shape ", shape(),
        " cannot take values of shape ", values.shape());
  require_whole_master();
  if (deferred() && has_value_guard(tensor_)) {  // nobody has read it
    const bool rounds = !has_master() && is_half(tensor_.dtype());
    held_->source = rounds ? values.rounded(tensor_.dtype()) : values;
    return;
  }
  forget_source();
  const Array& master = held_->master;
  const Array& whole = master.defined() ? master : tensor_.array();
  if (whole.is_contiguous())
    values.write(0, flat(whole));
  else
    whole.copy_from(values.make());
  if (master.defined()) tensor_.array().copy_from(master);
}

void Parameter::assign(const Parameter& other) {
  if (other.deferred())
    assign(ValueSource(*other.held_->source));
  else
    assign(other.master());
}

void Parameter::to(Device device) {
  if (tensor_.device() == device) return;
  require_unbound(kDeviceIsFixed);
  if (deferred()) {
    held_ = std::make_shared<Held>(*held_);
    return defer(tensor_.dtype(), device);
  }
  if (held_->master.defined()) held_->master = held_->master.to(device);
  renew(tensor_, tensor_.array().to(device));
}

void Parameter::move_master(Array whole) {
  check(has_master(), "a parameter without a master has none to move");
  check(!whole.defined() || whole.shape() == shape(), "a parameter of shape ", shape(),
        " cannot have a master of shape ", whole.shape());
  held_->master_is = whole.defined() ? Master::here : Master::in_pieces;
  held_->master = std::move(whole);
}

std::optional<ValueSource> Parameter::take_source() {
  if (deferred()) set_value_guard(tensor_, {});
  return std::exchange(held_->source, std::nullopt);
}

void Parameter::require_unbound(const char* what) const {
  if (const auto binding = binding_.lock())
    fail("parameter ", binding->name,
         " belongs to an optimizer, which has laid it out with others, so ", what);
}

void Parameter::lose_binding(const std::string& why) const {
  if (const auto binding = binding_.lock()) binding->lost = why;
}

std::shared_ptr<const Parameter::Binding> Parameter::bind(Array value, Array grad, Array master,
                                                          const std::string& name) {
  require_unbound(kOwnerIsFixed);
  check(value.shape() == shape() && value.dtype() == tensor_.dtype(), "a parameter of ",
        name_of(tensor_.dtype()), " ", shape(), " cannot live in ", name_of(value.dtype()), " ",
        value.shape());
  check(!master.defined() || has_master(), "a parameter without a master cannot be bound with one");
  check(!master.defined() || master.shape() == shape(), "a master of shape ", shape(),
        " cannot live in ", master.shape());
  if (deferred()) {
    held_ = std::make_shared<Held>(*held_);
    held_->bound = true;
    held_->home = tensor_.device();
    if (master.defined()) {
      held_->source->write(0, flat(master));
      held_->source.reset();
      value.copy_from(master);
    }
  } else {
    value.copy_from(tensor_.array());
    if (master.defined()) master.copy_from(held_->master);
  }
  if (master.defined()) move_master(std::move(master));
  renew(tensor_, value);
  if (deferred())
    set_value_guard(tensor_, [state = std::weak_ptr(tensor_.state()), held = held_, value] {
      held->source->write(0, flat(value));
      if (held->master_is != Master::deferred) held->source.reset();
      set_value_guard(Tensor(state.lock()), {});
    });
  if (grad.defined()) tensor_.bind_grad(std::move(grad));
  auto binding = std::make_shared<Binding>(Binding{name, ""});
  binding_ = binding;
  return binding;
}

}  // namespace binade::nn
