// Gradients in the making: where they go, and how contributions are added up.
#include <binade/autograd/gradient_watch.h>
#include <binade/autograd/graph.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/watched_leaves.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

namespace {

// Whether the memory may be written over, or handed out.
bool is_owned(const Array& array) {
  return array.is_contiguous() && array.is_unshared();
}

}  // namespace

void Pending::describe(const Shape& new_shape, DType new_dtype, Device new_device) {
  shape = new_shape;
  dtype = new_dtype;
  device = new_device;
}

GradSlot::Destination Pending::open() {
  end_loan();
  if (tensor.defined()) {  // left by a walk with create_graph; it goes on as a plain value
    if (!bound) array = tensor.array();
    tensor = {};
  }
  column_sums = {};
  through_relu = false;
  if (bound) {
    before_write();
    check(array.defined(), "the buffer of a gradient was released, and nobody has bound another");
    array.bump_version();
  }
  if (!holds) {
    if (!bound) array = Array::empty(shape, dtype, device);
    holds = true;
    return {array, 0};
  }
  // Added to in place only where nobody else looks at the same memory.
  if (!bound && !is_owned(array)) array = array.clone();
  return {array, 1};
}

void Pending::add(const Array& gradient, const Array& sums, bool masked) {
  check(gradient.shape() == shape && gradient.dtype() == dtype && gradient.device() == device,
        "backward produced a gradient of ", gradient.shape(), ' ', gradient.dtype(), " on ",
        gradient.device(), " for a tensor of ", shape, ' ', dtype, " on ", device);
  if (!holds && !bound) {
    array = gradient;
    column_sums = sums;
    through_relu = masked;
    holds = true;
    return;
  }
  const auto [target, beta] = open();
  if (beta == 0) {
    BINADE_DISPATCH(device, copy(gradient, target));
  } else {
    BINADE_DISPATCH(device, binary(kernels::BinaryOp::add, target, gradient, target));
  }
}

void Pending::add(const Tensor& gradient) {
  check(gradient.shape() == shape && gradient.dtype() == dtype && gradient.device() == device,
        "backward produced a gradient of ", gradient.shape(), ' ', gradient.dtype(), " on ",
        gradient.device(), " for a tensor of ", shape, ' ', dtype, " on ", device);
  end_loan();
  if (holds && !tensor.defined()) tensor = Tensor(array);
  tensor = holds ? tensor + gradient : gradient;
  holds = true;
  if (!bound) return;
  before_write();
  array.copy_from(tensor.array());  // whoever gave the buffer reads it there
}

void set_grad_guard(const Tensor& leaf, std::function<void()> before_write) {
  check(leaf.defined() && leaf.is_leaf(), "set_grad_guard is for leaves");
  std::shared_ptr<const std::function<void()>>& guard = leaf.state()->grad.guard;
  guard.reset();
  if (before_write) guard = std::make_shared<const std::function<void()>>(std::move(before_write));
}

void release_grad_buffer(const Tensor& leaf) {
  check(leaf.defined() && leaf.is_leaf() && leaf.state()->grad.bound,
        "release_grad_buffer is for leaves with a bound buffer");
  Pending& grad = leaf.state()->grad;
  grad.end_loan();
  grad.holds = false;
  grad.array = {};
}

bool Pending::accept(const std::shared_ptr<GradLoan>& given) {
  if (holds || loan.lock() != given) return false;
  loan.reset();
  column_sums = {};
  through_relu = false;
  array.bump_version();
  holds = true;
  return true;
}

void Pending::end_loan() {
  if (const auto lent = loan.lock()) lent->array_ = lent->array_.clone();
  loan.reset();
}

std::shared_ptr<GradLoan> GradLoan::take(const Tensor& tensor) {
  const auto& state = tensor.state();
  Pending& grad = state->grad;
  if (state->node != nullptr || !state->requires_grad || is_hooked(*state) || !grad.bound ||
      grad.holds || !grad.loan.expired())
    return nullptr;
  grad.before_write();
  if (!grad.array.defined()) return nullptr;
  auto loan = std::make_shared<GradLoan>();
  loan->array_ = grad.array;
  grad.loan = loan;
  return loan;
}

void Pending::own() {
  if (!holds) return;
  if (tensor.defined()) {
    if (tensor.state().use_count() > 1 || !is_owned(tensor.array())) tensor = clone(tensor);
  } else if (!bound && !is_owned(array)) {
    array = array.clone();
  }
}

GradSlot::Destination GradSlot::open() {
  if (pending_ == nullptr) return {};
  return pending_->open();
}

void GradSlot::add(const Array& gradient, const Array& column_sums) {
  if (pending_ != nullptr) pending_->add(gradient, column_sums);
}

bool GradSlot::accept(const std::shared_ptr<GradLoan>& loan) {
  return pending_ != nullptr && pending_->accept(loan);
}

void GradSlot::add_through_relu(const Array& gradient, const Array& column_sums) {
  if (pending_ != nullptr) pending_->add(gradient, column_sums, /*masked=*/true);
}

bool GradSlot::wants_relu_gradient() const {
  return pending_ != nullptr && pending_->wants_relu_gradient;
}

bool GradSlot::wants_column_sums() const {
  return pending_ != nullptr && pending_->wants_column_sums;
}

}  // namespace binade
