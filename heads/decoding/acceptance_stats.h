// AcceptanceStats: how far drafts are accepted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <binade/heads/decoding/acceptance.h>

namespace binade::heads::decoding {

// Where a text ends.
struct TextEnd {
  std::span<const int32_t> stop_ids;  // tokens that end it
  int64_t room = INT64_MAX;           // tokens that it may still grow by
};

// Tokens that a pass adds to the text: the accepted guesses and the one behind them, up to the
// first that ends it (which counts), at most `room`.
int64_t emitted_tokens(const Proposal& proposal, const Accepted& accepted, const TextEnd& end);

class AcceptanceStats {
 public:
  // One pass of one sequence; gives emitted_tokens(). What is accepted beyond the end of the text
  // does not count, neither here nor by depth. Passes over prompts are not recorded.
  int64_t record(const Proposal& proposal, const Accepted& accepted, const TextEnd& end = {});
  // Adds what other rows, threads or ranks recorded.
  void merge(const AcceptanceStats& other);

  int64_t passes() const { return passes_; }    // of the target, a sequence each
  int64_t emitted() const { return emitted_; }  // tokens
  // τ: tokens emitted a pass; the one behind the accepted guesses counts. 1 for plain decoding.
  double tau() const;

  // Of the deepest guess that was offered.
  int64_t depth() const { return static_cast<int64_t>(offered_.size()); }
  // Passes whose accepted path reached depth − 1 and had guesses there, and passes that accepted
  // one of them; depth from 1.
  int64_t offered(int64_t depth) const;
  int64_t accepted(int64_t depth) const;
  // The conditional acceptance: accepted / offered, 0 where nothing was offered.
  double acceptance(int64_t depth) const;

 private:
  int64_t passes_ = 0, emitted_ = 0;
  std::vector<int64_t> offered_, accepted_;  // by depth − 1
};

}  // namespace binade::heads::decoding
