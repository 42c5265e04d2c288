// The distribution over the next token that logits and SamplingOptions stand for, on the host.
// sample() draws from it; speculative decoding compares it with that of the drafts.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <binade/infer/sampling.h>

namespace binade::infer {

// Throws Error that begins with `what`, for example "the logits of row 2", for a NaN and for
// logits (V) that are all −∞.
void check_logits(std::span<const float> logits, std::string_view what);

// The token that greedy decoding takes from logits (V): of equals the smallest.
int32_t most_probable(std::span<const float> logits);

// The tokens that are left after top-k and top-p, most probable first, of equals the smaller first.
struct LeftTokens {
  std::vector<int32_t> tokens;
  std::vector<double> weights;  // their probabilities times a common factor
  double total = 0;             // of the weights
};
// The temperature must be positive.
LeftTokens left_tokens(std::span<const float> logits, const SamplingOptions& options);

// Probabilities (V), which sum to 1 within rounding: of logits / temperature, then top-k, then
// top-p. All on one token for temperature 0. Throws Error as check_logits() does, and for options
// out of range.
std::vector<double> token_probabilities(std::span<const float> logits,
                                        const SamplingOptions& options, std::string_view what);

}  // namespace binade::infer
