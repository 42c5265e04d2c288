// RankCounts: where the true continuation stands among the guesses of each head. Measured on text
// whose continuation is known, it gives the heads' accuracies and says which draft tree pays.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include <binade/heads/decoding/draft_tree.h>

namespace binade::heads::decoding {

class RankCounts {
 public:
  // Heads with `width` guesses each.
  RankCounts(int64_t heads, int64_t width);

  // One position: ranks[k] is that of the true token at depth k + 1 under head k + 1; negative or ≥
  // width: it is not among the guesses. Fewer ranks than heads where the text ends before; more are
  // an Error. A guess that depends on the guesses before it (sequential modules, a draft model) is
  // ranked behind the true ones.
  void record(std::span<const int32_t> ranks);
  // Adds what was counted elsewhere: other rows of a batch, other ranks. Throws Error unless heads
  // and width are equal.
  void merge(const RankCounts& other);

  int64_t heads() const { return static_cast<int64_t>(labels_.size()); }
  int64_t width() const { return width_; }
  int64_t labels(int64_t head) const { return labels_.at(static_cast<size_t>(head)); }
  // Positions recorded.
  int64_t positions() const { return joint({}); }
  // Positions whose true continuation's ranks begin with `path`.
  int64_t joint(const DraftTree::Path& path) const;
  // The share of head `head`'s (from 0) labels that are its guess of exactly this rank; 0 without
  // labels.
  double accuracy(int64_t head, int64_t rank) const;
  // … that are among its first n guesses.
  double top(int64_t head, int64_t n) const;

 private:
  // Of guesses [first, end).
  double share(int64_t head, int64_t first, int64_t end) const;

  int64_t width_;
  std::vector<int64_t> labels_;             // (heads)
  std::vector<std::vector<int64_t>> hits_;  // (heads, width)
  std::map<DraftTree::Path, int64_t> joint_;
};

// Records the positions of a text at which greedy passes with `tree` begin: the first, and each
// time the one behind what the pass before accepted and the token that it gave. With the root alone
// that is every position. ranks[i]: as record() takes them, of the pass whose root is token i.
void record_passes(RankCounts& counts, const DraftTree& tree,
                   std::span<const std::vector<int32_t>> ranks);

}  // namespace binade::heads::decoding
