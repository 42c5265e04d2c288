// Elementary functions that the compiler vectorises: no branches, no calls. In float they are
// within 3 ulp of the true value over the whole range (Φ: 6), handle inf, NaN and subnormal
// results, and give the same bits in a vector lane and alone. In double, which only gradient checks
// use, they are the C library's.
//
// Method: e^x = 2^n·(1 + p) with n = round(x / ln 2) and a polynomial p of what remains (Muller,
// "Elementary Functions", 3rd ed., ch. 11); the others are written in n and p so that nothing
// cancels. log x = k·ln 2 + log(1 + f) with x = 2^k·(1 + f), √½ ≤ 1 + f < √2. Polynomials are
// Chebyshev or minimax fits of the functions named beside them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// A function that was not inlined keeps the loop around it from being vectorised.
#define BINADE_LANE [[gnu::always_inline]] inline

namespace binade::kernels::cpu {

namespace detail {

struct ReducedExp {
  uint32_t n;  // two's complement
  float p;     // e^x = 2^n·(1 + p)
};

inline constexpr float kRound = 0x1.8p23f;  // adding it leaves the integer in the low bits

// expm1(r) for |r| ≤ ln 2 / 2.
BINADE_LANE float expm1_near_zero(float r) {
  float q = 0.00139261836f;  // (expm1(r) − r) / r²
  q = std::fma(q, r, 0.00836317905f);
  q = std::fma(q, r, 0.0416665546f);
  q = std::fma(q, r, 0.166665770f);
  q = std::fma(q, r, 0.5f);
  return std::fma(r * r, q, r);
}

// For |x| < 2^21; NaN gives p = NaN.
BINADE_LANE ReducedExp reduce_exp(float x) {
  const float shifted = std::fma(x, 1.44269504f, kRound);
  const float n = shifted - kRound;
  float r = std::fma(n, -0.693145752f, x);  // ln 2 in two parts: n times the first is exact
  r = std::fma(n, -1.42860682e-06f, r);
  return {std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound), expm1_near_zero(r)};
}

// 2^n for −126 ≤ n ≤ 127.
BINADE_LANE float power_of_two(uint32_t n) {
  return std::bit_cast<float>((n + 127u) << 23);
}

// x within [low, high]; NaN stays.
BINADE_LANE float clamp_keep_nan(float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
}

// 2^n·(1 + p) in two steps, so that results beyond the normal range overflow or round once.
BINADE_LANE float scaled(const ReducedExp& e) {
  const uint32_t first = static_cast<uint32_t>(static_cast<int32_t>(e.n) >> 1);
  return (1 + e.p) * power_of_two(first) * power_of_two(e.n - first);
}

// e^x − 1 for x in [−40, 89].
BINADE_LANE float expm1_reduced(float x) {
  const auto [n, p] = reduce_exp(x);
  const float half_scale = power_of_two(n - 1u);  // n = 128 would overflow
  return 2 * std::fma(p, half_scale, half_scale - 0.5f);
}

}  // namespace detail

BINADE_LANE float fast_exp(float x) {
  return detail::scaled(detail::reduce_exp(detail::clamp_keep_nan(x, -104.0f, 89.0f)));
}
inline double fast_exp(double x) {
  return std::exp(x);
}

BINADE_LANE float fast_exp2(float x) {
  const float within = detail::clamp_keep_nan(x, -151.0f, 129.0f);
  const float shifted = within + detail::kRound;
  const float r = within - (shifted - detail::kRound);  // exact
  return detail::scaled({std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(detail::kRound),
                         detail::expm1_near_zero(r * 0.693147182f)});
}
inline double fast_exp2(double x) {
  return std::exp2(x);
}

BINADE_LANE float fast_expm1(float x) {
  const float value = detail::expm1_reduced(detail::clamp_keep_nan(x, -40.0f, 89.0f));
  return x == 0 ? x : value;  // keeps −0
}
inline double fast_expm1(double x) {
  return std::expm1(x);
}

namespace detail {

struct ReducedLog {
  float k, f, rest;  // x = 2^k·(1 + f), log(1 + f) = f + rest
};

// For x > 0 and finite.
BINADE_LANE ReducedLog reduce_log(float x) {
  const bool tiny = x < 0x1p-126f;  // subnormal
  const uint32_t bits = std::bit_cast<uint32_t>(tiny ? x * 0x1p23f : x);
  constexpr uint32_t kRootHalf = 0x3f3504f3;
  const int32_t k = static_cast<int32_t>(bits - kRootHalf) >> 23;
  const float f = std::bit_cast<float>(bits - (static_cast<uint32_t>(k) << 23)) - 1;
  float q = -0.0764469877f;  // (log(1 + f) − f + f²/2) / f³
  q = std::fma(q, f, 0.127619118f);
  q = std::fma(q, f, -0.131560057f);
  q = std::fma(q, f, 0.142013699f);
  q = std::fma(q, f, -0.166238040f);
  q = std::fma(q, f, 0.200012669f);
  q = std::fma(q, f, -0.250008076f);
  q = std::fma(q, f, 0.333333313f);
  return {static_cast<float>(tiny ? k - 23 : k), f, f * f * std::fma(f, q, -0.5f)};
}

// `value`, which holds for x > 0 and finite, and what a logarithm is elsewhere.
BINADE_LANE float logarithm(float x, float value) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float above = x < kInf ? value : x;
  const float outside = x == 0 ? -kInf : std::numeric_limits<float>::quiet_NaN();
  return x > 0 ? above : outside;
}

}  // namespace detail

