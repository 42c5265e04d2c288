// Which draft tree to use. A larger tree is accepted further, but its verification costs more.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <binade/heads/decoding/draft_tree.h>
#include <binade/heads/decoding/rank_counts.h>

namespace binade::heads::decoding {

// The tree of `nodes` nodes, the root included, that grows from the root by one guess at a time:
// always the sibling next in rank or the first child with the highest count; of equals the one that
// sorts first. It has fewer nodes where no further guess ever hit. With counts that fall with the
// rank no other tree of this size is accepted further on the measured text. At most `depth` levels
// (0: as many as heads).
DraftTree search_tree(const RankCounts& counts, int64_t nodes, int64_t depth = 0);

// The same by the product of accuracies, as if heads hit independently (Cai et al. 2024, section
// 2.3.3): accuracies[head][rank] is that of exactly this rank. Throws Error for numbers outside of
// [0, 1] and for heads without or with differing numbers of ranks.
using RankAccuracies = std::vector<std::vector<double>>;
DraftTree search_tree(const RankAccuracies& accuracies, int64_t nodes);
RankAccuracies rank_accuracies(const RankCounts& counts);

// A tree for heads that nobody measured: by the accuracies published for Vicuna-7B's Medusa heads
// (top-1 and top-5; between and beyond them each rank hits a fixed share of the rank before).
DraftTree published_tree(int64_t heads, int64_t nodes);

// Tokens that a greedy pass emits on the measured text, on average: 1 and the guesses accepted.
double expected_tokens(const DraftTree& tree, const RankCounts& counts);

// What passes cost on a machine, measured for one batch size, in seconds.
struct MachineCosts {
  struct Pass {
    int64_t nodes;
    double seconds;
  };
  int64_t batch = 1;
  double plain = 0;          // a step of plain decoding
  std::vector<Pass> verify;  // by ascending nodes; a count between two costs what the larger does
  // Entry d − 1: drafting d levels; deeper trees cost the last entry. One entry: heads that draft
  // all levels at once.
  std::vector<double> draft;
};

struct TreeChoice {
  DraftTree tree;      // the root alone: do not speculate
  double tokens = 1;   // a pass and row
  double seconds = 0;  // a pass
  double tokens_per_second = 0, plain_tokens_per_second = 0;

  bool speculate() const { return tree.size() > 1; }
  std::string advice() const;  // a sentence with the figures
};

// The tree that emits most tokens a second; of equals the smaller. Trees larger than the largest
// measured pass are not considered. Throws Error for costs that are missing, not positive (drafting
// may cost 0) or not in order, and for counts without positions.
TreeChoice best_tree_for(const MachineCosts& machine, const RankCounts& counts);

}  // namespace binade::heads::decoding
