#include <binade/nn/parameter.h>

#include <utility>

#include <binade/autograd/hooks.h>

namespace binade::nn {

namespace {

// Puts a leaf around `value` in the tensor's place, with the same hooks and no gradient.
void renew(Tensor& tensor, Array value) {
  const Tensor before = std::exchange(tensor, Tensor(std::move(value), tensor.requires_grad()));
  share_hooks(before, tensor);
}

}  // namespace

Parameter::Parameter(Array value, bool keep_full_precision)
    : keep_full_precision_(keep_full_precision) {
  check(is_floating(value.dtype()), "a parameter needs a floating-point dtype, got ",
        name_of(value.dtype()));
  tensor_ = Tensor(std::move(value), /*requires_grad=*/true);
}

void Parameter::require_whole_master() const {
  if (!in_pieces_) return;
  const auto binding = binding_.lock();
  fail("the ranks of the run hold the master of parameter ",
       binding ? binding->name : "(its optimizer is gone)",
       " in pieces, which a run puts together when it ends; in a loop of your own call "
       "train::DataParallel::complete() on every rank first");
}

const Array& Parameter::master() const {
  require_whole_master();
  return master_.defined() ? master_ : tensor_.array();
}

void Parameter::set_trainable(bool trainable) {
  tensor_.set_requires_grad(trainable);
  if (needs_master(tensor_.dtype(), wants_master_) && !has_master() && binding_.expired())
    master_ = tensor_.array().to(DType::f32);
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
  const Array values = master();
  master_ = needs_master(dtype, with_master) ? values.to(DType::f32) : Array();
  renew(tensor_, values.to(dtype));
}

void Parameter::assign(const Array& values) {
  check(values.shape() == shape(), "a parameter of shape ", shape(),
        " cannot take values of shape ", values.shape());
  require_whole_master();
  if (master_.defined()) master_.copy_from(values);
  // Through the master, so that the copy is always the master rounded.
  tensor_.array().copy_from(master_.defined() ? master_ : values);
}

void Parameter::to(Device device) {
  if (tensor_.device() == device) return;
  require_unbound(kDeviceIsFixed);
  if (master_.defined()) master_ = master_.to(device);
  renew(tensor_, tensor_.array().to(device));
}

void Parameter::move_master(Array whole) {
  check(has_master(), "a parameter without a master has none to move");
  check(!whole.defined() || whole.shape() == shape(), "a parameter of shape ", shape(),
        " cannot have a master of shape ", whole.shape());
  in_pieces_ = !whole.defined();
  master_ = std::move(whole);
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
  value.copy_from(tensor_.array());
  if (master.defined()) {
    check(master.shape() == shape(), "a master of shape ", shape(), " cannot live in ",
          master.shape());
    master.copy_from(master_);
    master_ = std::move(master);
  }
  renew(tensor_, std::move(value));
  if (grad.defined()) tensor_.bind_grad(std::move(grad));
  auto binding = std::make_shared<Binding>(Binding{name, ""});
  binding_ = binding;
  return binding;
}

}  // namespace binade::nn
