// Proposer: whatever drafts tokens for a target model to verify. A kind of proposer is one folder
// in heads/ and derives from this class; the loop that decodes knows nothing else of it.
//
//   proposer.observe(prompts and the tokens chosen behind them);
//   until all slots are done:
//     drafts = proposer.propose(draws);
//     hidden states of all nodes = one pass of the target over drafts.tokens, as a tree
//     accepted nodes and next tokens = acceptance rule(drafts, the target's logits)
//     the target's cache keeps the accepted nodes
//     proposer.observe(accepted nodes, their hidden states, next tokens);
//
// SpeculativeDecoder (speculative_decoder.h) is this loop.
//
// A batch has S slots, one a sequence; arrays are on the target's device. Nothing here waits for
// the device unless the proposer asks for text on the host, so that a pass can be captured and
// replayed.
//
// What the kinds build on:
//   Medusa           the hidden state of the last observed token; no cache; all levels at once
//   parallel MTP     a layer with a cache a head: hidden states of all observed tokens; all levels
//                    at once
//   sequential and   a module's input at position i is (hidden state of i, token of i + 1): all
//   recursive MTP    observed tokens shifted by one, `next` the last; a cache a depth, refilled
//   from
//                    true hidden states at each observe(); a level at a time
//   EAGLE            the same, from residual streams inside the target; a tree that differs by slot
//   draft model      tokens alone; its cache keeps the accepted nodes of what it drafted itself
//   early exit       tokens alone; the target's first layers with a cache of their own
//   prompt lookup    the text on the host
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <binade/core/array.h>
#include <binade/heads/decoding/acceptance.h>
#include <binade/heads/decoding/draft_tree.h>

namespace binade::heads::decoding {

// What a proposer wants to know of the target's passes; the rest of an Observation may be left out.
struct ProposerNeeds {
  bool hidden = false;  // hidden states behind the target's final norm
  bool last = false;    // … that of the last observed token alone
  // The residual streams that enter these layers of the target (EAGLE-3: 2, L/2, L − 3).
  std::vector<int64_t> residual_layers;
  bool text = false;  // tokens on the host: each pass then waits for the device
};

// Tokens that the target was fed and that are now part of the text: prompts, or the accepted nodes
// of the drafts last proposed. B rows.
struct Observation {
  // The slot of each row; empty: row b is slot b and B = S.
  std::vector<int32_t> slots;
  // Prompts begin new texts: what was known of their slots is forgotten.
  bool prompts = false;
  Array tokens;  // (B, M) i32; behind a row's count: padding
  Array counts;  // (B) i32; not positive where the slot is not running: nothing happened there
  Array nodes;   // (B, M) i32: of the drafts, the root first; undefined for prompts
  Array next;    // (B) i32: the token chosen behind them, the root of the coming drafts
  Array hidden;  // (B, M, dim)
  Array last;    // (B, dim): the hidden state of each row's last token
  std::vector<Array> residuals;  // (B, M, dim) for each of residual_layers
  // Row b: its tokens and the next one, without padding; empty where the slot is not running.
  std::vector<std::vector<int32_t>> text;
};

// Keys of draws, see Draws: one for each slot, on the device. The arrays stay where they are.
struct BatchDraws {
  uint64_t seed = 0;
  Array passes;  // (S) i32
  Array places;  // (S) i32
};

// What is drafted for a batch, N nodes a slot; N may differ from pass to pass.
struct Drafts {
  // Of all slots, if it is the same for all; otherwise `parents` says it.
  std::optional<DraftTree> tree;
  Array parents;  // (S, N) i32, as DraftTree::from_parents takes them
  Array tokens;   // (S, N) i32: node 0 is the slot's `next`; kNoToken where there is no guess

  Drawn drawn = Drawn::best;
  // For guesses that were drawn: see DraftProbabilities. V is the target's vocabulary, whatever
  // smaller one the proposer drafts in.
  Array q;         // (S, R, V) f32
  Array q_row_of;  // (S, N) i32, or (N) where it is the same for all slots

  // (S, K, W) i32: the W likeliest tokens under each of K heads that guess from the root alone,
  // whatever the tree took of them; for statistics. Undefined where guesses depend on guesses.
  Array guesses;
};

class Proposer {
 public:
  virtual ~Proposer() = default;

  virtual ProposerNeeds needs() const = 0;
  // Whether passes can be captured as a graph: every propose() and observe() (but for prompts)
  // queues the same work, reads nothing back, and keeps what lasts in memory that does not move.
  virtual bool repeats() const { return false; }
  // Called behind every pass of the target, and when slots begin with a prompt.
  virtual void observe(const Observation& observation) = 0;
  // Drafts behind what was observed last. Slots that are not running get any tokens. The root alone
  // where nothing can be guessed for any slot: a plain step then. A proposer that draws its guesses
  // takes the uniforms of DrawUse::draft.
  virtual Drafts propose(const BatchDraws& draws) = 0;
};

// One slot of `drafts` on the host, for the acceptance rules there. Waits for the device.
class HostProposal {
 public:
  // Throws Error where arrays are missing or do not fit each other.
  HostProposal(const Drafts& drafts, int64_t slot);
  Proposal view() const;

 private:
  DraftTree tree_;
  std::vector<int32_t> tokens_, q_row_of_;
  std::vector<float> q_;
  Drawn drawn_;
};

}  // namespace binade::heads::decoding
