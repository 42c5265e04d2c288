// The arithmetic of sampling, once for CPU and GPU: probabilities as integers, whose sums are exact
// in any order.
#pragma once

#include <cmath>
#include <cstdint>

#include <binade/core/host_device.h>

namespace binade::kernels {

// exp((logit − largest) / temperature) in units of 2^-40, at most 2^40. `largest` may be +∞.
BINADE_HOST_DEVICE inline uint64_t sample_weight(float logit, float largest, double temperature) {
  if (logit == largest) return uint64_t{1} << 40;
  const double x = (static_cast<double>(logit) - static_cast<double>(largest)) / temperature;
  return static_cast<uint64_t>(std::rint(std::exp(x) * 0x1p40));
}

// The least sum of weights that reaches top_p of `total`, from 1 to total.
BINADE_HOST_DEVICE inline uint64_t top_p_target(double top_p, uint64_t total) {
  const double share = std::ceil(top_p * static_cast<double>(total));
  const auto target = static_cast<uint64_t>(share);
  return target < 1 ? 1 : target < total ? target : total;
}

// Where a uniform in [0, 1) falls: below total. The first token whose running sum of weights
// exceeds it is drawn.
BINADE_HOST_DEVICE inline uint64_t draw_target(double uniform, uint64_t total) {
  return static_cast<uint64_t>(uniform * static_cast<double>(total));
}

}  // namespace binade::kernels
