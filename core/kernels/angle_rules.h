// The angle of a point and its gradient for elements of 16 bits, as unary_rules.h has ShortMath for
// functions of one number: in float, on the processor's approximation of 1/x. They compile for the
// host, too, where tests take them through the numbers of 16 bits.
#pragma once

#include <cmath>

#include <binade/core/host_device.h>
#include <binade/core/kernels/gradient_rules.h>

namespace binade::kernels {

// Up to here, 1/x may leave float's range.
inline constexpr float kTinyLength = 0x1p-100f;

// The angle of (x, y). atan t = t·P(t²) on [0, 1] (a minimax fit, 2^-17.8); what it is off by
// before rounding stays below an eighth of half an ulp of f16 and bf16. Signs of zeros, infinities
// and NaN as std::atan2 has them.
template <class Instructions>
BINADE_HOST_DEVICE inline float short_atan2(float y, float x) {
  float height = std::fabs(y), width = std::fabs(x);
  const bool is_steep = height > width;
  float longer = is_steep ? height : width, shorter = is_steep ? width : height;
  if (longer < kTinyLength) {
    longer *= 0x1p60f;
    shorter *= 0x1p60f;
  }
  float t = shorter * Instructions::reciprocal(longer);
  if (shorter == longer) t = longer == 0.0f ? 0.0f : 1.0f;  // two zeros, or two infinities
  const float s = t * t;
  float p = -0.013480454683303833f;
  p = std::fma(p, s, 0.057477276772260666f);
  p = std::fma(p, s, -0.12123903632164001f);
  p = std::fma(p, s, 0.19563591480255127f);
  p = std::fma(p, s, -0.33299461007118225f);
  p = std::fma(p, s, 0.9999956488609314f);
  float angle = t * p;
  if (is_steep) angle = 1.57079632679489662f - angle;
  if (std::signbit(x)) angle = 3.14159265358979324f - angle;
  return x != x || y != y ? x + y : std::copysign(angle, y);
}

// The gradient of atan2(a, b), dy·b/(a² + b²) and −dy·a/(a² + b²), of numbers that the longer side
// divides. NaN at the origin, as that of AnyBinaryRule.
template <class Instructions>
BINADE_HOST_DEVICE inline OperandGradients<float> short_angle_gradient(float a, float b, float dy) {
  const float longest = std::fmax(std::fabs(a), std::fabs(b));
  const float scale = longest < kTinyLength ? 0x1p60f : 1.0f;
  const float unit = Instructions::reciprocal(longest * scale);
  const float u = a * scale * unit, v = b * scale * unit;
  const float square = Instructions::reciprocal(u * u + v * v);
  const auto part = [&](float side) { return dy * side * square * unit * scale; };
  return {part(v), -part(u), 0.0f};
}

}  // namespace binade::kernels
