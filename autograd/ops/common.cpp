#include <binade/autograd/ops/common.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <ostream>

#include <binade/autograd/ops/shape.h>

namespace binade::ops {

std::ostream& operator<<(std::ostream& out, Kind kind) {
  if (!kind.tensor.defined()) return out << "an undefined tensor";
  return out << kind.tensor.shape() << ' ' << kind.tensor.dtype() << " on " << kind.tensor.device();
}

void check_defined(const char* op, const char* what, const Tensor& x) {
  check(x.defined(), op, ": ", what, " is an undefined tensor; give it a value");
}

void check_floating(const char* op, const char* what, const Tensor& x) {
  check_defined(op, what, x);
  check(is_floating(x.dtype()), op, ": ", what, " must be floating point, got ", Kind{x},
        "; convert it with to(x, DType::f32)");
}

void check_arithmetic(const char* op, const Tensor& x) {
  check_defined(op, "x", x);
  check(x.dtype() != DType::boolean, op, ": bool has no arithmetic; convert with to(x, dtype)");
}

void check_arithmetic(const char* op, const Tensor& x, double number) {
  check_arithmetic(op, x);
  check(is_floating(x.dtype()) || number == std::trunc(number), op, ": ", number,
        " is no integer, but the tensor is ", Kind{x}, "; convert it with to(x, DType::f32)");
}

void check_index(const char* op, const char* what, const Tensor& x) {
  check_defined(op, what, x);
  check(x.dtype() == DType::i32 || x.dtype() == DType::i64, op, ": ", what,
        " must hold indices of dtype i32 or i64, got ", Kind{x},
        "; convert it with to(x, DType::i64)");
}

void check_device(const char* op, std::initializer_list<Tensor> tensors) {
  const Tensor* first = nullptr;
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (!first) first = &tensor;
    check(tensor.device() == first->device(), op,
          ": arguments live on different devices: ", Kind{*first}, " and ", Kind{tensor},
          "; move one with to(x, device)");
  }
}

void check_same_dtype(const char* op, const Tensor& a, const Tensor& b) {
  check(a.dtype() == b.dtype(), op, ": arguments have different dtypes: ", Kind{a}, " and ",
        Kind{b}, "; convert one with to(x, dtype) or run the op under amp::Autocast");
}

void check_same_shape(const char* op, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), op, ": arguments must have one shape, got ", Kind{a}, " and ",
        Kind{b}, "; reshape or expand one of them");
}

void check_constant(const char* op, const char* what, const Tensor& x) {
  check(!x.defined() || !grad_enabled() || !x.requires_grad(), op, ": ", what,
        " requires a gradient, but the op has none for it; pass ", what, ".detach()");
}

Array empty_with_layout(const Array& x) {
  std::array<int, kMaxDims> order{};  // from the slowest dimension to the fastest
  const auto end = order.begin() + x.dims();
  std::iota(order.begin(), end, 0);
  std::stable_sort(order.begin(), end, [&](int a, int b) { return x.stride(a) > x.stride(b); });
  Shape sorted = x.shape();
  std::array<int, kMaxDims> back{};
  for (int i = 0; i < x.dims(); ++i) {
    const int dim = order[static_cast<size_t>(i)];
    sorted[i] = x.size(dim);
    back[static_cast<size_t>(dim)] = i;
  }
  return Array::empty(sorted, x.dtype(), x.device())
      .permute(std::span(back.data(), static_cast<size_t>(x.dims())));
}

Shape with_last(Shape shape, int64_t size) {
  shape[shape.dims() - 1] = size;
  return shape;
}

int64_t row_count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end() - 1, int64_t{1}, std::multiplies<>());
}

Array as_rows(const Array& x) {
  const Shape shape{row_count(x.shape()), x.size(-1)};
  const bool contiguous_rows = x.stride(-1) == 1 || x.size(-1) <= 1;
  if (contiguous_rows && x.can_view(shape)) return x.view(shape);
  return x.contiguous().view(shape);
}

Array rows_to_write(const Array& x) {
  return x.defined() ? x.view({row_count(x.shape()), x.size(-1)}) : x;
}

Array half_operand(const Tensor& tensor) {
  if (!tensor.defined()) return Array();
  const NoGrad no_grad;
  return autocast(PrecisionClass::half, tensor).array();
}

Tensor record_cast(const Tensor& x, Array converted) {
  return record("to", {x}, std::move(converted),
                [dtype = x.dtype()](const Tensor& dy) -> TensorList { return {to(dy, dtype)}; });
}

}  // namespace binade::ops