BINADE_LANE float fast_log(float x) {
  const auto [k, f, rest] = detail::reduce_log(x);
  // ln 2 in two parts: k times the first is exact.
  return detail::logarithm(x, std::fma(k, 0.693359375f, f + std::fma(k, -2.12194440e-4f, rest)));
}
inline double fast_log(double x) {
  return std::log(x);
}

BINADE_LANE float fast_log2(float x) {
  const auto [k, f, rest] = detail::reduce_log(x);
  return detail::logarithm(x, std::fma(f + rest, 1.44269504f, k));
}
inline double fast_log2(double x) {
  return std::log2(x);
}

// log(1 + x), and what 1 + x lost by rounding.
BINADE_LANE float fast_log1p(float x) {
  const float u = 1 + x;
  const bool ordinary = u > 0 && u < 0x1p60f;  // beyond, nothing that counts is lost
  const float lost = ordinary ? (x - (u - 1)) / u : 0.0f;
  const float value = fast_log(u) + lost;
  return x == 0 ? x : value;  // keeps −0
}
inline double fast_log1p(double x) {
  return std::log1p(x);
}

// log(1 + eˣ) without overflow, and without cancellation below 0.
template <class C>
BINADE_LANE C fast_softplus(C x) {
  return (x < 0 ? C{0} : x) + fast_log1p(fast_exp(-std::fabs(x)));
}

BINADE_LANE float fast_tanh(float x) {
  const float magnitude = std::fabs(x);
  const float e = detail::expm1_reduced(2 * (magnitude > 10.0f ? 10.0f : magnitude));
  return std::copysign(e / (e + 2), x);
}
inline double fast_tanh(double x) {
  return std::tanh(x);
}

// σ(x) and 1 − σ(x), both without cancellation.
template <class C>
struct Sigmoid {
  C value, rest;
};

template <class C>
BINADE_LANE Sigmoid<C> sigmoid_at(C x) {
  const C e = fast_exp(-std::fabs(x));
  const C larger = 1 / (1 + e), smaller = e * larger;
  return {x < 0 ? smaller : larger, x < 0 ? larger : smaller};
}

template <class C>
BINADE_LANE C fast_sigmoid(C x) {
  return sigmoid_at(x).value;
}

namespace detail {

// erfc(z)·e^(z²) for z in [0, 10.3], relative error 3e-8 before rounding: t·R(t), t = 1/(1 + 0.4
// z).
BINADE_LANE float scaled_erfc(float z) {
  const float t = 1 / std::fma(0.38f, z, 1.0f);
  float r = 0.059452467f;
  r = std::fma(r, t, -0.264733267f);
  r = std::fma(r, t, 0.369117698f);
  r = std::fma(r, t, -0.16768518f);
  r = std::fma(r, t, 0.234466451f);
  r = std::fma(r, t, 0.136703295f);
  r = std::fma(r, t, 0.204416787f);
  r = std::fma(r, t, 0.213846471f);
  r = std::fma(r, t, 0.214415296f);
  return t * r;
}

}  // namespace detail

BINADE_LANE float fast_erf(float x) {
  const float magnitude = std::fabs(x), square = x * x;
  const float z = magnitude > 4.0f ? 4.0f : magnitude;  // erf(4) rounds to 1
  const float tail = 1 - fast_exp(-z * z) * detail::scaled_erfc(z);
  float s = 7.87587506e-5f;  // erf(x) / x in x², |x| ≤ 1
  s = std::fma(s, square, -0.000801686429f);
  s = std::fma(s, square, 0.00518908742f);
  s = std::fma(s, square, -0.0268542120f);
  s = std::fma(s, square, 0.112835947f);
  s = std::fma(s, square, -0.376126267f);
  s = std::fma(s, square, 1.12837917f);
  return magnitude < 1 ? x * s : std::copysign(tail, x);
}
inline double fast_erf(double x) {
  return std::erf(x);
}

// The standard normal distribution at x: Φ(x), and its density φ(x).
template <class C>
struct Normal {
  C cdf, density;
};

BINADE_LANE Normal<float> normal_at(float x) {
  const float magnitude = std::fabs(x);
  const float a = magnitude > 14.5f ? 14.5f : magnitude;  // both are 0 beyond
  // e^(−a²/2), with the rounding error of a² put back: it is as large as a²/2 ulps otherwise.
  const float square = a * a;
  const float error = std::fma(a, a, -square);
  const float e = fast_exp(-0.5f * square);
  const float gauss = std::fma(e, -0.5f * error, e);
  const float tail = 0.5f * gauss * detail::scaled_erfc(a * 0.707106781f);
  const float outside = x < 0 ? tail : 1 - tail;
  float s = 9.43173717e-5f;  // (Φ(x) − ½) / x in x², |x| ≤ 1
  s = std::fma(s, square, -0.00116951927f);
  s = std::fma(s, square, 0.00996730152f);
  s = std::fma(s, square, -0.0664896040f);
  s = std::fma(s, square, 0.398942265f);
  return {magnitude < 1 ? std::fma(x, s, 0.5f) : outside, 0.398942280f * gauss};
}
inline Normal<double> normal_at(double x) {
  return {0.5 * std::erfc(-x * 0.70710678118654752440),
          0.39894228040143267794 * std::exp(-0.5 * x * x)};
}

}  // namespace binade::kernels::cpu
