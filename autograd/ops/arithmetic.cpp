// Arithmetic of two operands. Functions of one are in unary.cpp, comparisons and choices in
// compare.cpp.
#include <binade/autograd/ops/arithmetic.h>

#include <cmath>

#include <binade/autograd/ops/broadcast.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;
using kernels::BinaryOp;

namespace {

Array compute(const char* op, BinaryOp kind, const Operands& x) {
  check(x.a.dtype() != DType::boolean, op, ": bool has no arithmetic; convert with to(x, dtype)");
  const Array y = x.empty(x.a.dtype());
  BINADE_DISPATCH(y.device(), binary(kind, x.expanded_a(), x.expanded_b(), y));
  return y;
}

Array compute(const char* op, BinaryOp kind, const Tensor& x, double value, bool value_first) {
  check_defined(op, "x", x);
  check(x.dtype() != DType::boolean, op, ": bool has no arithmetic; convert with to(x, dtype)");
  check(is_floating(x.dtype()) || value == std::trunc(value), op, ": ", value,
        " is no integer, but the tensor is ", Kind{x}, "; convert it with to(x, DType::f32)");
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(y.device(), binary_scalar(kind, x.array(), value, value_first, y));
  return y;
}

// Records a op b. `gradients` takes dy and the saved operands (undefined where not asked for by
// `save`) and gives the gradients in dy's shape; those that nobody needs are not computed.
template <class DerivativeA, class DerivativeB>
Tensor record_binary(const char* op, const Operands& x, Array y, bool save, DerivativeA da,
                     DerivativeB db) {
  const bool need_a = x.a.requires_grad(), need_b = x.b.requires_grad();
  return record(op, {x.a, x.b}, std::move(y),
                [=, a = save_if(save, x.a), b = save_if(save, x.b), a_shape = x.a.shape(),
                 b_shape = x.b.shape()](const Tensor& dy) -> TensorList {
                  const Tensor left = a.tensor(), right = b.tensor();
                  return {need_a ? sum_to(da(dy, left, right), a_shape) : Tensor(),
                          need_b ? sum_to(db(dy, left, right), b_shape) : Tensor()};
                });
}

// The share of the gradient that goes to the operand that won: 1, or ½ where both are equal.
Tensor share(const Tensor& winner_is_a, const Tensor& a, const Tensor& b) {
  return where(equal(a, b), Tensor::scalar(0.5, a.dtype(), a.device()), to(winner_is_a, a.dtype()));
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Operands x("add", a, b);
  const auto pass = [](const Tensor& dy, const Tensor&, const Tensor&) { return dy; };
  return record_binary("add", x, compute("add", BinaryOp::add, x), false, pass, pass);
}

Tensor sub(const Tensor& a, const Tensor& b) {
  const Operands x("sub", a, b);
  return record_binary(
      "sub", x, compute("sub", BinaryOp::sub, x), false,
      [](const Tensor& dy, const Tensor&, const Tensor&) { return dy; },
      [](const Tensor& dy, const Tensor&, const Tensor&) { return -dy; });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Operands x("mul", a, b);
  const bool need_a = x.a.requires_grad(), need_b = x.b.requires_grad();
  return record("mul", {x.a, x.b}, compute("mul", BinaryOp::mul, x),
                [a = save_if(need_b, x.a), b = save_if(need_a, x.b), a_shape = x.a.shape(),
                 b_shape = x.b.shape()](const Tensor& dy) -> TensorList {
                  return {b.defined() ? sum_to(dy * b.tensor(), a_shape) : Tensor(),
                          a.defined() ? sum_to(dy * a.tensor(), b_shape) : Tensor()};
                });
}

Tensor div(const Tensor& a, const Tensor& b) {
  const Operands x("div", a, b);
  return record_binary(
      "div", x, compute("div", BinaryOp::div, x), true,
      [](const Tensor& dy, const Tensor&, const Tensor& b) { return dy / b; },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) { return -(dy / b) * (a / b); });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  const Operands x("maximum", a, b);
  return record_binary(
      "maximum", x, compute("maximum", BinaryOp::maximum, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * share(greater(a, b), a, b);
      },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * share(less(a, b), a, b);
      });
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  const Operands x("minimum", a, b);
  return record_binary(
      "minimum", x, compute("minimum", BinaryOp::minimum, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * share(less(a, b), a, b);
      },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * share(greater(a, b), a, b);
      });
}

