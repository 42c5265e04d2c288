// The random numbers of speculative decoding: each is a function of (seed, place, pass, use,
// element), so that a text does not depend on what else a batch holds, nor on the order of work.
#pragma once

#include <cstdint>

#include <binade/core/random.h>

namespace binade::heads::decoding {

// What draws of one pass of one sequence are for; they share nothing with each other, nor with
// infer::sample, which draws from block 0 of the same seed, step and place.
enum class DrawUse : uint64_t { draft = 1, acceptance = 2, next = 3 };

struct Draws {
  uint64_t seed = 0;
  uint64_t pass = 0;   // a number that the sequence never has twice: that of its tokens so far
  uint64_t place = 0;  // of the sequence, below 2^24

  // In [0, 1), of 53 bits. element < 2^32: a node, or the number of a draft.
  double uniform(DrawUse use, int64_t element) const {
    const uint64_t block = static_cast<uint64_t>(use) << 32 | static_cast<uint64_t>(element);
    const PhiloxBlock words = philox(seed, pass, place, block);
    const uint64_t bits = uint64_t{words.word[0] >> 5} << 26 | words.word[1] >> 6;
    return static_cast<double>(bits) * 0x1p-53;
  }
};

}  // namespace binade::heads::decoding
