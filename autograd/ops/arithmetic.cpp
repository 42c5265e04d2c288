// Arithmetic of two operands. Functions of one are in unary.cpp, comparisons and choices in
// compare.cpp.
#include <binade/autograd/ops/arithmetic.h>

#include <cmath>
#include <utility>
#include <vector>

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
  check_arithmetic(op, x, value);
  const Array y = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(y.device(), binary_scalar(kind, x.array(), value, value_first, y));
  return y;
}

// Ops whose gradients a kernel makes in one pass, where none has to be summed.
bool is_fused(BinaryOp op, const Saved& a, const Saved& b, bool need_a, bool need_b,
              const Shape& shape) {
  const bool known = op == BinaryOp::div || op == BinaryOp::atan2 || op == BinaryOp::maximum ||
                     op == BinaryOp::minimum;
  return known && (!need_a || a.array().shape() == shape) &&
         (!need_b || b.array().shape() == shape);
}

TensorList fused_gradients(BinaryOp op, const Array& a, const Array& b, bool need_a, bool need_b,
                           const Tensor& dy) {
  const auto wanted = [&](bool needed) {
    return needed ? Array::empty(dy.shape(), dy.dtype(), dy.device()) : Array();
  };
  const Array da = wanted(need_a), db = wanted(need_b);
  BINADE_DISPATCH(dy.device(), binary_backward(op, a.expand(dy.shape()), b.expand(dy.shape()),
                                               dy.array(), da, db));
  return {need_a ? Tensor(da) : Tensor(), need_b ? Tensor(db) : Tensor()};
}

// Records a op b. The derivatives take dy and the saved operands (undefined where not asked for by
// `save`) and give the gradients in dy's shape; those that nobody needs are not computed. What
// reads operands takes several steps: in f32 for half types, so that a gradient is rounded once.
template <class DerivativeA, class DerivativeB>
Tensor record_binary(const char* op, BinaryOp kind, const Operands& x, Array y, bool save,
                     DerivativeA da, DerivativeB db) {
  const bool need_a = x.a.requires_grad(), need_b = x.b.requires_grad();
  return record(op, {x.a, x.b}, std::move(y),
                [=, a = save_if(save, x.a), b = save_if(save, x.b), a_shape = x.a.shape(),
                 b_shape = x.b.shape()](const Tensor& dy) -> TensorList {
                  if (save && !grad_enabled() && is_fused(kind, a, b, need_a, need_b, dy.shape()))
                    return fused_gradients(kind, a.array(), b.array(), need_a, need_b, dy);
                  const DType dtype = dy.dtype(), wide = save ? statistics_dtype(dtype) : dtype;
                  const Tensor given = to(dy, wide);
                  const Tensor left = save ? to(a.tensor(), wide) : Tensor();
                  const Tensor right = save ? to(b.tensor(), wide) : Tensor();
                  return {need_a ? to(sum_to(da(given, left, right), a_shape), dtype) : Tensor(),
                          need_b ? to(sum_to(db(given, left, right), b_shape), dtype) : Tensor()};
                });
}

Tensor number_like(const Tensor& x, double value) {
  return Tensor::scalar(value, x.dtype(), x.device());
}

// The part of dy that goes to an operand: nothing where it lost, half where both are equal. A NaN
// never loses: its gradient is not hidden.
Tensor share_of(const Tensor& dy, const Tensor& lost, const Tensor& a, const Tensor& b) {
  const Tensor share = where(equal(a, b), number_like(dy, 0.5), number_like(dy, 1));
  return where(lost, number_like(dy, 0), dy * share);
}

// √(y² + x²), scaled by the larger one so that no square overflows or vanishes.
Tensor radius_of(const Tensor& y, const Tensor& x) {
  Tensor scale;
  {
    const NoGrad no_grad;
    scale = maximum(abs(y), abs(x));
  }
  return scale * sqrt(square(y / scale) + square(x / scale));
}

// b(b−1)…(b−m+1), differentiated n times and divided by n!: its coefficients from b⁰ on.
std::vector<double> falling_factorial(int m, int n) {
  std::vector<double> factors = {1};
  for (int k = 0; k < m; ++k) {
    factors.push_back(0);
    for (size_t i = factors.size(); i-- > 0;)
      factors[i] = (i == 0 ? 0 : factors[i - 1]) - k * factors[i];
  }
  std::vector<double> result;
  for (int i = n; i <= m; ++i) {
    double binomial = 1;
    for (int k = 0; k < n; ++k) binomial = binomial * (i - k) / (k + 1);
    result.push_back(binomial * factors[static_cast<size_t>(i)]);
  }
  return result;
}

Tensor polynomial(const std::vector<double>& coefficients, const Tensor& x) {
  Tensor y = number_like(x, coefficients.empty() ? 0 : coefficients.back());
  for (size_t i = coefficients.size(); i-- > 1;) y = y * x + coefficients[i - 1];
  return y;
}

// a·b with 0·∞ = 0.
Tensor times_or_zero(const Tensor& a, const Tensor& b) {
  const Tensor zero = number_like(a, 0);
  return where(logical_and(equal(a, zero), is_inf(b)), zero, a * b);
}

