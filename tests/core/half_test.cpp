// Half conversions against arithmetic on integers: a 16-bit pattern is a whole multiple of the
// format's smallest subnormal, a float of 2^-149, so rounding is a comparison of remainders.
#include <binade/core/half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <immintrin.h>

#include <catch2/catch.hpp>

#include <binade/core/array.h>

using namespace binade;

namespace {

// The processor's conversions. Tests are compiled without -mf16c, so half.h has its software path
// here; the library was compiled with it, which shows where arrays are converted.
__attribute__((target("f16c"))) uint16_t f16c_float_to_bits(float value) {
  return static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
}
__attribute__((target("f16c"))) float f16c_bits_to_float(uint16_t bits) {
  return _cvtsh_ss(bits);
}

struct Format {
  int exponent_bits, mantissa_bits;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
};
constexpr Format kHalf{5, 10};
constexpr Format kBFloat16{8, 7};

bool is_nan(Format format, uint16_t bits) {
  return (bits & 0x7fffu) > format.infinity();
}

// The value of a finite or infinite pattern, by the definition of the format.
double value_of(Format format, uint16_t bits) {
  const int exponent = (bits & 0x7fff) >> format.mantissa_bits;
  const int mantissa = bits & ((1 << format.mantissa_bits) - 1);
  const int hidden = exponent == 0 ? 0 : 1 << format.mantissa_bits;
  double magnitude =
      std::ldexp(mantissa + hidden, std::max(exponent, 1) - format.bias() - format.mantissa_bits);
  if ((bits & 0x7fffu) == format.infinity()) magnitude = std::numeric_limits<double>::infinity();
  return bits >> 15 ? -magnitude : magnitude;
}

// The pattern nearest to a float that is not NaN, ties to even, with integers only.
uint16_t nearest(Format format, float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 31) << 15;
  const int exponent = static_cast<int>(bits >> 23 & 0xff);
  if (exponent == 255) return static_cast<uint16_t>(sign | format.infinity());
  // |value| = significand · 2^power.
  const uint64_t significand = (bits & 0x7fffff) | (exponent ? 0x800000 : 0);
  const int power = std::max(exponent, 1) - 127 - 23;
  if (significand == 0) return static_cast<uint16_t>(sign);
  // The spacing of the format's numbers around |value| is 2^unit.
  const int top = power + std::bit_width(significand) - 1;
  const int unit = std::max(top, 1 - format.bias()) - format.mantissa_bits;
  const int dropped = unit - power;
  uint64_t steps;  // |value| in units, rounded
  if (dropped <= 0) {
    steps = significand << -dropped;
  } else if (dropped > 40) {
    steps = 0;
  } else {
    const uint64_t rest = significand & ((uint64_t{1} << dropped) - 1);
    const uint64_t tie = uint64_t{1} << (dropped - 1);
    steps = significand >> dropped;
    if (rest > tie || (rest == tie && steps % 2 == 1)) ++steps;
  }
  // A pattern counts units from 0 up, each binade adding a mantissa's worth, carries included.
  const int binade = unit - (1 - format.bias() - format.mantissa_bits);
  const uint64_t pattern = (static_cast<uint64_t>(binade) << format.mantissa_bits) + steps;
  return static_cast<uint16_t>(sign | std::min<uint64_t>(pattern, format.infinity()));
}

// Floats around every number of the format: itself, the midpoints to its neighbours, and a float's
// step to either side of them.
std::vector<float> critical_floats(Format format) {
  std::vector<float> values;
  for (uint32_t bits = 0; bits < format.infinity(); ++bits) {
    const double here = value_of(format, static_cast<uint16_t>(bits));
    const double step = here - (bits ? value_of(format, static_cast<uint16_t>(bits - 1)) : 0);
    for (const double at : {here, here - step / 2, here + step / 2}) {
      const float middle = static_cast<float>(at);
      for (const float value :
           {std::nextafter(middle, -INFINITY), middle, std::nextafter(middle, INFINITY)})
        for (const float both : {value, -value}) values.push_back(both);
    }
  }
  for (const float value : {65519.996f, 65520.0f, 65536.0f, 1e30f, 3.4028235e38f, 1e-45f, 1e-40f,
                            2.9802322e-8f, 2.9802326e-8f, INFINITY})
    for (const float both : {value, -value}) values.push_back(both);
  return values;
}

