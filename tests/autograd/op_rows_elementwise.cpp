// Arithmetic, functions of one operand, comparisons, activations.
#include <numbers>

#include <binade/core/random.h>

#include "op_table.h"

namespace binade::test {

namespace {

// What core/random.h says of the first draw of an op inside a step.
constexpr uint64_t kFirstOpPlace = 0xc00000;

using One = Tensor (*)(const Tensor&);
using Two = Tensor (*)(const Tensor&, const Tensor&);
using F1 = double (*)(double);
using F2 = double (*)(double, double);

const Shape kShape{3, 5};

OpRow& unary(OpTable& table, const char* name, One op, F1 f, double low = -2, double high = 2) {
  return table.add(
      name, "", {real(kShape, low, high)},
      [op](const TensorList& in) -> TensorList { return {op(in[0])}; },
      [f](const std::vector<Values>& in) -> std::vector<Values> { return {map(in[0], f)}; });
}

OpRow& binary(OpTable& table, const char* name, const char* variant, Two op, F2 f, Input a,
              Input b) {
  return table.add(
      name, variant, {std::move(a), std::move(b)},
      [op](const TensorList& in) -> TensorList { return {op(in[0], in[1])}; },
      [f](const std::vector<Values>& in) -> std::vector<Values> { return {map(in[0], in[1], f)}; });
}

double sigmoid_of(double x) {
  return 1 / (1 + std::exp(-x));
}

void add_arithmetic(OpTable& table) {
  const auto plus = [](double a, double b) { return a + b; };
  const auto minus = [](double a, double b) { return a - b; };
  const auto times = [](double a, double b) { return a * b; };
  const auto over = [](double a, double b) { return a / b; };
  for (const auto& [a, b, variant] : {std::tuple(Shape{2, 3, 4}, Shape{2, 3, 4}, "one shape"),
                                      std::tuple(Shape{2, 3, 4}, Shape{4}, "vector"),
                                      std::tuple(Shape{2, 1, 4}, Shape{3, 1}, "both broadcast"),
                                      std::tuple(Shape{3, 4}, Shape{}, "scalar"),
                                      std::tuple(Shape{0, 3}, Shape{3}, "no elements")}) {
    binary(table, "add", variant, add, plus, real(a), real(b));
    binary(table, "sub", variant, sub, minus, real(a), real(b));
    binary(table, "mul", variant, mul, times, real(a), real(b));
    binary(table, "div", variant, div, over, real(a), real(b, 0.5, 2));
  }
  binary(table, "operator+", "", operator+, plus, real(kShape), real(kShape));
  binary(table, "operator-", "", operator-, minus, real(kShape), real(kShape));
  binary(table, "operator*", "", operator*, times, real(kShape), real(kShape));
  binary(table, "operator/", "", operator/, over, real(kShape), real(kShape, 0.5, 2));
  for (const auto& [variant, other] :
       {std::pair("", Shape{5}), std::pair("of one shape", kShape)}) {
    binary(
        table, "maximum", variant, maximum, [](double a, double b) { return a > b ? a : b; },
        real(kShape), real(other));
    binary(
        table, "minimum", variant, minimum, [](double a, double b) { return a < b ? a : b; },
        real(kShape), real(other));
  }
  binary(
      table, "pow", "tensor exponent", [](const Tensor& a, const Tensor& b) { return pow(a, b); },
      [](double a, double b) { return std::pow(a, b); }, real(kShape, 0.5, 2), real(kShape));

  const auto with = [&](const char* name, const char* variant, One op, F1 f, double low = -2,
                        double high = 2) {
    unary(table, name, op, f, low, high).variant = variant;
  };
  with(
      "operator+", "number behind", [](const Tensor& x) { return x + 0.75; },
      [](double x) { return x + 0.75; });
  with(
      "operator+", "number before", [](const Tensor& x) { return 0.75 + x; },
      [](double x) { return 0.75 + x; });
  with(
      "operator-", "number behind", [](const Tensor& x) { return x - 0.75; },
      [](double x) { return x - 0.75; });
  with(
      "operator-", "number before", [](const Tensor& x) { return 0.75 - x; },
      [](double x) { return 0.75 - x; });
  with(
      "operator-", "sign", [](const Tensor& x) { return -x; }, [](double x) { return -x; });
  with(
      "operator*", "number behind", [](const Tensor& x) { return x * 3.0; },
      [](double x) { return x * 3; });
  with(
      "operator*", "number before", [](const Tensor& x) { return 3.0 * x; },
      [](double x) { return 3 * x; });
  with(
      "operator/", "number behind", [](const Tensor& x) { return x / 3.0; },
      [](double x) { return x / 3; });
  with(
      "operator/", "number before", [](const Tensor& x) { return 3.0 / x; },
      [](double x) { return 3 / x; }, 0.5, 2);
  with(
      "pow", "number", [](const Tensor& x) { return pow(x, 2.5); },
      [](double x) { return std::pow(x, 2.5); }, 0.25, 2);
  with(
      "pow", "integer of negative", [](const Tensor& x) { return pow(x, 3); },
      [](double x) { return x * x * x; });
}

void add_functions(OpTable& table) {
  unary(table, "neg", neg, [](double x) { return -x; });
  unary(table, "abs", abs, [](double x) { return x < 0 ? -x : x; });
  unary(table, "square", square, [](double x) { return x * x; });
  unary(table, "sqrt", sqrt, std::sqrt, 0.25, 4);
  unary(table, "exp", exp, std::exp, -4, 4);
  unary(table, "log", log, std::log, 0.25, 4);
  unary(table, "log1p", log1p, std::log1p, -0.5, 4);
  unary(table, "expm1", expm1, std::expm1, -4, 4);
  unary(
      table, "rsqrt", rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0.25, 4);
  unary(
      table, "reciprocal", reciprocal, [](double x) { return 1 / x; }, 0.5, 4);
  unary(table, "sin", sin, std::sin, -4, 4);
  unary(table, "cos", cos, std::cos, -4, 4);
  unary(table, "erf", erf, std::erf);
  unary(
      table, "clamp", [](const Tensor& x) { return clamp(x, -1, 0.5); },
      [](double x) { return x < -1    ? -1
                            : x > 0.5 ? 0.5
                                      : x; });
}

void add_choices(OpTable& table) {
  const std::vector<double> pattern = {1, 0, 0, 1, 1};
  for (const auto& [variant, other] :
       {std::pair("broadcast", Shape{3, 1}), std::pair("of one shape", Shape{3, 5})})
    table.add(
        "where", variant, {mask({5}, pattern), real({3, 5}), real(other)},
        [](const TensorList& in) -> TensorList { return {where(in[0], in[1], in[2])}; },
        [](const std::vector<Values>& in) -> std::vector<Values> {
          return {fill(broadcast_shape(broadcast_shape(in[0].shape, in[1].shape), in[2].shape),
                       [&](const Index& i) { return in[0](i) != 0 ? in[1](i) : in[2](i); })};
        });
  table.add(
      "masked_fill", "", {real({3, 5}), mask({5}, pattern)},
      [](const TensorList& in) -> TensorList { return {masked_fill(in[0], in[1], 0.5)}; },
      [](const std::vector<Values>& in) -> std::vector<Values> {
        return {fill(in[0].shape, [&](const Index& i) { return in[1](i) != 0 ? 0.5 : in[0](i); })};
      });

  const auto comparison = [&](const char* name, Two op, F2 f) {
    // A few values only, so that some are equal.
    Input a = real({2, 6}), b = real({6});
    a.values = {-1, 0, 1, 2, 0, 0.5, 2, 1, 1, -1, 0.5, 0};
    b.values = {0, 0, 1, 1, 0.5, 2};
    binary(table, name, "", op, f, a, b).constant();
  };
  comparison("equal", equal, [](double a, double b) -> double { return a == b; });
  comparison("not_equal", not_equal, [](double a, double b) -> double { return a != b; });
  comparison("less", less, [](double a, double b) -> double { return a < b; });
  comparison("less_equal", less_equal, [](double a, double b) -> double { return a <= b; });
  comparison("greater", greater, [](double a, double b) -> double { return a > b; });
  comparison("greater_equal", greater_equal, [](double a, double b) -> double { return a >= b; });
  binary(
      table, "remainder", "", remainder,
      [](double a, double b) -> double { return a - std::floor(a / b) * b; },
      integers({2, 6}, {7, -7, 7, -7, 0, 6, 8, -9, 1, -1, 5, 1e9}),
      integers({6}, {3, 3, -3, -3, 5, 7}))
      .constant();
  binary(
      table, "logical_and", "", logical_and,
      [](double a, double b) -> double { return a != 0 && b != 0; }, mask({4}, {0, 0, 1, 1}),
      mask({4}, {0, 1, 0, 1}))
      .constant();
  binary(
      table, "logical_or", "", logical_or,
      [](double a, double b) -> double { return a != 0 || b != 0; }, mask({4}, {0, 0, 1, 1}),
      mask({4}, {0, 1, 0, 1}))
      .constant();

  const auto test = [&](const char* name, One op, F1 f) {
    Input x = real({6});
    x.values = {0, -1.5, INFINITY, -INFINITY, NAN, 2};
    unary(table, name, op, f).constant().inputs = {x};
  };
  test("is_finite", is_finite, [](double x) -> double { return std::isfinite(x); });
  test("is_nan", is_nan, [](double x) -> double { return std::isnan(x); });
  test("is_inf", is_inf, [](double x) -> double { return std::isinf(x); });
  unary(table, "logical_not", logical_not, [](double x) -> double { return x == 0; })
      .constant()
      .inputs = {mask({4}, {0, 1, 1, 0})};
}

void add_activations(OpTable& table) {
  unary(table, "relu", relu, [](double x) { return x > 0 ? x : 0; });
  unary(table, "sigmoid", sigmoid, sigmoid_of, -6, 6);
  unary(table, "tanh", tanh, std::tanh, -4, 4);
  unary(
      table, "silu", silu, [](double x) { return x * sigmoid_of(x); }, -6, 6);
  unary(
      table, "gelu", gelu, [](double x) { return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0))); },
      -4, 4);
  unary(
      table, "gelu_tanh", gelu_tanh,
      [](double x) {
        return 0.5 * x *
               (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
      },
      -4, 4);
  unary(
      table, "softplus", softplus, [](double x) { return std::log1p(std::exp(x)); }, -6, 6);
  binary(
      table, "swiglu", "", swiglu, [](double g, double u) { return g * sigmoid_of(g) * u; },
      real(kShape, -4, 4), real(kShape));

  table.add(
      "dropout", "training", {real({7, 5})},
      [](const TensorList& in) -> TensorList {
        RandomState::current().begin_step(11, 3);
        return {dropout(in[0], 0.5, true)};
      },
      [](const std::vector<Values>& in) -> std::vector<Values> {
        uint64_t element = 0;
        return {map(in[0], [&](double x) {
          const float draw =
              uniform_of(philox(11, 3, kFirstOpPlace, element / 4).word[element % 4]);
          ++element;
          return draw >= 0.5f ? x * 2 : 0.0;
        })};
      });
  unary(
      table, "dropout", [](const Tensor& x) { return dropout(x, 0.5, false); },
      [](double x) { return x; })
      .variant = "inference";
}

}  // namespace

void add_elementwise_rows(OpTable& table) {
  add_arithmetic(table);
  add_functions(table);
  add_choices(table);
  add_activations(table);
  table.add(
      "sum_to", "", {real({2, 3, 4})},
      [](const TensorList& in) -> TensorList {
        return {sum_to(in[0], {3, 1}), sum_to(in[0], {}), sum_to(in[0], {2, 3, 4})};
      },
      [](const std::vector<Values>& in) -> std::vector<Values> {
        Values rows = reduce(in[0], {0, 2}, false, total);
        rows.shape = {3, 1};
        return {rows, reduce(in[0], std::vector<int>{}, false, total), in[0]};
      });
}

}  // namespace binade::test
