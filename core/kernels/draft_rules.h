// What the acceptance rules share between CPU and GPU.
#pragma once

#include <cstdint>

#include <binade/core/host_device.h>
#include <binade/core/random.h>

namespace binade::kernels {

// The uniform in [0, 1) of 53 bits that decides about a node: heads/decoding/draws.h.
inline constexpr uint64_t kAcceptanceUse = 2, kNextUse = 3;
BINADE_HOST_DEVICE inline double draft_uniform(uint64_t seed, int32_t drawn, int32_t place,
                                               uint64_t use, int32_t node) {
  const PhiloxBlock words = philox(seed, static_cast<uint64_t>(drawn), static_cast<uint64_t>(place),
                                   use << 32 | static_cast<uint64_t>(node));
  const uint64_t bits = uint64_t{words.word[0] >> 5} << 26 | words.word[1] >> 6;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace binade::kernels
