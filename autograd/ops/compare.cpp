// Comparisons and choices, from arithmetic.h.
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/broadcast.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>

namespace binade {

using namespace ops;
using kernels::CompareOp;
using kernels::TestOp;

namespace {

Tensor compare_with(const char* name, CompareOp op, const Tensor& a, const Tensor& b) {
  const Operands x(name, a, b);
  const Array y = x.empty(DType::boolean);
  BINADE_DISPATCH(y.device(), compare(op, x.expanded_a(), x.expanded_b(), y));
  return record_constant(name, {x.a, x.b}, y);
}

Tensor compare_with(const char* name, CompareOp op, const Tensor& a, double b) {
  check_arithmetic(name, a, b);
  return compare_with(name, op, a, Tensor::scalar(b, a.dtype(), a.device()));
}

Tensor test_with(const char* name, TestOp op, const Tensor& x) {
  const Array y = Array::empty(x.shape(), DType::boolean, x.device());
  BINADE_DISPATCH(y.device(), test(op, x.array(), y));
  return record_constant(name, {x}, y);
}

void check_mask(const char* op, const char* what, const Tensor& mask) {
  check_defined(op, what, mask);
  check(mask.dtype() == DType::boolean, op, ": ", what, " must be bool, got ", Kind{mask},
        "; compare it with something, or convert it with to(x, DType::boolean)");
}

}  // namespace

Tensor equal(const Tensor& a, const Tensor& b) {
  return compare_with("equal", CompareOp::eq, a, b);
}
Tensor not_equal(const Tensor& a, const Tensor& b) {
  return compare_with("not_equal", CompareOp::ne, a, b);
}
Tensor less(const Tensor& a, const Tensor& b) {
  return compare_with("less", CompareOp::lt, a, b);
}
Tensor less_equal(const Tensor& a, const Tensor& b) {
  return compare_with("less_equal", CompareOp::le, a, b);
}
Tensor greater(const Tensor& a, const Tensor& b) {
  return compare_with("greater", CompareOp::gt, a, b);
}
Tensor greater_equal(const Tensor& a, const Tensor& b) {
  return compare_with("greater_equal", CompareOp::ge, a, b);
}
Tensor equal(const Tensor& a, double b) {
  return compare_with("equal", CompareOp::eq, a, b);
}
Tensor not_equal(const Tensor& a, double b) {
  return compare_with("not_equal", CompareOp::ne, a, b);
}
Tensor less(const Tensor& a, double b) {
  return compare_with("less", CompareOp::lt, a, b);
}
Tensor less_equal(const Tensor& a, double b) {
  return compare_with("less_equal", CompareOp::le, a, b);
}
Tensor greater(const Tensor& a, double b) {
  return compare_with("greater", CompareOp::gt, a, b);
}
Tensor greater_equal(const Tensor& a, double b) {
  return compare_with("greater_equal", CompareOp::ge, a, b);
}
Tensor logical_and(const Tensor& a, const Tensor& b) {
  return compare_with("logical_and", CompareOp::logical_and, a, b);
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  return compare_with("logical_or", CompareOp::logical_or, a, b);
}
Tensor logical_not(const Tensor& x) {
  check_defined("logical_not", "x", x);
  return test_with("logical_not", TestOp::logical_not, x);
}
Tensor is_finite(const Tensor& x) {
  check_floating("is_finite", "x", x);
  return test_with("is_finite", TestOp::is_finite, x);
}
Tensor is_nan(const Tensor& x) {
  check_floating("is_nan", "x", x);
  return test_with("is_nan", TestOp::is_nan, x);
}
Tensor is_inf(const Tensor& x) {
  check_floating("is_inf", "x", x);
  return test_with("is_inf", TestOp::is_inf, x);
}

Tensor clamp(const Tensor& x, double low, double high) {
  check_floating("clamp", "x", x);
  check(low <= high, "clamp: low must not be above high, got ", low, " and ", high);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(y.device(), clamp(x.array(), low, high, y));
  return record("clamp", {x}, y, [x = Saved(x), low, high](const Tensor& dy) -> TensorList {
    if (!grad_enabled()) {
      const auto rounded = [&](double v) { return Array::full({}, v, dy.dtype()).item(); };
      const Array dx = Array::empty(dy.shape(), dy.dtype(), dy.device());
      BINADE_DISPATCH(dx.device(),
                      clamp_backward(x.array(), rounded(low), rounded(high), dy.array(), dx));
      return {Tensor(dx)};
    }
    const Tensor value = x.tensor();
    const auto scalar = [&](double v) { return Tensor::scalar(v, value.dtype(), value.device()); };
    // A NaN lies outside of nothing: its gradient is not hidden.
    const Tensor outside = logical_or(less(value, scalar(low)), greater(value, scalar(high)));
    return {where(outside, scalar(0), dy)};
  });
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  check_mask("where", "condition", condition);
  const Operands x("where", a, b);
  check_device("where", {condition, x.a});
  const Shape shape = broadcast(condition.shape(), x.shape, "where");
  const Array y = Array::empty(shape, x.a.dtype(), x.a.device());
  BINADE_DISPATCH(y.device(), where(condition.array().expand(shape), x.a.array().expand(shape),
                                    x.b.array().expand(shape), y));
  const bool need_a = x.a.requires_grad(), need_b = x.b.requires_grad();
  return record("where", {x.a, x.b}, y,
                [condition = Saved(condition), need_a, need_b, a_shape = x.a.shape(),
                 b_shape = x.b.shape()](const Tensor& dy) -> TensorList {
                  const Tensor mask = condition.tensor();
                  const Tensor zero = Tensor::scalar(0, dy.dtype(), dy.device());
                  return {need_a ? sum_to(where(mask, dy, zero), a_shape) : Tensor(),
                          need_b ? sum_to(where(mask, zero, dy), b_shape) : Tensor()};
                });
}

Tensor where(const Tensor& condition, const Tensor& a, double b) {
  check_arithmetic("where", a, b);
  return where(condition, a, Tensor::scalar(b, a.dtype(), a.device()));
}

Tensor where(const Tensor& condition, double a, const Tensor& b) {
  check_arithmetic("where", b, a);
  return where(condition, Tensor::scalar(a, b.dtype(), b.device()), b);
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  check_defined("masked_fill", "x", x);
  check_mask("masked_fill", "mask", mask);
  check_device("masked_fill", {x, mask});
  check(broadcast(mask.shape(), x.shape(), "masked_fill") == x.shape(),
        "masked_fill: the mask must broadcast to x, got x ", Kind{x}, " and mask ", Kind{mask});
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  const Array fill = Array::full({}, value, x.dtype(), x.device()).expand(x.shape());
  BINADE_DISPATCH(y.device(), where(mask.array().expand(x.shape()), fill, x.array(), y));
  return record("masked_fill", {x}, y, [mask = Saved(mask)](const Tensor& dy) -> TensorList {
    return {masked_fill(dy, mask.tensor(), 0)};
  });
}

}  // namespace binade
