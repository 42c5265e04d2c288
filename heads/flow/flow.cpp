#include <binade/heads/flow/flow.h>

#include <array>
#include <cmath>
#include <string_view>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>

namespace binade::heads::flow {

double shifted(double t, double shift) {
  return shift * t / (1 + (shift - 1) * t);
}

Tensor times_of(const Tensor& logit_times, double shift) {
  const Tensor t = sigmoid(logit_times);
  return shift == 1 ? t : shift * t / (1.0 + (shift - 1) * t);
}

Tensor noised(const Tensor& clean, const Tensor& noise, const Tensor& times) {
  return lerp(clean, noise, unsqueeze(times, -1));
}

std::vector<double> drawing_times(int64_t points, double shift) {
  check(points >= 2, "a drawing takes at least 2 points in time, got ", points);
  check(shift > 0, "times are shifted by a positive number, got ", shift);
  std::vector<double> times;
  for (int64_t i = 0; i < points; ++i)
    times.push_back(shifted(1 - static_cast<double>(i) / static_cast<double>(points - 1), shift));
  return times;
}

Renorm parse_renorm(std::string_view name) {
  constexpr std::array<std::string_view, 4> kNames = {"none", "global", "channel", "text_channel"};
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<Renorm>(i);
  fail("unknown renorm '", name, "'; there are none, global, channel and text_channel");
}

namespace {

// g at no more than the size of v, over the axes.
Tensor renormalised(const Tensor& g, const Tensor& v, const Axes& axes, double least) {
  constexpr double kTiny = 1e-8;  // 0 / 0 is no factor
  const Tensor factor = norm(v, 2, axes, true) / (norm(g, 2, axes, true) + kTiny);
  return g * clamp(factor, least, 1);
}

}  // namespace

Tensor guided(const Tensor& conditional, const Tensor& without_text, const Tensor& without_images,
              const Guidance& guidance) {
  const Axes token{-1}, image{-2, -1};
  Tensor g = without_text + guidance.text_scale * (conditional - without_text);
  if (guidance.renorm == Renorm::text_channel)
    g = renormalised(g, conditional, token, guidance.least_renorm);
  if (without_images.defined()) g = without_images + guidance.image_scale * (g - without_images);
  switch (guidance.renorm) {
    case Renorm::global:
      return renormalised(g, conditional, image, guidance.least_renorm);
    case Renorm::channel:
      return renormalised(g, conditional, token, guidance.least_renorm);
    default:
      return g;
  }
}

}  // namespace binade::heads::flow
