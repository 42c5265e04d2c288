// Rounding, further functions and activations, ops of three operands.
#include <numbers>

#include "op_table.h"

namespace binade::test {

namespace {

using One = Tensor (*)(const Tensor&);
using F1 = double (*)(double);
using F3 = std::function<double(double, double, double)>;

const Shape kShape{3, 5};

OpRow& unary(OpTable& table, const char* name, const char* variant, One op, F1 f, double low = -2,
             double high = 2) {
  return table.add(
      name, variant, {real(kShape, low, high)},
      [op](const TensorList& in) -> TensorList { return {op(in[0])}; },
      [f](const Lists& in) -> Lists { return {map(in[0], f)}; });
}

Values map3(const Lists& in, const F3& f) {
  const Shape shape = broadcast_shape(broadcast_shape(in[0].shape, in[1].shape), in[2].shape);
  return fill(shape, [&](const Index& at) { return f(in[0](at), in[1](at), in[2](at)); });
}

using Three = Tensor (*)(const Tensor&, const Tensor&, const Tensor&);

void ternary(OpTable& table, const char* name, Three op, const F3& f, const Input& like) {
  const auto sized = [&](const Shape& shape) {
    Input input = like;
    input.shape = shape;
    return input;
  };
  for (const auto& [variant, b, c] :
       {std::tuple("one shape", kShape, kShape), std::tuple("broadcast", Shape{5}, Shape{3, 1}),
        std::tuple("a scalar", kShape, Shape{})})
    table.add(
        name, variant, {real(kShape), sized(b), sized(c)},
        [op](const TensorList& in) -> TensorList { return {op(in[0], in[1], in[2])}; },
        [f](const Lists& in) -> Lists { return {map3(in, f)}; });
}

double between(double a, double b, double weight) {
  return a + weight * (b - a);
}

void add_steps(OpTable& table) {
  unary(table, "sign", "", sign, [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; });
  unary(table, "floor", "", floor, std::floor);
  unary(table, "ceil", "", ceil, std::ceil);
  unary(table, "round", "", round, std::nearbyint);
  Input edges = real({8});
  edges.values = {-2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 3};
  unary(table, "round", "halves", round, std::nearbyint).constant().inputs = {edges};
  unary(table, "floor", "edges", floor, std::floor).constant().inputs = {edges};
  unary(table, "ceil", "edges", ceil, std::ceil).constant().inputs = {edges};
  Input special = real({5});
  special.values = {0, INFINITY, -INFINITY, NAN, -3};
  unary(table, "sign", "special values", sign,
        [](double x) { return x > 0   ? 1.0
                              : x < 0 ? -1.0
                                      : x; })
      .constant()
      .inputs = {special};
}

void add_functions(OpTable& table) {
  unary(table, "exp2", "", exp2, std::exp2, -4, 4);
  unary(table, "log2", "", log2, std::log2, 0.25, 4);
  unary(table, "tan", "", tan, std::tan, -1.2, 1.2);
  for (const auto& [variant, other] :
       {std::pair("one shape", kShape), std::pair("vector", Shape{5})})
    table.add(
        "atan2", variant, {real(kShape, 0.25, 2), real(other)},
        [](const TensorList& in) -> TensorList { return {atan2(in[0], in[1])}; },
        [](const Lists& in) -> Lists {
          return {map(in[0], in[1], [](double y, double x) { return std::atan2(y, x); })};
        });
  Input y = real({6}).fixed(), x = real({6}).fixed();
  y.values = {0, 0, 1, -1, -1, 1e30};
  x.values = {1, -1, 0, 0, -1, 1e30};
  table
      .add(
          "atan2", "quadrants", {y, x},
          [](const TensorList& in) -> TensorList { return {atan2(in[0], in[1])}; },
          [](const Lists& in) -> Lists {
            return {map(in[0], in[1], [](double y, double x) { return std::atan2(y, x); })};
          })
      .constant()
      .half = false;  // 1e30
}

void add_ternaries(OpTable& table) {
  ternary(table, "lerp", lerp, between, real({}, -0.5, 1.5));
  for (const double weight : {0.3, 0.75})
    table.add(
        "lerp", concat("weight ", weight), {real(kShape), real({5})},
        [=](const TensorList& in) -> TensorList { return {lerp(in[0], in[1], weight)}; },
        [=](const Lists& in) -> Lists {
          return {map(in[0], in[1], [=](double a, double b) { return between(a, b, weight); })};
        });
  ternary(
      table, "addcmul",
      [](const Tensor& x, const Tensor& a, const Tensor& b) { return addcmul(x, a, b, 0.5); },
      [](double x, double a, double b) { return x + 0.5 * a * b; }, real({}));
  const auto clamped = [](double x, double low, double high) {
    return std::min(std::max(x, low), high);
  };
  ternary(
      table, "clamp",
      [](const Tensor& x, const Tensor& low, const Tensor& high) { return clamp(x, low, high); },
      clamped, real({}, -1.5, 1.5));
  for (const bool from_below : {true, false})
    table.add(
        "clamp", from_below ? "a lower bound alone" : "an upper bound alone",
        {real(kShape), real({5}, -1, 1)},
        [=](const TensorList& in) -> TensorList {
          return {from_below ? clamp(in[0], in[1], {}) : clamp(in[0], {}, in[1])};
        },
        [=](const Lists& in) -> Lists {
          return {map(in[0], in[1], [=](double x, double bound) {
            return from_below ? std::max(x, bound) : std::min(x, bound);
          })};
        });
}

double softplus_of(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

void add_activations(OpTable& table) {
  unary(
      table, "softplus", "beta 2.5", [](const Tensor& x) { return softplus(x, 2.5); },
      [](double x) { return softplus_of(2.5 * x) / 2.5; }, -6, 6);
  unary(
      table, "leaky_relu", "", [](const Tensor& x) { return leaky_relu(x); },
      [](double x) { return x > 0 ? x : 0.01 * x; });
  unary(
      table, "leaky_relu", "slope -0.5", [](const Tensor& x) { return leaky_relu(x, -0.5); },
      [](double x) { return x > 0 ? x : -0.5 * x; });
  unary(
      table, "elu", "", [](const Tensor& x) { return elu(x); },
      [](double x) { return x > 0 ? x : std::expm1(x); }, -6, 6);
  unary(
      table, "elu", "alpha 0.5", [](const Tensor& x) { return elu(x, 0.5); },
      [](double x) { return x > 0 ? x : 0.5 * std::expm1(x); }, -6, 6);
  unary(
      table, "hardswish", "", hardswish,
      [](double x) { return x * std::min(std::max(x + 3, 0.0), 6.0) / 6; }, -5, 5);
  unary(
      table, "logsigmoid", "", logsigmoid, [](double x) { return -softplus_of(-x); }, -6, 6);
  unary(
      table, "mish", "", mish, [](double x) { return x * std::tanh(softplus_of(x)); }, -6, 6);
  Input large = real({6});
  large.values = {-100, -30, 19, 21, 100, 3e4};
  unary(table, "mish", "large", mish, [](double x) {
    return x * std::tanh(softplus_of(x));
  }).inputs = {large};
  unary(table, "logsigmoid", "large", logsigmoid, [](double x) {
    return -softplus_of(-x);
  }).inputs = {large};
  unary(
      table, "elu", "large", [](const Tensor& x) { return elu(x); },
      [](double x) { return x > 0 ? x : std::expm1(x); })
      .inputs = {large};
}

}  // namespace

void add_function_rows(OpTable& table) {
  add_steps(table);
  add_functions(table);
  add_ternaries(table);
  add_activations(table);
}

}  // namespace binade::test
