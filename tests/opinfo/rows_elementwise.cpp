#include "sample.h"

namespace binade::opinfo {

namespace {

using One = Tensor (*)(const Tensor&);
using Two = Tensor (*)(const Tensor&, const Tensor&);
using Behind = Tensor (*)(const Tensor&, double);
using Before = Tensor (*)(double, const Tensor&);

Row unary(const char* op, One function) {
  return {op, [function](Sample& s) -> TensorList { return {function(s.tensor(0))}; }};
}

// Either operand may be a number.
Row binary(const char* op, Two two, Behind behind, Before before) {
  return {op, [=](Sample& s) -> TensorList {
            if (!s.is_tensor(0)) return {before(s.number(0), s.tensor(1, "other"))};
            if (!s.is_tensor(1, "other")) return {behind(s.tensor(0), s.number(1, "other"))};
            return {two(s.tensor(0), s.tensor(1, "other"))};
          }};
}

// Ops that take two tensors only: a number becomes one.
Row pairwise(const char* op, Two two) {
  return {op, [=](Sample& s) -> TensorList {
            const auto operand = [&](int position, const char* name, int like) {
              if (s.is_tensor(position, name)) return s.tensor(position, name);
              const Tensor other = s.tensor(like, like == 1 ? "other" : "");
              return Tensor::scalar(s.number(position, name), other.dtype(), other.device());
            };
            return {two(operand(0, "", 1), operand(1, "other", 0))};
          }};
}

// Integers divide to floating point in PyTorch.
Tensor divide(const Tensor& a, const Tensor& b) {
  if (!is_floating(a.dtype()) && !is_floating(b.dtype()))
    throw NotOffered("true division of integers");
  return div(a, b);
}

TensorList power(Sample& s) {
  if (!s.is_tensor(0)) throw NotOffered("a number to the power of a tensor");
  if (!s.is_tensor(1, "exponent")) return {pow(s.tensor(0), s.number(1, "exponent"))};
  return {pow(s.tensor(0), s.tensor(1, "exponent"))};
}

TensorList clamped(Sample& s) {
  const Tensor x = s.tensor(0);
  if (!is_floating(x.dtype())) throw NotOffered("clamping integers");
  if (s.is_tensor(1, "min") || s.is_tensor(2, "max")) {
    const auto bound = [&](int position, const char* name) {
      const Tensor given = s.given(position, name) ? s.tensor(position, name) : Tensor();
      if (given.defined() && !is_floating(given.dtype())) throw NotOffered("integers as bounds");
      return given;
    };
    return {clamp(x, bound(1, "min"), bound(2, "max"))};
  }
  return {clamp(x, s.number(1, "min", -INFINITY), s.number(2, "max", INFINITY))};
}

TensorList chosen(Sample& s) {
  // OpInfo gives where(x, condition, other) as a method's arguments.
  const Tensor condition = s.tensor(1);
  if (s.is_number(0, "")) return {where(condition, s.number(0), s.tensor(2))};
  const Tensor a = s.tensor(0);
  if (s.is_number(2, "")) return {where(condition, a, s.number(2))};
  return {where(condition, a, s.tensor(2))};
}

}  // namespace

std::vector<Row> elementwise_rows() {
  return {
      binary("add", add, operator+, operator+),
      binary("sub", sub, operator-, operator-),
      binary("mul", mul, operator*, operator*),
      {"div",
       [](Sample& s) -> TensorList {
         if (s.given(2, "rounding_mode")) throw NotOffered("rounding_mode");
         return binary("div", divide, operator/, operator/).call(s);
       }},
      binary("true_divide", divide, operator/, operator/),
      pairwise("maximum", maximum),
      pairwise("minimum", minimum),
      {"pow", power},
      {"float_power",
       [](Sample& s) -> TensorList {
         if (s.tensor(0).dtype() != DType::f64) throw NotOffered("powers in f64 of other dtypes");
         return power(s);
       }},
      pairwise("eq", equal),
      pairwise("ne", not_equal),
      pairwise("lt", less),
      pairwise("le", less_equal),
      pairwise("gt", greater),
      pairwise("ge", greater_equal),
      pairwise("logical_and", logical_and),
      pairwise("logical_or", logical_or),
      unary("logical_not", logical_not),
      unary("isfinite", is_finite),
      unary("isnan", is_nan),
      unary("isinf", is_inf),
      unary("neg", neg),
      unary("abs", abs),
      unary("square", square),
      unary("sqrt", sqrt),
      unary("exp", exp),
      unary("log", log),
      unary("log1p", log1p),
      unary("expm1", expm1),
      unary("rsqrt", rsqrt),
      unary("reciprocal", reciprocal),
      unary("sin", sin),
      unary("cos", cos),
      unary("erf", erf),
      unary("sigmoid", sigmoid),
      unary("tanh", tanh),
      {"nn.functional.relu",
       [](Sample& s) -> TensorList {
         s.only(1, "inplace", false);
         return {relu(s.tensor(0))};
       }},
      {"nn.functional.silu",
       [](Sample& s) -> TensorList {
         s.only(1, "inplace", false);
         return {silu(s.tensor(0))};
       }},
      {"nn.functional.gelu",
       [](Sample& s) -> TensorList {
         const bool tanh_form = s.text(1, "approximate", "none") == "tanh";
         return {tanh_form ? gelu_tanh(s.tensor(0)) : gelu(s.tensor(0))};
       }},
      {"nn.functional.softplus",
       [](Sample& s) -> TensorList {
         s.only(2, "threshold", 20);
         return {softplus(s.tensor(0), s.number(1, "beta", 1))};
       }},
      unary("sign", sign),
      unary("floor", floor),
      unary("ceil", ceil),
      {"round",
       [](Sample& s) -> TensorList {
         s.only(-1, "decimals", 0);
         return {round(s.tensor(0))};
       }},
      unary("exp2", exp2),
      unary("log2", log2),
      unary("tan", tan),
      pairwise("atan2", atan2),
      {"lerp",
       [](Sample& s) -> TensorList {
         const Tensor a = s.tensor(0), b = s.tensor(1, "end");
         if (s.is_tensor(2, "weight")) return {lerp(a, b, s.tensor(2, "weight"))};
         return {lerp(a, b, s.number(2, "weight"))};
       }},
      {"addcmul",
       [](Sample& s) -> TensorList {
         for (const int operand : {0, 1, 2})
           if (!is_floating(s.tensor(operand).dtype())) throw NotOffered("integers");
         return {addcmul(s.tensor(0), s.tensor(1), s.tensor(2), s.number(-1, "value", 1))};
       }},
      {"nn.functional.leaky_relu",
       [](Sample& s) -> TensorList {
         s.only(2, "inplace", false);
         return {leaky_relu(s.tensor(0), s.number(1, "negative_slope", 0.01))};
       }},
      {"nn.functional.elu",
       [](Sample& s) -> TensorList {
         s.only(2, "inplace", false);
         return {elu(s.tensor(0), s.number(1, "alpha", 1))};
       }},
      {"nn.functional.hardswish",
       [](Sample& s) -> TensorList {
         s.only(1, "inplace", false);
         return {hardswish(s.tensor(0))};
       }},
      unary("nn.functional.logsigmoid", logsigmoid),
      {"nn.functional.mish",
       [](Sample& s) -> TensorList {
         s.only(1, "inplace", false);
         return {mish(s.tensor(0))};
       }},
      {"clamp", clamped},
      {"where", chosen},
      {"masked_fill",
       [](Sample& s) -> TensorList {
         if (s.is_tensor(2, "value")) throw NotOffered("a tensor as value");
         return {masked_fill(s.tensor(0), s.tensor(1, "mask"), s.number(2, "value"))};
       }},
  };
}

}  // namespace binade::opinfo
