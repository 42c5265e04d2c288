// The vectorised elementary functions against the C library in f64, over all exponents.
#include <binade/core/kernels/elementwise.h>

#include <bit>
#include <catch2/catch.hpp>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

// Every 4099th float from the smallest subnormal to infinity, of both signs.
Array floats_of_all_sizes() {
  std::vector<float> values;
  for (uint32_t bits = 1; bits < 0x7f800000u; bits += 4099)
    for (const uint32_t sign : {0u, 0x80000000u})
      values.push_back(std::bit_cast<float>(bits | sign));
  return Array::from(values, {static_cast<int64_t>(values.size())});
}

// The error in units of the last place of the float next to `expected`.
double ulps(float got, double expected) {
  const float nearest = static_cast<float>(expected);
  if (got == nearest || (std::isnan(got) && std::isnan(expected))) return 0;
  int exponent;
  std::frexp(std::max(std::abs(expected), 0x1p-126), &exponent);
  return std::abs(static_cast<double>(got) - expected) / std::ldexp(1.0, exponent - 24);
}

double worst_ulps(UnaryOp op, double (*oracle)(double)) {
  static const Array x = floats_of_all_sizes();
  const Array y = Array::empty(x.shape(), DType::f32);
  cpu::unary(op, x, y);
  double worst = 0;
  for (int64_t i = 0; i < x.numel(); ++i)
    worst = std::max(worst, ulps(y.data<float>()[i], oracle(x.data<float>()[i])));
  return worst;
}

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

double logistic(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST_CASE("elementary functions are within a few ulps from subnormals to infinity",
          "[kernels][cpu]") {
  CHECK(worst_ulps(UnaryOp::exp, [](double x) { return std::exp(x); }) < 1.1);
  CHECK(worst_ulps(UnaryOp::expm1, [](double x) { return std::expm1(x); }) < 2);
  CHECK(worst_ulps(UnaryOp::exp2, [](double x) { return std::exp2(x); }) < 1.1);
  CHECK(worst_ulps(UnaryOp::log, [](double x) { return std::log(x); }) < 1.1);
  CHECK(worst_ulps(UnaryOp::log2, [](double x) { return std::log2(x); }) < 2);
  CHECK(worst_ulps(UnaryOp::log1p, [](double x) { return std::log1p(x); }) < 2);
  CHECK(worst_ulps(UnaryOp::softplus, softplus) < 3);
  CHECK(worst_ulps(UnaryOp::logsigmoid, [](double x) { return -softplus(-x); }) < 3);
  CHECK(worst_ulps(UnaryOp::tanh, [](double x) { return std::tanh(x); }) < 3);
  CHECK(worst_ulps(UnaryOp::erf, [](double x) { return std::erf(x); }) < 3);
  CHECK(worst_ulps(UnaryOp::sigmoid, logistic) < 3);
  CHECK(worst_ulps(UnaryOp::gelu, [](double x) { return x * std::erfc(-x * M_SQRT1_2) / 2; }) < 8);
}

TEST_CASE("elementary functions at infinity, NaN and zero", "[kernels][cpu]") {
  const Array x = array_of({INFINITY, -INFINITY, NAN, -0.0}, {4}, DType::f32);
  const Array y = Array::empty({4}, DType::f32);
  const auto results = [&](UnaryOp op) {
    cpu::unary(op, x, y);
    CHECK(std::isnan(read(y, 2)));
    return std::vector<double>{read(y, 0), read(y, 1), read(y, 3)};
  };
  using Values = std::vector<double>;
  CHECK(results(UnaryOp::exp) == Values{INFINITY, 0, 1});
  CHECK(results(UnaryOp::expm1) == Values{INFINITY, -1, 0});
  CHECK(results(UnaryOp::exp2) == Values{INFINITY, 0, 1});
  CHECK(results(UnaryOp::logsigmoid) == Values{0, -INFINITY, -static_cast<float>(M_LN2)});
  CHECK(results(UnaryOp::tanh) == Values{1, -1, 0});
  CHECK(results(UnaryOp::erf) == Values{1, -1, 0});
  CHECK(results(UnaryOp::sigmoid) == Values{1, 0, 0.5});
  CHECK(results(UnaryOp::softplus) == Values{INFINITY, 0, static_cast<float>(M_LN2)});
  for (const UnaryOp op : {UnaryOp::expm1, UnaryOp::tanh, UnaryOp::erf, UnaryOp::log1p}) {
    cpu::unary(op, x, y);
    CHECK(std::signbit(read(y, 3)));
  }
}

TEST_CASE("logarithms at their poles, outside and at powers of two", "[kernels][cpu]") {
  const Array x = array_of(
      {INFINITY, -INFINITY, 0.0, -0.0, -1.0, 1.0, 0x1p-149, 0x1p127, -0x1p-149}, {9}, DType::f32);
  const Array y = Array::empty({9}, DType::f32);
  for (const auto& [op, of_one, of_least] : {std::tuple(UnaryOp::log, 0.0, std::log(0x1p-149)),
                                             std::tuple(UnaryOp::log2, 0.0, -149.0)}) {
    cpu::unary(op, x, y);
    CHECK(read(y, 0) == INFINITY);
    for (const int64_t negative : {1, 4, 8}) CHECK(std::isnan(read(y, negative)));
    CHECK(read(y, 2) == -INFINITY);
    CHECK(read(y, 3) == -INFINITY);
    CHECK(read(y, 5) == of_one);
    CHECK(read(y, 6) == static_cast<float>(of_least));
  }
  CHECK(read(y, 7) == 127);
  cpu::unary(UnaryOp::log1p, x, y);
  CHECK(read(y, 0) == INFINITY);
  CHECK(std::isnan(read(y, 1)));
  CHECK(read(y, 4) == -INFINITY);
  CHECK(read(y, 6) == 0x1p-149);
  CHECK(read(y, 8) == -0x1p-149);
}

TEST_CASE("a function gives the same bits in a vector lane and alone", "[kernels][cpu]") {
  Random random(8);
  const Array x = random_array({1003}, DType::f32, random, 3);
  for (const UnaryOp op : {UnaryOp::exp, UnaryOp::tanh, UnaryOp::gelu, UnaryOp::silu,
                           UnaryOp::softplus, UnaryOp::exp2}) {
    const Array together = Array::empty({1003}, DType::f32);
    const Array alone = Array::empty({1003}, DType::f32);
    cpu::unary(op, x, together);
    for (int64_t i = 0; i < 1003; ++i)
      cpu::unary(op, x.slice(0, i, i + 1), alone.slice(0, i, i + 1));
    CHECK(values_of(together) == values_of(alone));
  }
}

}  // namespace
}  // namespace binade::test
