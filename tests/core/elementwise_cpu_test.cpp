// Elementwise kernels of the CPU against loops in f64, over dtypes and layouts.
#include <binade/core/kernels/elementwise.h>

#include <catch2/catch.hpp>
#include <functional>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

// Small, odd, longer than a tile, more than one block of work, short inner dimension.
const std::vector<Shape> kShapes = {{}, {1}, {7}, {3, 5}, {1037}, {4, 1, 9}, {40, 3}, {3, 20, 301}};

// Rounded once from f32 (f64), and that computation's own few ulps.
double tolerance(DType dtype) {
  return dtype == DType::f64 ? 64 * epsilon_of(dtype)
                             : epsilon_of(dtype) + 16 * epsilon_of(DType::f32);
}

struct Function {
  UnaryOp op;
  std::function<double(double)> value;
  std::function<double(double)> slope;  // empty: no backward kernel
  bool positive = false;                // defined for x > 0 only
};

double phi(double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
}
double cdf(double x) {
  return std::erfc(-x / std::sqrt(2.0)) / 2;
}
double logistic(double x) {
  return 1 / (1 + std::exp(-x));
}
double tanh_gelu(double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * u));  // ½ (1 + tanh u) = 1 / (1 + e^(−2u))
}

const std::vector<Function>& functions() {
  static const std::vector<Function> all = {
      {UnaryOp::neg, [](double x) { return -x; }, {}},
      {UnaryOp::abs, [](double x) { return std::abs(x); }, {}},
      {UnaryOp::sign, [](double x) { return x > 0   ? 1.0
                                            : x < 0 ? -1.0
                                                    : 0.0; }, {}},
      {UnaryOp::exp, [](double x) { return std::exp(x); }, {}},
      {UnaryOp::expm1, [](double x) { return std::expm1(x); }, {}},
      {UnaryOp::log, [](double x) { return std::log(x); }, {}, true},
      {UnaryOp::log1p, [](double x) { return std::log1p(x); }, {}, true},
      {UnaryOp::sqrt, [](double x) { return std::sqrt(x); }, {}, true},
      {UnaryOp::rsqrt, [](double x) { return 1 / std::sqrt(x); }, {}, true},
      {UnaryOp::reciprocal, [](double x) { return 1 / x; }, {}, true},
      {UnaryOp::square, [](double x) { return x * x; }, {}},
      {UnaryOp::sin, [](double x) { return std::sin(x); }, {}},
      {UnaryOp::cos, [](double x) { return std::cos(x); }, {}},
      {UnaryOp::tanh, [](double x) { return std::tanh(x); },
       [](double x) { return 1 / std::cosh(x) / std::cosh(x); }},
      {UnaryOp::erf, [](double x) { return std::erf(x); }, {}},
      {UnaryOp::sigmoid, logistic, [](double x) { return logistic(x) * logistic(-x); }},
      {UnaryOp::silu, [](double x) { return x * logistic(x); },
       [](double x) { return logistic(x) + x * logistic(x) * logistic(-x); }},
      {UnaryOp::gelu, [](double x) { return x * cdf(x); },
       [](double x) { return cdf(x) + x * phi(x); }},
      {UnaryOp::gelu_tanh, tanh_gelu,
       [](double x) {  // to about 1e-10
         return (tanh_gelu(x + 1e-5) - tanh_gelu(x - 1e-5)) / 2e-5;
       }},
      {UnaryOp::relu, [](double x) { return std::max(x, 0.0); },
       [](double x) { return x > 0 ? 1.0 : 0.0; }},
      {UnaryOp::softplus, [](double x) { return std::log1p(std::exp(x)); }, logistic},
      {UnaryOp::floor, [](double x) { return std::floor(x); }, {}},
      {UnaryOp::ceil, [](double x) { return std::ceil(x); }, {}},
      {UnaryOp::round, [](double x) { return std::nearbyint(x); }, {}},
  };
  return all;
}

