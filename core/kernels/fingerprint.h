// A number that tells arrays apart: for comparing what several processes should have alike.
#pragma once

#include <cstdint>

#include <binade/core/host_device.h>
#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// sum (i64 scalar) = Σ fingerprint_term(i, word i) modulo 2^64 over the 32-bit words of a
// contiguous array, the last one filled up with zeros: it does not depend on the order, and differs
// for any change of one word.
BINADE_KERNEL(fingerprint, const Array& values, const Array& sum)

// A bijection of the word for each place: splitmix64's finaliser (Steele, Lea & Flood 2014).
BINADE_HOST_DEVICE inline uint64_t fingerprint_term(uint64_t place, uint32_t word) {
  uint64_t x = (place << 32 | word) + 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

}  // namespace binade::kernels
