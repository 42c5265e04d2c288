// The short forms of an angle and its gradient, for elements of 16 bits. The processor's 1/x is
// stood in for by an exact one that is wrong by as much as it may be, in either direction.
#include <binade/core/kernels/angle_rules.h>

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

#include <binade/core/half.h>

using namespace binade;
using namespace binade::kernels;

namespace {

template <int kSign>
struct Inexact {
  static float reciprocal(float x) {
    return static_cast<float>(1 / double{x} * (1 + kSign * 0x1p-21));
  }
};

// The same with subnormal numbers taken for 0, going in and coming out, for elements of f16.
template <int kSign>
struct Flushing {
  static float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
  static float reciprocal(float x) { return flushed(Inexact<kSign>::reciprocal(flushed(x))); }
};

// The distance between neighbours of H at `value`.
template <class H>
double spacing(double value) {
  const double digits = std::is_same_v<H, Half> ? 10 : 7,
               least = std::is_same_v<H, Half> ? -24 : -133;
  const double exponent = std::floor(std::log2(std::max(std::fabs(value), 1e-300)));
  return std::exp2(std::max(exponent - digits, least));
}

// Worst distances from the values in f64, in spacings of H, over a fan of numbers of all sizes.
template <class H, class Instructions>
void check_all() {
  double worst_angle = 0, worst_slope = 0;
  for (uint32_t i = 0; i < 0x7c00u; i += 97)
    for (uint32_t j = 0; j < 0x7c00u; j += 89)
      for (const int sides : {0, 1, 2, 3}) {
        H first, second;
        first.bits = static_cast<uint16_t>(i | (sides & 1 ? 0x8000u : 0u));
        second.bits = static_cast<uint16_t>(j | (sides & 2 ? 0x8000u : 0u));
        const float y = static_cast<float>(first), x = static_cast<float>(second);
        const double angle = std::atan2(double{y}, double{x});
        worst_angle = std::max(
            worst_angle, std::fabs(short_atan2<Instructions>(y, x) - angle) / spacing<H>(angle));
        const double square = double{y} * y + double{x} * x;
        if (square == 0) continue;
        const double slope = x / square;
        if (std::fabs(slope) > static_cast<double>(std::numeric_limits<float>::max())) continue;
        const float got = short_angle_gradient<Instructions>(y, x, 1).a;
        worst_slope = std::max(worst_slope, std::fabs(got - slope) / spacing<H>(slope));
      }
  CHECK(worst_angle < 1.0 / 16);
  CHECK(worst_slope < 1.0 / 16);
}

}  // namespace

TEST_CASE("short angles are right for numbers of 16 bits", "[kernels][cpu]") {
  check_all<Half, Inexact<1>>();
  check_all<Half, Inexact<-1>>();
  check_all<Half, Flushing<1>>();
  check_all<Half, Flushing<-1>>();
  check_all<BFloat16, Inexact<1>>();
  check_all<BFloat16, Inexact<-1>>();
}

TEST_CASE("short angles have std::atan2's zeros, infinities and NaN", "[kernels][cpu]") {
  const float inf = INFINITY, numbers[] = {0.0f, -0.0f, 1.0f, -1.0f, inf, -inf, NAN, 1e-40f, 3e38f};
  for (const float y : numbers)
    for (const float x : numbers) {
      INFO("y " << y << ", x " << x);
      const float got = short_atan2<Inexact<1>>(y, x), expected = std::atan2(y, x);
      if (std::isnan(expected)) {
        CHECK(std::isnan(got));
      } else {
        CHECK(got == Approx(expected).epsilon(1e-5).margin(1e-42));
        CHECK(std::signbit(got) == std::signbit(expected));
      }
    }
  CHECK(std::isnan(short_angle_gradient<Inexact<1>>(0, 0, 1).a));
}
