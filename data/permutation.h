// A random permutation that needs no memory.
#pragma once

#include <cstdint>

namespace binade::data {

// A keyed bijection of [0, size): a balanced Feistel network over the next power of four, and a
// walk along its cycles until a value falls inside (Black & Rogaway 2002, "Ciphers with arbitrary
// finite domains"). Any element can be asked for at any time, so a shuffled order is resumed from a
// counter alone.
class Permutation {
 public:
  // Error unless size is in [1, 2^62]. Different (seed, stream) give unrelated permutations.
  Permutation(int64_t size, uint64_t seed, uint64_t stream);

  int64_t size() const { return size_; }
  int64_t operator()(int64_t index) const;  // index in [0, size)

 private:
  static constexpr int kRounds = 12;  // four are enough for large sizes, but not for ten elements

  uint64_t encrypt(uint64_t value) const;

  int64_t size_;
  int half_bits_;  // of a value
  uint64_t keys_[kRounds];
};

}  // namespace binade::data