// Calls test(dtype, shape, layout, random) for all combinations.
template <class Test>
void for_all(const Test& test) {
  Random random(17);
  for (const DType dtype : kFloatingTypes)
    for (const Shape& shape : kShapes)
      for (int layout = 0; layout < 3; ++layout) {
        INFO(name_of(dtype) << " " << concat(shape) << " layout " << layout);
        test(dtype, shape, layout, random);
      }
}

Array output_like(const Shape& shape, DType dtype, int layout, Random& random) {
  return layout == 1 ? strided_array(shape, dtype, random) : Array::empty(shape, dtype);
}

template <class Op>
std::vector<double> mapped(const Op& op, const std::vector<double>& a,
                           const std::vector<double>& b) {
  std::vector<double> result(a.size());
  for (size_t i = 0; i < a.size(); ++i) result[i] = op(a[i], b[i]);
  return result;
}

TEST_CASE("unary functions of the CPU equal the C library's in f64", "[kernels][cpu]") {
  for_all([](DType dtype, const Shape& shape, int layout, Random& random) {
    for (const Function& function : functions()) {
      INFO("op " << static_cast<int>(function.op));
      const Array x = any_layout(layout, shape, dtype, random, 2);
      if (function.positive)
        for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::max(std::abs(read(x, i)), 0.125));
      const Array out = output_like(shape, dtype, layout, random);
      std::vector<double> expected = values_of(x);
      for (double& value : expected) value = function.value(value);
      cpu::unary(function.op, x, out);
      REQUIRE(worst_error(out, expected, 1e-3) < tolerance(dtype));
    }
  });
}

TEST_CASE("gradients of the CPU's activations equal their closed forms", "[kernels][cpu]") {
  for_all([](DType dtype, const Shape& shape, int layout, Random& random) {
    for (const Function& function : functions()) {
      if (!function.slope) continue;
      INFO("op " << static_cast<int>(function.op));
      const Array x = any_layout(layout, shape, dtype, random, 2);
      const Array dy = any_layout(layout + 1, shape, dtype, random);
      for (const float beta : {0.0f, 1.0f}) {
        const Array dx = strided_array(shape, dtype, random);
        std::vector<double> expected = values_of(dx);
        for (int64_t i = 0; i < x.numel(); ++i)
          expected[static_cast<size_t>(i)] =
              beta * expected[static_cast<size_t>(i)] + read(dy, i) * function.slope(read(x, i));
        cpu::unary_backward(function.op, x, dy, dx, beta);
        const double limit =
            function.op == UnaryOp::gelu_tanh ? std::max(1e-9, tolerance(dtype)) : tolerance(dtype);
        REQUIRE(worst_error(dx, expected, 1) < limit);
      }
    }
  });
}

TEST_CASE("unary functions of integers", "[kernels][cpu]") {
  for (const DType dtype : {DType::i64, DType::i32}) {
    const Array x = array_of({-3, 0, 5}, {3}, dtype), out = Array::empty({3}, dtype);
    cpu::unary(UnaryOp::neg, x, out);
    CHECK(values_of(out) == std::vector<double>{3, 0, -5});
    cpu::unary(UnaryOp::abs, x, out);
    CHECK(values_of(out) == std::vector<double>{3, 0, 5});
    cpu::unary(UnaryOp::sign, x, out);
    CHECK(values_of(out) == std::vector<double>{-1, 0, 1});
    cpu::unary(UnaryOp::square, x, out);
    CHECK(values_of(out) == std::vector<double>{9, 0, 25});
    CHECK_THROWS_AS(cpu::unary(UnaryOp::exp, x, out), Error);
  }
}

