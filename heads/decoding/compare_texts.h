// Whether speculative greedy decoding wrote what plain decoding writes.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/nn/models/causal_lm.h>

namespace binade::heads::decoding {

// Where two continuations of a prompt part. Passes of another size round differently, so that a
// different token is no fault where the logits of both are all but equal.
struct TextDifference {
  size_t text = 0;
  int64_t place = 0;                              // of the first token that differs
  int32_t plain = -1, speculative = -1;           // −1: this text ended
  double largest = 0;                             // logit of a plain pass there
  double plain_below = 0, speculative_below = 0;  // how far the tokens' logits lie below it
  double tolerance = 0;                           // what rounding may do
  bool near_tie() const { return plain_below <= tolerance && speculative_below <= tolerance; }
};

struct TextComparison {
  int64_t texts = 0;
  std::vector<TextDifference> differences;  // of the texts that are not equal, the first of each

  int64_t equal() const { return texts - static_cast<int64_t>(differences.size()); }
  int64_t near_ties() const;
  bool faultless() const { return near_ties() == static_cast<int64_t>(differences.size()); }
};

// The continuations of each prompt, without stop ids. Where one goes on behind the other's end, the
// other is taken to have chosen the likeliest of `stop_ids`. The tolerance is 16 rounding units
// (256 for f32, whose logits gather more of them) of the largest |logit|. A pass of the model for
// each difference.
TextComparison compare_texts(const nn::CausalLm& model,
                             const std::vector<std::vector<int32_t>>& prompts,
                             const std::vector<std::vector<int32_t>>& plain,
                             const std::vector<std::vector<int32_t>>& speculative,
                             const std::vector<int32_t>& stop_ids);

}  // namespace binade::heads::decoding