// ∂ᵐ/∂aᵐ ∂ⁿ/∂bⁿ aᵇ = aᵇ⁻ᵐ·Σⱼ n!/j!·qₙ₋ⱼ(b)·(ln a)ʲ, where qₖ is the kth derivative of
// b(b−1)…(b−m+1) over k!. One node, so that at a = 0 all derivatives are their limits from above.
Tensor pow_derivative(const Tensor& a, const Tensor& b, int m, int n) {
  const Operands x("pow", a, b);
  Array y;
  {
    const NoGrad no_grad;
    Tensor factor = polynomial(falling_factorial(m, 0), b);
    double weight = 1;
    for (int j = n; j-- > 0;) {  // the power of ln a that grows fastest first
      weight *= j + 1;
      factor = times_or_zero(factor, log(a)) + weight * polynomial(falling_factorial(m, n - j), b);
    }
    const Tensor zero = number_like(a, 0);
    const Tensor vanishes = logical_and(equal(a, zero), greater(b, number_like(b, m)));
    y = where(vanishes, zero, times_or_zero(factor, pow(a, b - m))).array();
  }
  return record_binary(
      "pow", BinaryOp::pow, x, std::move(y), true,
      [m, n](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * pow_derivative(a, b, m + 1, n);
      },
      [m, n](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return dy * pow_derivative(a, b, m, n + 1);
      });
}

// The same with 0 where a and b are 0: the slopes of 0⁰, by convention.
Tensor pow_slope(const Tensor& dy, const Tensor& a, const Tensor& b, int m, int n) {
  const Tensor zero = number_like(a, 0);
  const Tensor origin = logical_and(equal(a, zero), equal(b, zero));
  const Tensor slope = pow_derivative(where(origin, number_like(a, 1), a), b, m, n);
  return dy * where(origin, zero, slope);
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  const Operands x("add", a, b);
  const auto pass = [](const Tensor& dy, const Tensor&, const Tensor&) { return dy; };
  return record_binary("add", BinaryOp::add, x, compute("add", BinaryOp::add, x), false, pass,
                       pass);
}

Tensor sub(const Tensor& a, const Tensor& b) {
  const Operands x("sub", a, b);
  return record_binary(
      "sub", BinaryOp::sub, x, compute("sub", BinaryOp::sub, x), false,
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
      "div", BinaryOp::div, x, compute("div", BinaryOp::div, x), true,
      [](const Tensor& dy, const Tensor&, const Tensor& b) { return dy / b; },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) { return -(dy / b) * (a / b); });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  const Operands x("maximum", a, b);
  return record_binary(
      "maximum", BinaryOp::maximum, x, compute("maximum", BinaryOp::maximum, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return share_of(dy, less(a, b), a, b);
      },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return share_of(dy, greater(a, b), a, b);
      });
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  const Operands x("minimum", a, b);
  return record_binary(
      "minimum", BinaryOp::minimum, x, compute("minimum", BinaryOp::minimum, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return share_of(dy, greater(a, b), a, b);
      },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) {
        return share_of(dy, less(a, b), a, b);
      });
}

Tensor pow(const Tensor& a, const Tensor& b) {
  const Operands x("pow", autocast(PrecisionClass::full, a), autocast(PrecisionClass::full, b));
  check_floating("pow", "base", x.a);
  return record_binary(
      "pow", BinaryOp::pow, x, compute("pow", BinaryOp::pow, x), true,
      [](const Tensor& dy, const Tensor& a, const Tensor& b) { return pow_slope(dy, a, b, 1, 0); },
      [](const Tensor& dy, const Tensor& a, const Tensor& b) { return pow_slope(dy, a, b, 0, 1); });
}

Tensor atan2(const Tensor& y, const Tensor& x) {
  check_floating("atan2", "y", y);
  check_floating("atan2", "x", x);
  const Operands point("atan2", autocast(PrecisionClass::full, y),
                       autocast(PrecisionClass::full, x));
  // Over the radius twice: its square would leave the range long before the angle does.
  return record_binary(
      "atan2", BinaryOp::atan2, point, compute("atan2", BinaryOp::atan2, point), true,
      [](const Tensor& dy, const Tensor& y, const Tensor& x) {
        const Tensor radius = radius_of(y, x);
        return dy * (x / radius) / radius;
      },
      [](const Tensor& dy, const Tensor& y, const Tensor& x) {
        const Tensor radius = radius_of(y, x);
        return -(dy * (y / radius) / radius);
      });
}

Tensor remainder(const Tensor& a, const Tensor& b) {
  for (const auto& [what, x] : {std::pair("a", a), std::pair("b", b)}) {
    check_arithmetic("remainder", x);
    check(!is_floating(x.dtype()), "remainder takes integers, got ", what, ' ', Kind{x},
          "; of floating point it is a - floor(a / b) * b");
  }
  const Tensor left = a - a / b * b;  // with the sign of a: division rounds toward zero
  const Tensor other_sign = logical_and(not_equal(left, 0), not_equal(less(left, 0), less(b, 0)));
  return where(other_sign, left + b, left);
}

Tensor remainder(const Tensor& a, int64_t b) {
  check_defined("remainder", "a", a);
  return remainder(a, Tensor::scalar(static_cast<double>(b), a.dtype(), a.device()));
}

Tensor pow(const Tensor& base, double exponent) {
  const Tensor a = autocast(PrecisionClass::full, base);
  check_floating("pow", "base", a);
  return record("pow", {a}, compute("pow", BinaryOp::pow, a, exponent, false),
                [a = Saved(a), exponent](const Tensor& dy) -> TensorList {
                  if (exponent == 0) return {dy * 0};
                  const DType wide = statistics_dtype(dy.dtype());
                  const Tensor base = to(a.tensor(), wide);
                  return {to(to(dy, wide) * (pow(base, exponent - 1) * exponent), dy.dtype())};
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
                  const DType wide = statistics_dtype(dy.dtype());
                  const Tensor x = to(b.tensor(), wide);
                  return {to(-(to(dy, wide) / x) * (a / x), dy.dtype())};
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