TEST_CASE("binary arithmetic of the CPU", "[kernels][cpu]") {
  using Oracle = std::function<double(double, double)>;
  const std::vector<std::pair<BinaryOp, Oracle>> ops = {
      {BinaryOp::add, [](double a, double b) { return a + b; }},
      {BinaryOp::sub, [](double a, double b) { return a - b; }},
      {BinaryOp::mul, [](double a, double b) { return a * b; }},
      {BinaryOp::div, [](double a, double b) { return a / b; }},
      {BinaryOp::pow, [](double a, double b) { return std::pow(a, b); }},
      {BinaryOp::maximum, [](double a, double b) { return std::max(a, b); }},
      {BinaryOp::minimum, [](double a, double b) { return std::min(a, b); }},
  };
  for_all([&](DType dtype, const Shape& shape, int layout, Random& random) {
    for (const auto& [op, oracle] : ops) {
      INFO("op " << static_cast<int>(op));
      const Array a = any_layout(layout, shape, dtype, random);
      const Array b = any_layout(layout + 2, shape, dtype, random);
      for (int64_t i = 0; i < a.numel(); ++i) {
        write(a, i, std::max(std::abs(read(a, i)), 0.125));  // a base of pow
        write(b, i, std::max(std::abs(read(b, i)), 0.125));
      }
      const Array out = output_like(shape, dtype, layout, random);
      cpu::binary(op, a, b, out);
      REQUIRE(worst_error(out, mapped(oracle, values_of(a), values_of(b)), 1e-3) <
              tolerance(dtype));

      const std::vector<double> scalars(static_cast<size_t>(a.numel()), 1.5);
      cpu::binary_scalar(op, a, 1.5, false, out);
      REQUIRE(worst_error(out, mapped(oracle, values_of(a), scalars), 1e-3) < tolerance(dtype));
      cpu::binary_scalar(op, a, 1.5, true, out);
      REQUIRE(worst_error(out, mapped(oracle, scalars, values_of(a)), 1e-3) < tolerance(dtype));
      cpu::binary_scalar(BinaryOp::pow, a, 2, false, out);
      REQUIRE(worst_error(
                  out, mapped([](double x, double y) { return x * y; }, values_of(a), values_of(a)),
                  1e-3) < tolerance(dtype));
    }
  });
}

TEST_CASE("binary arithmetic writes over its own operand", "[kernels][cpu]") {
  Random random(3);
  const Array a = random_array({5000}, DType::f32, random);
  const Array b = random_array({5000}, DType::f32, random);
  const std::vector<double> before = values_of(a);
  cpu::binary(BinaryOp::sub, b, a, a);
  for (int64_t i = 0; i < 5000; ++i)
    REQUIRE(read(a, i) == static_cast<float>(read(b, i) - before[static_cast<size_t>(i)]));
}

TEST_CASE("integer arithmetic of the CPU", "[kernels][cpu]") {
  for (const DType dtype : {DType::i64, DType::i32}) {
    const Array a = array_of({-7, 7, 9, -9}, {4}, dtype), b = array_of({2, -2, -1, 4}, {4}, dtype);
    const Array out = Array::empty({4}, dtype);
    cpu::binary(BinaryOp::div, a, b, out);
    CHECK(values_of(out) == std::vector<double>{-3, -3, -9, -2});
    cpu::binary(BinaryOp::maximum, a, b, out);
    CHECK(values_of(out) == std::vector<double>{2, 7, 9, 4});
    cpu::binary(BinaryOp::mul, a, b, out);
    CHECK(values_of(out) == std::vector<double>{-14, -14, -9, -36});
    cpu::binary_scalar(BinaryOp::sub, a, 10, true, out);
    CHECK(values_of(out) == std::vector<double>{17, 3, 1, 19});
    CHECK_THROWS_AS(cpu::binary(BinaryOp::pow, a, b, out), Error);
    CHECK_THROWS_WITH(cpu::binary_scalar(BinaryOp::div, a, 0, false, out),
                      Catch::Contains("division by zero"));
  }
  const Array lowest = Array::from(std::vector<int64_t>{INT64_MIN}, {1});
  cpu::binary_scalar(BinaryOp::div, lowest, -1, false, lowest);
  CHECK(lowest.to_vector<int64_t>() == std::vector<int64_t>{INT64_MIN});
}

