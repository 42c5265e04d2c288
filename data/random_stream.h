// Random numbers for making data on the host, one after another. A stream is a pure function of
// (seed, number), whoever reads it on whatever thread: what is made for step n comes from stream n.
#pragma once

#include <cstdint>

#include <binade/core/random.h>

namespace binade::data {

class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t number) : seed_(seed ^ kOwn), number_(number) {}

  uint32_t word() {
    if (next_ % 4 == 0) block_ = philox(seed_, number_, 0, next_ / 4);
    return block_.word[next_++ % 4];
  }
  double uniform() { return static_cast<double>(uniform_of(word())); }  // in [0, 1)
  bool chance(double probability) { return uniform() < probability; }
  // In [0, count), count in [1, 2^24].
  int64_t below(int64_t count) {
    return static_cast<int64_t>(uniform() * static_cast<double>(count));
  }
  double normal() {
    const uint32_t first = word();
    return normal_pair(first, word()).value[0];
  }

 private:
  // Keeps these numbers apart from what RandomState draws with the same seed.
  static constexpr uint64_t kOwn = 0x6461746173747265;

  uint64_t seed_, number_, next_ = 0;
  PhiloxBlock block_{};
};

}  // namespace binade::data
