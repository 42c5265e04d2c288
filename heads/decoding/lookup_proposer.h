// Prompt lookup: what followed the last n tokens where they stood before (Saxena 2023; "prompt
// lookup decoding"). It costs nothing but the verification, and pays where texts repeat themselves:
// summaries, code that is edited, answers that quote.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <binade/heads/decoding/proposer.h>

namespace binade::heads::decoding {

struct LookupOptions {
  int64_t longest = 3;  // n-grams that are looked for, the longest first
  int64_t shortest = 1;
  int64_t guesses = 10;  // drafted at most, below kMostNodes

  void validate() const;  // throws Error for values out of range
};

// What may follow `text`: the tokens behind the latest earlier place of its last n tokens, for the
// largest n that has one; none where there is none. A place that is so late that the text ends
// before there are enough tokens is continued by what it has given: texts that repeat are
// continued in their period. Takes time in proportion to the text.
std::vector<int32_t> lookup(std::span<const int32_t> text, const LookupOptions& options);

// Chains of guesses, as long as the longest of the slots' matches.
class LookupProposer : public Proposer {
 public:
  LookupProposer(int64_t slots, const LookupOptions& options, Device device = {});

  ProposerNeeds needs() const override { return {.text = true}; }
  void observe(const Observation& observation) override;
  Drafts propose(const BatchDraws& draws) override;

 private:
  LookupOptions options_;
  Device device_;
  std::vector<std::vector<int32_t>>
      texts_;  // of each slot that is running; the last token has not been fed
};

}  // namespace binade::heads::decoding