TEST_CASE("NaN passes through maximum, minimum, clamp, relu and sign", "[kernels][cpu]") {
  for (const DType dtype : kFloatingTypes) {
    const Array a = array_of({NAN, 1, 2}, {3}, dtype), b = array_of({1, NAN, 3}, {3}, dtype);
    const Array out = Array::empty({3}, dtype);
    for (const BinaryOp op : {BinaryOp::maximum, BinaryOp::minimum}) {
      cpu::binary(op, a, b, out);
      CHECK(std::isnan(read(out, 0)));
      CHECK(std::isnan(read(out, 1)));
      CHECK(read(out, 2) == (op == BinaryOp::maximum ? 3 : 2));
    }
    cpu::clamp(a, 0, 1.5, out);
    CHECK(std::isnan(read(out, 0)));
    CHECK(read(out, 2) == 1.5);
    for (const UnaryOp op : {UnaryOp::relu, UnaryOp::sign, UnaryOp::gelu}) {
      cpu::unary(op, a, out);
      CHECK(std::isnan(read(out, 0)));
    }
  }
}

TEST_CASE("comparisons and tests of the CPU give bool", "[kernels][cpu]") {
  const double values[] = {0, 1, -2, NAN, INFINITY, -INFINITY};
  std::vector<double> left, right;
  for (const double a : values)
    for (const double b : values) {
      left.push_back(a);
      right.push_back(b);
    }
  using Oracle = std::function<bool(double, double)>;
  const std::vector<std::pair<CompareOp, Oracle>> ops = {
      {CompareOp::eq, [](double a, double b) { return a == b; }},
      {CompareOp::ne, [](double a, double b) { return a != b; }},
      {CompareOp::lt, [](double a, double b) { return a < b; }},
      {CompareOp::le, [](double a, double b) { return a <= b; }},
      {CompareOp::gt, [](double a, double b) { return a > b; }},
      {CompareOp::ge, [](double a, double b) { return a >= b; }},
      {CompareOp::logical_and, [](double a, double b) { return a != 0 && b != 0; }},
      {CompareOp::logical_or, [](double a, double b) { return a != 0 || b != 0; }},
  };
  for (const DType dtype : kFloatingTypes) {
    const Array a = array_of(left, {6, 6}, dtype), b = array_of(right, {6, 6}, dtype);
    const Array out = Array::empty({6, 6}, DType::boolean).transpose(0, 1);
    for (const auto& [op, oracle] : ops) {
      cpu::compare(op, a, b, out);
      CHECK(values_of(out) == mapped(oracle, left, right));
    }
    cpu::test(TestOp::is_finite, a, out);
    CHECK(values_of(out) == mapped([](double x, double) { return std::isfinite(x); }, left, left));
    cpu::test(TestOp::is_nan, a, out);
    CHECK(values_of(out) == mapped([](double x, double) { return std::isnan(x); }, left, left));
    cpu::test(TestOp::is_inf, a, out);
    CHECK(values_of(out) == mapped([](double x, double) { return std::isinf(x); }, left, left));
    cpu::test(TestOp::logical_not, a, out);
    CHECK(values_of(out) == mapped([](double x, double) { return x == 0; }, left, left));
  }
  const Array a = array_of({1, 2, 3}, {3}, DType::i64), b = array_of({3, 2, 1}, {3}, DType::i64);
  const Array out = Array::empty({3}, DType::boolean);
  cpu::compare(CompareOp::le, a, b, out);
  CHECK(values_of(out) == std::vector<double>{1, 1, 0});
}

