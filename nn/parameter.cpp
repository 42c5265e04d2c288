#include <binade/nn/parameter.h>

#include <utility>

namespace binade::nn {

Parameter::Parameter(Array value, bool keep_full_precision)
    : keep_full_precision_(keep_full_precision) {
  check(is_floating(value.dtype()), "a parameter needs a floating-point dtype, got ",
        name_of(value.dtype()));
  tensor_ = Tensor(std::move(value), /*requires_grad=*/true);
}

void Parameter::set_compute_dtype(DType dtype, bool with_master) {
  check(is_floating(dtype), "a parameter needs a floating-point dtype, got ", name_of(dtype));
  const Array values = master();
  const bool requires_grad = trainable();
  master_ = with_master && is_half(dtype) ? values.to(DType::f32) : Array();
  tensor_ = Tensor(values.to(dtype), requires_grad);
}

void Parameter::assign(const Array& values) {
  check(values.shape() == shape(), "a parameter of shape ", shape(),
        " cannot take values of shape ", values.shape());
  if (master_.defined()) master_.copy_from(values);
  tensor_.array().copy_from(values);
}

void Parameter::to(Device device) {
  if (tensor_.device() == device) return;
  if (master_.defined()) master_ = master_.to(device);
  tensor_ = Tensor(tensor_.array().to(device), trainable());
}

void Parameter::bind(Array value, Array grad, Array master) {
  check(value.shape() == shape() && value.dtype() == tensor_.dtype(), "a parameter of ",
        name_of(tensor_.dtype()), " ", shape(), " cannot live in ", name_of(value.dtype()), " ",
        value.shape());
  check(master.defined() == has_master(), "a parameter ", has_master() ? "with" : "without",
        " a master cannot be bound ", has_master() ? "without" : "with", " one");
  value.copy_from(tensor_.array());
  if (master.defined()) {
    check(master.shape() == shape(), "a master of shape ", shape(), " cannot live in ",
          master.shape());
    master.copy_from(master_);
    master_ = std::move(master);
  }
  const bool requires_grad = trainable();
  tensor_ = Tensor(std::move(value), requires_grad);
  if (grad.defined()) tensor_.bind_grad(std::move(grad));
}

}  // namespace binade::nn