template <class ToBits>
int count_misrounded(Format format, ToBits to_bits) {
  int wrong = 0;
  for (const float value : critical_floats(format))
    wrong += to_bits(value) != nearest(format, value);
  return wrong;
}

template <class ToFloat>
int count_misread(Format format, ToFloat to_float) {
  int wrong = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = to_float(bits);
    if (is_nan(format, bits))
      wrong += !std::isnan(value) || std::signbit(value) != (bits >> 15 == 1);
    else
      wrong += static_cast<double>(value) != value_of(format, bits) ||
               std::signbit(value) != (bits >> 15 == 1);
  }
  return wrong;
}

// NaNs stay NaNs of their sign, also those whose payload lies in the bits that are dropped.
template <class ToBits>
int count_lost_nans(Format format, ToBits to_bits) {
  int wrong = 0;
  for (const uint32_t payload : {0x400000u, 0x1u, 0x1fffu, 0x2000u, 0x3fffffu, 0x7fffffu})
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const uint16_t bits = to_bits(std::bit_cast<float>(sign | 0x7f800000u | payload));
      wrong += !is_nan(format, bits) || bits >> 15 != sign >> 31;
    }
  return wrong;
}

}  // namespace

TEST_CASE("every f16 and bf16 pattern reads as its value", "[half]") {
  CHECK(count_misread(kHalf, detail::half_bits_to_float) == 0);
  CHECK(count_misread(kHalf, f16c_bits_to_float) == 0);
  CHECK(count_misread(kBFloat16, detail::bfloat16_bits_to_float) == 0);
}

TEST_CASE("floats round to the nearest f16 and bf16, ties to even", "[half]") {
  CHECK(count_misrounded(kHalf, detail::float_to_half_bits) == 0);
  CHECK(count_misrounded(kHalf, f16c_float_to_bits) == 0);
  CHECK(count_misrounded(kBFloat16, detail::float_to_bfloat16_bits) == 0);
}

TEST_CASE("every f16 and bf16 pattern survives the way through float", "[half]") {
  int changed = 0;
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    if (!is_nan(kHalf, bits)) {
      changed += Half(detail::half_bits_to_float(bits)).bits != bits;
      changed += f16c_float_to_bits(f16c_bits_to_float(bits)) != bits;
    }
    if (!is_nan(kBFloat16, bits))
      changed += BFloat16(detail::bfloat16_bits_to_float(bits)).bits != bits;
  }
  CHECK(changed == 0);
}

TEST_CASE("NaN stays NaN in f16 and bf16", "[half]") {
  CHECK(count_lost_nans(kHalf, detail::float_to_half_bits) == 0);
  CHECK(count_lost_nans(kHalf, f16c_float_to_bits) == 0);
  CHECK(count_lost_nans(kBFloat16, detail::float_to_bfloat16_bits) == 0);
}

TEST_CASE("the software conversion to f16 equals the processor's on random floats", "[half]") {
  uint32_t bits = 12345;
  int differ = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const float value = std::bit_cast<float>(bits ^ bits >> 15);
    differ += f16c_float_to_bits(value) != detail::float_to_half_bits(value);
  }
  CHECK(differ == 0);
}

TEST_CASE("arrays convert between f32 and the halves as single values do", "[half]") {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Format format = dtype == DType::f16 ? kHalf : kBFloat16;
    const std::vector<float> values = critical_floats(format);
    const Array halves = Array::from(values, {static_cast<int64_t>(values.size())}).to(dtype);
    const auto* bits = static_cast<const uint16_t*>(halves.data());
    int64_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) wrong += bits[i] != nearest(format, values[i]);
    CHECK(wrong == 0);

    const std::vector<float> back = halves.to_vector<float>();
    wrong = 0;
    for (size_t i = 0; i < values.size(); ++i)
      wrong += static_cast<double>(back[i]) != value_of(format, bits[i]);
    CHECK(wrong == 0);
  }
}