TEST_CASE("where, clamp and axpy of the CPU", "[kernels][cpu]") {
  for_all([](DType dtype, const Shape& shape, int layout, Random& random) {
    const Array a = any_layout(layout, shape, dtype, random);
    const Array b = any_layout(layout + 1, shape, dtype, random);
    const Array condition = Array::empty(shape, DType::boolean);
    for (int64_t i = 0; i < a.numel(); ++i) write(condition, i, random() % 2);
    const Array out = output_like(shape, dtype, layout, random);
    cpu::where(condition, a, b, out);
    std::vector<double> picked = values_of(a);
    for (int64_t i = 0; i < a.numel(); ++i)
      if (!read(condition, i)) picked[static_cast<size_t>(i)] = read(b, i);
    REQUIRE(values_of(out) == picked);

    cpu::clamp(a, -0.5, 0.25, out);
    const auto within = [](double x, double) { return std::min(std::max(x, -0.5), 0.25); };
    REQUIRE(values_of(out) == mapped(within, values_of(a), values_of(a)));

    for (const DType other : kFloatingTypes) {
      const Array y = strided_array(shape, other, random);
      const std::vector<double> expected =
          mapped([](double x, double old) { return old - 0.75 * x; }, values_of(a), values_of(y));
      cpu::axpy(-0.75, a, y);
      REQUIRE(worst_error(y, expected, 1) < tolerance(other));
    }
  });
}

TEST_CASE("copies convert every dtype to every other in any layout", "[kernels][cpu]") {
  const DType all[] = {DType::f64, DType::f32, DType::f16, DType::bf16,
                       DType::i64, DType::i32, DType::u8,  DType::boolean};
  Random random(5);
  for (const DType from : all)
    for (const DType to : all)
      for (const Shape& shape : kShapes)
        for (int layout = 0; layout < 3; ++layout) {
          INFO(name_of(from) << " to " << name_of(to) << " " << concat(shape));
          const Array x = any_layout(layout, shape, from, random);
          // Whole numbers that every dtype holds, except that bool holds 0 and 1 only.
          for (int64_t i = 0; i < x.numel(); ++i) write(x, i, static_cast<double>(random() % 100));
          const Array out = any_layout(layout == 0 ? 1 : 0, shape, to, random);
          cpu::copy(x, out);
          std::vector<double> expected = values_of(x);
          if (to == DType::boolean)
            for (double& value : expected) value = value != 0;
          REQUIRE(values_of(out) == expected);
        }
}

TEST_CASE("conversions round once, to nearest even", "[kernels][cpu]") {
  const auto converted = [](double value, DType to) {
    return read(array_of({value}, {1}, DType::f64).to(to), 0);
  };
  // Just above the middle between two halves: rounding to f32 first would hide it.
  CHECK(converted(1 + 0x1p-11 + 0x1p-40, DType::f16) == 1 + 0x1p-10);
  CHECK(converted(1 + 0x1p-11, DType::f16) == 1);
  CHECK(converted(1 + 3 * 0x1p-11 - 0x1p-40, DType::f16) == 1 + 0x1p-10);
  CHECK(converted(-1 - 0x1p-8 - 0x1p-40, DType::bf16) == -1 - 0x1p-7);
  CHECK(converted(65519.9, DType::f16) == 65504);
  CHECK(converted(65520, DType::f16) == INFINITY);
  CHECK(std::isnan(converted(NAN, DType::f16)));
  CHECK(converted(-2.75, DType::i32) == -2);
  CHECK(converted(0x1p63, DType::i64) == 0x1p63);  // INT64_MAX, read as double
  CHECK(converted(NAN, DType::boolean) == 1);
  const Array big = Array::from(std::vector<int64_t>{(int64_t{1} << 40) + 1}, {1});
  CHECK(read(big.to(DType::bf16), 0) == 0x1p40);
}

