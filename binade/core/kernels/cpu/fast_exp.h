// An exponential that the compiler can vectorise (private to the CPU kernels).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace binade::kernels::cpu {

// exp(x) within 2 ulp. Results below 2^-125 are 0; NaN stays NaN. Method: x = n·ln 2 + r with
// |r| ≤ ln(2)/2, the polynomial of Cephes' expf for exp(r), and 2^n put together from its bits.
inline float fast_exp(float x) {
  constexpr float kLow = -87.3f, kHigh = 88.8f;  // n = -126 gives 0, n = 128 infinity
  x = x < kLow ? kLow : x;
  x = x > kHigh ? kHigh : x;
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer, left in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) + 126u;  // of 2^(n-1)
  return p * std::bit_cast<float>(exponent << 23) * 2.0f;
}

inline double fast_exp(double x) {
  return std::exp(x);
}

}  // namespace binade::kernels::cpu
