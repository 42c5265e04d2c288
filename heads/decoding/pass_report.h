// PassReport: what a pass of speculative decoding drafted and what became of it, on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <binade/heads/decoding/acceptance.h>
#include <binade/heads/decoding/proposer.h>

namespace binade::heads::decoding {

// How a report lies in memory: one array of i32, so that one copy brings it to the host.
struct PassLayout {
  int64_t slots = 0;
  int64_t nodes = 0;              // N
  int64_t longest = 0;            // M: nodes of the longest path
  int64_t heads = 0, width = 0;   // K and W of Drafts::guesses, 0 where there are none
  std::optional<DraftTree> tree;  // of all slots; otherwise the report has the parents

  static PassLayout of(const Drafts& drafts);
  int64_t numbers() const;  // of the array
  bool operator==(const PassLayout& other) const;
};

// The array of a report as its parts.
struct PassParts {
  PassParts(const PassLayout& layout, const Array& values);
  Array status, kept, counts, next;       // (S)
  Array nodes, tokens, parents, guesses;  // (S, M), (S, N), (S, N) or undefined, (S, K·W) or …
};

class PassReport {
 public:
  // values: an array of layout.numbers() i32 on the host.
  PassReport(const PassLayout& layout, const Array& values);

  int64_t slots() const { return layout_.slots; }
  // What of the pass is text now, in order; empty where the slot was not running. Throws Error if
  // logits of the slot had a NaN or nothing but −∞.
  const std::vector<int32_t>& emitted(int64_t slot) const;
  // How many of them were guesses; they come first.
  int64_t guessed(int64_t slot) const;
  bool running(int64_t slot) const;  // whether the slot goes on
  // Of a slot that was running.
  Proposal proposal(int64_t slot) const;
  const Accepted& accepted(int64_t slot) const;
  // The ranks of heads 1, 2, … (as far as `text`, the tokens behind the root, is known): of its
  // tokens among the heads' guesses; where guesses depend on guesses, of the accepted nodes among
  // their siblings, up to the first depth at which none was right. −1: not among them.
  // Heads that ranks() tells of at most; 0 where nothing was guessed.
  int64_t rank_heads() const;
  std::vector<int32_t> ranks(int64_t slot, std::span<const int32_t> text) const;

 private:
  struct Slot {
    int32_t status, kept;
    std::vector<int32_t> emitted, tokens, guesses;
    Accepted accepted;
    std::optional<DraftTree> tree;
  };
  const Slot& slot(int64_t slot) const { return slots_.at(static_cast<size_t>(slot)); }
  const DraftTree& tree(int64_t slot) const;

  PassLayout layout_;
  std::vector<Slot> slots_;
};

}  // namespace binade::heads::decoding
