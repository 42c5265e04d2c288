// Values that follow from a name and a place, the same in scripts/long/hashed_weights.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace binade::test {

// FNV-1a of the name, then SplitMix64 of its sums with 1, 2, …: 24 bits each.
inline std::vector<int64_t> hashes(const std::string& name, int64_t count) {
  uint64_t state = 0xcbf29ce484222325;
  for (const char c : name) state = (state ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  std::vector<int64_t> out;
  for (int64_t i = 0; i < count; ++i) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    out.push_back(static_cast<int64_t>((z ^ (z >> 31)) >> 40));
  }
  return out;
}

// Numbers in [−1, 1).
inline std::vector<double> directions(const std::string& name, int64_t count) {
  std::vector<double> out;
  for (const int64_t hash : hashes(name, count))
    out.push_back(static_cast<double>(hash) / (1 << 23) - 1);
  return out;
}

}  // namespace binade::test
