// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/core/array.h>

namespace binade::infer {

struct SamplingOptions {
  double temperature = 0;  // logits are divided by it; 0: greedy
  int64_t top_k = 0;       // keep the k most probable tokens; 0: all
  double top_p = 1;  // then the fewest tokens whose probabilities reach p (Holtzman et al. 2020)
  uint64_t seed = 0;

  void validate() const;  // throws Error for values out of range
};

// One token a row of logits (B, V), any floating dtype and device. Row b of step s draws its
// uniform from Philox at (seed, step s, place b), whatever else the batch holds. `forbidden` tokens
// are never chosen. Reads the result back (host synchronisation); Decoder (decoder.h) does not.
std::vector<int32_t> sample(const Array& logits, const SamplingOptions& options, uint64_t step,
                            const std::vector<int32_t>& forbidden = {});

}  // namespace binade::infer
