// The short forms that the GPU uses for elements of 16 bits, on every number that f16 and bf16
// hold. The processor's approximations are stood in for by exact functions that are wrong by as
// much as they may be, in either direction.
#include <binade/core/kernels/unary_rules.h>

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>

#include <binade/core/half.h>

using namespace binade;
using namespace binade::kernels;

namespace {

// The PTX manual (CUDA 13) gives 2^-22 for the relative error of ex2.approx, 2^-22 for the absolute
// one of lg2.approx in (½, 2) and for its relative one elsewhere, 1 ulp for rcp.approx.
constexpr double kOff = 0x1p-21;

template <int kSign>
struct Inexact {
  static constexpr bool kBeyondHalf = true;
  static float exp2(float x) {
    return static_cast<float>(std::exp2(double{x}) * (1 + kSign * kOff));
  }
  static float log2(float x) {
    const double exact = std::log2(double{x});
    if (!std::isfinite(exact)) return static_cast<float>(exact);
    return static_cast<float>(exact + kSign * kOff * std::max(1.0, std::fabs(exact)));
  }
  static float reciprocal(float x) {
    return static_cast<float>(1 / double{x} * (1 + kSign * kOff));
  }
};

// The same with subnormal numbers taken for 0, going in and coming out, for elements of f16.
float flushed(float x) {
  return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}
template <int kSign>
struct Flushing {
  static constexpr bool kBeyondHalf = false;
  static float exp2(float x) { return flushed(Inexact<kSign>::exp2(flushed(x))); }
  static float log2(float x) { return flushed(Inexact<kSign>::log2(flushed(x))); }
  static float reciprocal(float x) { return flushed(Inexact<kSign>::reciprocal(flushed(x))); }
};

// The value in f64, by formulas of its own.
double value_of(UnaryOp op, double x) {
  switch (op) {
    case UnaryOp::exp:
      return std::exp(x);
    case UnaryOp::exp2:
      return std::exp2(x);
    case UnaryOp::expm1:
      return std::expm1(x);
    case UnaryOp::log1p:
      return std::log1p(x);
    case UnaryOp::tan:
      return std::tan(x);
    case UnaryOp::sigmoid:
      return 1 / (1 + std::exp(-x));
    case UnaryOp::silu:
      return x / (1 + std::exp(-x));
    case UnaryOp::softplus:
      return x > 40 ? x : std::log1p(std::exp(x));
    case UnaryOp::hardswish:
      return x <= -3 ? 0 : x * std::min(x + 3, 6.0) / 6;
    case UnaryOp::logsigmoid:
      return x < -40 ? x : -std::log1p(std::exp(-x));
    default:
      return x * std::tanh(x > 40 ? x : std::log1p(std::exp(x)));
  }
}

double slope_of(UnaryOp op, double x) {
  switch (op) {
    case UnaryOp::exp:
    case UnaryOp::expm1:
      return std::exp(x);
    case UnaryOp::exp2:
      return std::exp2(x) * std::log(2.0);
    case UnaryOp::log1p:
      return 1 / (1 + x);
    default: {
      const double cosine = std::cos(x);
      return 1 / (cosine * cosine);
    }
  }
}

// Half of the distance between the neighbours of `value` in a type with `digits` digits.
double half_ulp(double value, int digits, int lowest_exponent) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(0.5, std::max(exponent - 1, lowest_exponent) - digits);
}

// Whether the float `got`, before it is rounded to T, is near enough to `exact`.
template <class T>
bool is_near(float got, double exact) {
  constexpr bool kHalf = std::is_same_v<T, Half>;
  const double largest = kHalf ? 65520.0 : 0x1.ffp127;
  if (std::isnan(exact)) return std::isnan(got);
  if (std::fabs(exact) >= largest)  // overflows, unless it is a rounding away from that
    return std::signbit(got) == std::signbit(exact) && std::fabs(got) >= largest * (1 - 0x1p-15);
  const double allowed = half_ulp(exact, kHalf ? 10 : 7, kHalf ? -14 : -126) / 8;
  return std::fabs(double{got} - exact) <= allowed;
}

template <class T, class Function, class Exact>
int wrong_numbers(const Function& function, const Exact& exact) {
  int wrong = 0;
  for (int bits = 0; bits < 65536; ++bits) {
    T number;
    number.bits = static_cast<uint16_t>(bits);
    const auto x = static_cast<float>(number);
    if (x == 128) continue;  // the slope of 2ˣ is a number there, but a float cannot hold 2ˣ
    if (!is_near<T>(function(x), exact(double{x}))) {
      if (wrong++ == 0)
        UNSCOPED_INFO("first wrong at x = " << x << ": " << function(x) << ", not "
                                            << exact(double{x}));
    }
  }
  return wrong;
}

template <class T, class Math>
void check_all() {
  for (const UnaryOp op :
       {UnaryOp::exp, UnaryOp::exp2, UnaryOp::expm1, UnaryOp::log1p, UnaryOp::tan, UnaryOp::sigmoid,
        UnaryOp::silu, UnaryOp::softplus, UnaryOp::hardswish, UnaryOp::logsigmoid, UnaryOp::mish}) {
    INFO("op " << static_cast<int>(op));
    CHECK(wrong_numbers<T>([=](float x) { return unary_value<Math>(op, x); },
                           [=](double x) { return value_of(op, x); }) == 0);
  }
  for (const UnaryOp op :
       {UnaryOp::exp, UnaryOp::exp2, UnaryOp::expm1, UnaryOp::log1p, UnaryOp::tan}) {
    INFO("slope of op " << static_cast<int>(op));
    CHECK(wrong_numbers<T>([=](float x) { return unary_gradient<Math>(op, x, 1.0f); },
                           [=](double x) { return slope_of(op, x); }) == 0);
  }
  CHECK(wrong_numbers<T>([](float x) { return shaped_value<Math>(ShapedOp::elu, x, 1.0f); },
                         [](double x) { return x > 0 ? x : std::expm1(x); }) == 0);
  for (const float beta : {0.3f, 2.0f}) {
    INFO("softplus, beta " << beta);
    CHECK(wrong_numbers<T>(
              [=](float x) { return shaped_value<Math>(ShapedOp::softplus, x, beta); },
              [=](double x) { return value_of(UnaryOp::softplus, beta * x) / beta; }) == 0);
  }
}

}  // namespace

TEST_CASE("short functions are right for every number of 16 bits", "[elementwise]") {
  check_all<Half, ShortMath<Inexact<1>>>();
  check_all<Half, ShortMath<Inexact<-1>>>();
  check_all<Half, ShortMath<Flushing<1>>>();
  check_all<Half, ShortMath<Flushing<-1>>>();
  check_all<BFloat16, ShortMath<Inexact<1>>>();
  check_all<BFloat16, ShortMath<Inexact<-1>>>();
}