TEST_CASE("half conversions agree with their definition for every half", "[kernels][cpu]") {
  std::vector<float> numbers;
  const Array halves = Array::empty({65536}, DType::f16);
  for (int i = 0; i < 65536; ++i)
    static_cast<uint16_t*>(halves.data())[i] = static_cast<uint16_t>(i);
  const std::vector<float> got = halves.to_vector<float>();
  for (int i = 0; i < 65536; ++i) {
    const int exponent = (i >> 10) & 31, mantissa = i & 1023, sign = i & 0x8000 ? -1 : 1;
    if (exponent == 31 && mantissa != 0) {
      REQUIRE(std::isnan(got[static_cast<size_t>(i)]));
      continue;
    }
    const double magnitude = exponent == 31  ? INFINITY
                             : exponent == 0 ? std::ldexp(mantissa, -24)
                                             : std::ldexp(1024 + mantissa, exponent - 25);
    REQUIRE(got[static_cast<size_t>(i)] == sign * magnitude);
  }
  const Array back = Array::from(got, {65536}).to(DType::f16);
  for (int i = 0; i < 65536; ++i)
    if (!std::isnan(got[static_cast<size_t>(i)]))
      REQUIRE(static_cast<uint16_t*>(back.data())[i] == i);
}

TEST_CASE("fill and arange of the CPU", "[kernels][cpu]") {
  Random random(6);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32,
                            DType::u8, DType::boolean})
    for (const Shape& shape : kShapes) {
      const Array out = strided_array(shape, dtype, random);
      cpu::fill(out, 1);
      REQUIRE(values_of(out) == std::vector<double>(static_cast<size_t>(out.numel()), 1));
    }
  // What lies between the elements of a view stays.
  const Array base = Array::full({10, 4}, 7, DType::f16);
  cpu::fill(base.slice(0, 1, 10, 3), 2);
  for (int64_t i = 0; i < 40; ++i) REQUIRE(read(base, i) == (i / 4 % 3 == 1 ? 2 : 7));

  const Array range = Array::empty({40000}, DType::f64);
  cpu::arange(range, -3, 0.5);
  std::vector<double> expected;
  for (int i = 0; i < 40000; ++i) expected.push_back(-3 + 0.5 * i);
  CHECK(values_of(range) == expected);
}

TEST_CASE("SwiGLU of the CPU, forward and backward", "[kernels][cpu]") {
  for_all([](DType dtype, const Shape& shape, int layout, Random& random) {
    const Array gate = any_layout(layout, shape, dtype, random);
    const Array up = any_layout(layout + 1, shape, dtype, random);
    const Array dout = any_layout(layout + 2, shape, dtype, random);
    const Array out = output_like(shape, dtype, layout, random);
    cpu::swiglu(gate, up, out);
    REQUIRE(worst_error(out,
                        mapped([](double g, double u) { return g * logistic(g) * u; },
                               values_of(gate), values_of(up)),
                        1e-3) < tolerance(dtype));
    for (const float beta : {0.0f, 1.0f}) {
      const Array dgate = strided_array(shape, dtype, random);
      const Array dup = random_array(shape, dtype, random);
      std::vector<double> expected_gate = values_of(dgate), expected_up = values_of(dup);
      for (int64_t i = 0; i < gate.numel(); ++i) {
        const double g = read(gate, i), u = read(up, i), d = read(dout, i);
        const double slope = logistic(g) + g * logistic(g) * (1 - logistic(g));
        const size_t k = static_cast<size_t>(i);
        expected_gate[k] = beta * expected_gate[k] + d * u * slope;
        expected_up[k] = beta * expected_up[k] + d * g * logistic(g);
      }
      cpu::swiglu_backward(gate, up, dout, dgate, dup, beta);
      REQUIRE(worst_error(dgate, expected_gate) < 2 * tolerance(dtype));
      REQUIRE(worst_error(dup, expected_up) < 2 * tolerance(dtype));
    }
  });
}

}  // namespace
}  // namespace binade::test