Tensor pow(const Tensor& a, const Tensor& b) {
  const Operands x("pow", autocast(PrecisionClass::full, a), autocast(PrecisionClass::full, b));
  check_floating("pow", "base", x.a);
  // Written so that 0⁰ has the gradient 0 and 0^b, b > 0, has none of ln 0.
  return record_binary(
      "pow", x, compute("pow", BinaryOp::pow, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        const Tensor one = Tensor::scalar(1, b.dtype(), b.device());
        const Tensor exponent = where(equal(b, one * 0), one, b - 1);
        return dy * b * pow(a, exponent);
      },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        const Tensor one = Tensor::scalar(1, a.dtype(), a.device());
        return dy * pow(a, b) * log(where(equal(a, one * 0), one, a));
      });
}

Tensor pow(const Tensor& base, double exponent) {
  const Tensor a = autocast(PrecisionClass::full, base);
  check_floating("pow", "base", a);
  return record("pow", {a}, compute("pow", BinaryOp::pow, a, exponent, false),
                [a = Saved(a), exponent](const Tensor& dy) -> TensorList {
                  if (exponent == 0) return {dy * 0};
                  return {dy * (pow(a.tensor(), exponent - 1) * exponent)};
                });
}

Tensor operator+(const Tensor& a, const Tensor& b) {
  return add(a, b);
}
Tensor operator-(const Tensor& a, const Tensor& b) {
  return sub(a, b);
}
Tensor operator*(const Tensor& a, const Tensor& b) {
  return mul(a, b);
}
Tensor operator/(const Tensor& a, const Tensor& b) {
  return div(a, b);
}

Tensor operator+(const Tensor& a, double b) {
  return record("add", {a}, compute("add", BinaryOp::add, a, b, false),
                [](const Tensor& dy) -> TensorList { return {dy}; });
}
Tensor operator-(const Tensor& a, double b) {
  return record("sub", {a}, compute("sub", BinaryOp::sub, a, b, false),
                [](const Tensor& dy) -> TensorList { return {dy}; });
}
Tensor operator*(const Tensor& a, double b) {
  return record("mul", {a}, compute("mul", BinaryOp::mul, a, b, false),
                [b](const Tensor& dy) -> TensorList { return {dy * b}; });
}
Tensor operator/(const Tensor& a, double b) {
  return record("div", {a}, compute("div", BinaryOp::div, a, b, false),
                [b](const Tensor& dy) -> TensorList { return {dy / b}; });
}
Tensor operator+(double a, const Tensor& b) {
  return b + a;
}
Tensor operator-(double a, const Tensor& b) {
  return record("sub", {b}, compute("sub", BinaryOp::sub, b, a, true),
                [](const Tensor& dy) -> TensorList { return {-dy}; });
}
Tensor operator*(double a, const Tensor& b) {
  return b * a;
}
Tensor operator/(double a, const Tensor& b) {
  return record("div", {b}, compute("div", BinaryOp::div, b, a, true),
                [a, b = Saved(b)](const Tensor& dy) -> TensorList {
                  const Tensor x = b.tensor();
                  return {-(dy / x) * (a / x)};
                });
}
Tensor operator-(const Tensor& a) {
  return neg(a);
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_defined("sum_to", "x", x);
  if (x.shape() == shape) return x;
  check_floating("sum_to", "x", x);
  check(broadcast(shape, x.shape(), "sum_to") == x.shape(), "sum_to: ", shape,
        " does not broadcast to x ", Kind{x});
  // The kernel keeps the number of dimensions: leading ones of size 1 are dropped afterwards.
  Shape kept = Shape::filled(x.dims(), 1);
  for (int i = 0; i < shape.dims(); ++i) kept[x.dims() - shape.dims() + i] = shape[i];
  const Array y = Array::empty(kept, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), reduce(kernels::ReduceOp::sum, x.array(), y, 0));
  return record("sum_to", {x}, y.view(shape),
                [from = x.shape()](const Tensor& dy) -> TensorList { return {expand(dy, from)}; });
}

}  // namespace binade
