#include <binade/core/error.h>
#include <binade/data/permutation.h>

#include <bit>

namespace binade::data {
namespace {

// The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed, uint64_t stream) : size_(size) {
  check(size >= 1 && size <= int64_t{1} << 62, "cannot permute ", size, " elements");
  half_bits_ = (std::bit_width(static_cast<uint64_t>(size - 1)) + 1) / 2;
  uint64_t key = mix(seed ^ mix(stream));
  for (uint64_t& round_key : keys_) round_key = key = mix(key);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (const uint64_t key : keys_) {
    const uint64_t next = left ^ (mix(right ^ key) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::operator()(int64_t index) const {
  auto value = static_cast<uint64_t>(index);
  do {
    value = encrypt(value);
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace binade::data
