// Guesses with chance in them, for proposers whose guesses depend on guesses: drawn on the host,
// which waits for the device.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/heads/decoding/proposer.h>
#include <binade/infer/sampling.h>

namespace binade::heads::decoding {

struct DrawnGuessOptions {
  infer::SamplingOptions sampling;  // what guesses are drawn from
  int64_t vocabulary = 0;           // V: the target's
  std::vector<int32_t> names;       // the tokens of the logits' columns; empty: all of V
};

// The guesses of a chain: node n's from the distribution that is row n − 1 of q.
class DrawnGuesses {
 public:
  explicit DrawnGuesses(DrawnGuessOptions options) : options_(std::move(options)) {}
  // Makes q for drafts whose tokens (S, N) are allocated, and says how they were drawn.
  void prepare(Drafts& drafts) const;
  // Node `number` ≥ 1 of every slot, from logits (S, columns).
  void draw(const Array& logits, int64_t number, const BatchDraws& draws,
            const Drafts& drafts) const;

 private:
  DrawnGuessOptions options_;
};

}  // namespace binade::heads::decoding
