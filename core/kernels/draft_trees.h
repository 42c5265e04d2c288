// Kernels of draft trees whose form follows the text (EAGLE-2, Li et al. 2024): levels of guesses,
// of which the best are guessed behind, and in the end the best of all. Like those of drafts.h they
// read from the device whatever changes from pass to pass, and arrays are contiguous i32 where
// nothing else is said.
//
// Guess m of a slot, in the order in which they were made, is node m + 1 of the tree of all; node 0
// is the root. Of two guesses the one with the higher score is better, of equals the one that was
// made first: so no guess is better than its parent.
#pragma once

#include <binade/core/kernels/drafts.h>

namespace binade::kernels {

inline constexpr int64_t kMostTreeWidth = kMostTopTokens;
// Guesses of a slot: a level of one row and those of kMostPending rows behind it.
inline constexpr int64_t kMostPool = kMostTreeWidth + kMostPending * kMostTreeWidth;

// scores (R, k) f32: the logarithm of the softmax of logits (R, V), f32 or half with a contiguous
// last dimension, at columns (R, k); never above 0. −∞ where the column is negative,
// or its logit −∞.
BINADE_KERNEL(log_probabilities, const Array& logits, const Array& columns, const Array& scores)

// What was guessed for each slot, M ≤ kMostPool in all.
struct DraftPool {
  Array scores;   // (S, M) f32: the sum of the logarithms along the guess's path
  Array tokens;   // (S, M)
  Array parents;  // (S, M): numbers of nodes
};

// Nodes that guesses are made behind: P of each slot.
struct TreeBeams {
  Array ids;      // (S, P): their tokens, 0 where a token is negative
  Array scores;   // (S, P) f32
  Array nodes;    // (S, P): their numbers
  Array visible;  // (S, P) i64: bit n is set where pending token n is seen
  Array sources;  // (S, P): the rows that they were guessed in, among those of the level before
};

struct TreeLevel {
  Array columns;  // (S·P, W): the guesses behind each of P nodes, as columns of logits; −1: none
  Array scores;   // (S·P, W) f32: log_probabilities()
  Array names;    // (N): the tokens of columns; undefined: columns are tokens
  int64_t first;  // guesses that the pool has
  int64_t pending;  // tokens that the next beams are pending behind
};
// Adds a level to the pool behind `behind` (of the first level all its arrays are undefined: the
// root, P = 1), and where next's arrays are defined puts its W best there, (S, W) each. W ≤ P·W.
BINADE_KERNEL(grow_tree, const TreeLevel& level, const TreeBeams& behind, const DraftPool& pool,
              const TreeBeams& next)

// drafts (S, N): the root (S) and the N − 1 best of the pool, in the order in which they were made,
// with their parents among themselves. N ≤ kMostPending, N − 1 ≤ M.
BINADE_KERNEL(best_nodes, const DraftPool& pool, const Array& root, const DraftNodes& drafts)

}  // namespace binade::kernels
