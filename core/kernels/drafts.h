// Kernels of speculative decoding: guesses at what follows, and which of them the target's logits
// accept. Like those of decode.h they read from the device whatever changes from pass to pass.
//
// A pass drafts N tokens for each of S slots, nodes of a tree whose node 0, the root, is the slot's
// newest token. Arrays are contiguous i32 where nothing else is said.
#pragma once

#include <binade/core/kernels/decode.h>

namespace binade::kernels {

inline constexpr int64_t kMostTopTokens = 16;

// tokens (R, k) i32, rows with a contiguous last dimension: the k most probable tokens of each row
// of logits (R, V), most probable first, of equals the smaller id first. k ≤ kMostTopTokens, k ≤ V
// < 2^31. A row with a NaN, or nothing but −∞, has −1 in all places. Logits have a contiguous last
// dimension. names (V) i32, contiguous, are the ids of the columns in ascending order; undefined:
// column i is token i.
BINADE_KERNEL(top_tokens, const Array& logits, const Array& names, const Array& tokens)

// tokens (S, N): the root (S), and behind it guesses (S, G) as `candidates` (N) picks them: node n
// has guess candidates[n] − 1.
BINADE_KERNEL(draft_tokens, const Array& root, const Array& guesses, const Array& candidates,
              const Array& tokens)

// ids (S, N): tokens, and 0 where they are negative, so that a model can be fed with them.
BINADE_KERNEL(feedable_tokens, const Array& tokens, const Array& ids)

// depths (S, N) i32 and visible (S, N) i64 of trees given by parents (S, N), see infer::TokenTree.
// N ≤ kMostPending. A parent that is not before its node counts as the node before it.
BINADE_KERNEL(tree_shapes, const Array& parents, const Array& depths, const Array& visible)

// What modules of multi-token prediction learn of accepted tokens (S, M), of which the first
// counts[s] are real: each the token that follows it, the last one next[s].
struct LearntTokens {
  Array tokens;   // (S, M); next[s] where nothing is real
  Array counts;   // (S): those given
  Array running;  // (S) bool: whether any is real
  Array newest;   // (S): the last that is real, else the first, among S·M
};
BINADE_KERNEL(learnt_tokens, const Array& accepted, const Array& counts, const Array& next,
              const LearntTokens& learnt)

// kept (S, D), contiguous: row sources[s] of rows (R, D), contiguous and of the same dtype, where
// running[s] (bool); undefined sources: row s.
BINADE_KERNEL(keep_rows, const Array& rows, const Array& sources, const Array& running,
              const Array& kept)

// A pass of a module: for each slot C columns of the text, of which the first counts[s] count, and
// behind them G nodes of a draft tree, numbered from 1 as its root is the newest token of the text.
// C + G ≤ kMostPending.
struct ModulePass {
  Array counts;           // (S)
  Array depths, visible;  // (G) i32 and i64: of the nodes among themselves, children of the root 0
  Array parents;          // (G): the number of a node's parent, 0 for the root
  int64_t columns;        // C
  int64_t rows_above;     // of the pass of the depth above, per slot: C and some of the nodes
};
struct ModulePassRows {
  Array depths, visible;  // (S, C + G) i32 and i64, see infer::TokenTree
  // (S, C + G): what a row reads, among S·(1 + rows_above) rows: first of each slot what the depth
  // above made of the token in front of the columns, then its rows of this pass. A column reads the
  // token in front of it, a node its parent.
  Array sources;
  Array newest;  // (S): the last column that counts, else the first, among S·rows_above
};
BINADE_KERNEL(module_pass_rows, const ModulePass& pass, const ModulePassRows& rows)

struct DraftNodes {
  Array tokens;   // (S, N); negative: no guess, never accepted
  Array parents;  // (N) or (S, N): smaller than the node's number, −1 for the root
};

// The accepted paths, and what follows them.
struct AcceptedPaths {
  // (S, M), the root first; −1 behind a path's end. M is at least the depth of the trees plus 1.
  Array nodes;
  Array counts;  // (S): nodes on the path; 0 where the slot is not running
  Array next;    // (S): the token behind it; −1 where logits that count have a NaN or only −∞
};

// A guess must be the most probable token at its parent; best (S, N) are those tokens, as
// top_tokens() gives them. The longest path, of equals the one whose last node comes first.
BINADE_KERNEL(accept_greedy, const Array& best, const DraftNodes& drafts, const Array& running,
              const AcceptedPaths& accepted)

// Typical acceptance (Cai et al. 2024): p(x) > min(ε, δ·exp(−H(p))), p the softmax of logits /
// temperature at x's parent; the longest path, of equals the one with the highest Σ log p, of
// equals the one whose last node comes first. The next token is the most probable one. logits
// (S·N, V) with a contiguous last dimension.
struct TypicalRule {
  double temperature, epsilon, delta;
};
BINADE_KERNEL(accept_typical, const Array& logits, const Array& best, const DraftNodes& drafts,
              const Array& running, const TypicalRule& rule, const AcceptedPaths& accepted)

// Exact sampling for guesses without chance in them: siblings in turn, a guess x is accepted with
// probability p(x), otherwise p loses x; behind the last one the next token is drawn from what p is
// then, by ascending ids. p is that of sample(), whose rules shape it; the temperature is positive.
// Uniforms: of 53 bits, from block use · 2^32 + node of Philox at (seed, drawn, place), use 2 for a
// guess and 3 for the next token. logits (S·N, V) with a contiguous last dimension. Stop ids and
// forbidden tokens are not read.
BINADE_KERNEL(accept_sampled, const Array& logits, const DraftNodes& drafts,
              const SampleRules& rules, const SampleState& state, const AcceptedPaths& accepted)

// What becomes of an accepted path; (S) where nothing else is said.
struct NotedPaths {
  Array kept;    // nodes that are now part of the text; 0 where the slot was not running
  Array status;  // a copy of the state's
  Array fed;     // (S, M): the tokens of the kept nodes; padding: 0
  Array rows;    // (S, M): the kept nodes' rows among all S·N; padding: the root's
  Array last;    // the row of the last kept node
};

// Notes accepted tokens in the state of running slots, one after the other as sample() would: a
// stop id or the limit ends the slot and cuts the path there. The newest token is one that has not
// been fed: a slot that emits k tokens keeps k nodes, the root among them. next < 0 makes the
// status kInvalidLogits.
BINADE_KERNEL(note_accepted, const DraftNodes& drafts, const AcceptedPaths& accepted,
              const SampleRules& rules, const SampleState& state, const NotedPaths& noted)

}  // namespace binade::kernels
