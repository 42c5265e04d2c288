// An EAGLE head as a proposer: chains, and trees whose form follows the text (EAGLE-2, Li et al.
// 2024, arXiv 2406.16858).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/heads/decoding/drawn_guess.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/heads/decoding/slot_rows.h>
#include <binade/heads/eagle/eagle.h>
#include <binade/infer/kv_cache.h>
#include <binade/infer/sampling.h>

namespace binade::heads::eagle {

struct EagleProposerOptions {
  int64_t slots = 1;
  int64_t capacity = 0;  // tokens a text; 0: the model's positions
  int64_t depth = 5;     // levels of guesses: passes of the head a draft
  // Guesses of a level that the next level is guessed behind, and guesses that are taken of each.
  // 1: a chain of the likeliest tokens.
  int64_t width = 1;
  int64_t nodes = 0;  // of a tree, its root included; 0: all of a chain, else 60
  // Above 0, of a chain: what its guesses are drawn from, each behind the ones before it.
  double temperature = 0;
};

// The head's cache holds what it learnt of the text, from the model's features; guesses are pending
// in it, a level behind the other, and are read with the head's own output in place of features.
//
// A tree grows by levels. The guesses behind the `width` best nodes of a level are all kept in
// mind, and the best of them, by the product of the head's probabilities along their paths, are the
// next level's. At the end the `nodes − 1` best of all that were made are the draft: no path is
// better than its beginning, so that they form a tree. Their number is the same for all slots and
// passes, their form is not. All of it happens on the device, and can be captured.
//
// Guesses with chance in them (`temperature`) are drawn on the host, which waits once a guess.
class EagleProposer : public decoding::Proposer {
 public:
  // The head must outlive it, on the language model's device. Throws Error for sizes that a draft
  // or the head's cache cannot hold.
  EagleProposer(const EagleHead& head, const EagleProposerOptions& options);

  decoding::ProposerNeeds needs() const override;
  void observe(const decoding::Observation& observation) override;
  decoding::Drafts propose(const decoding::BatchDraws& draws) override;
  bool repeats() const override { return options_.temperature == 0; }

 private:
  // What was guessed so far for each slot: guess n is node n + 1 of the tree of all.
  struct Pool {
    TensorList scores, tokens, parents;  // (S, …) f32 log-probabilities, i32, i32
  };
  // The nodes that the next level is guessed behind.
  struct Beams {
    Tensor tokens;     // (S, W) i32
    Tensor scores;     // (S, W) f32
    Tensor nodes;      // (S, W) i32: their numbers in the tree of all
    Tensor recurring;  // (S, W, dim): what the head made of their parents
    Tensor visible;    // (S, W) i64: the pending tokens that each sees
  };
  void observe_prompts(const decoding::Observation& observation);
  void observe_accepted(const decoding::Observation& observation);
  Tensor features_of(const decoding::Observation& observation) const;
  // A pass of the head over guesses (S, W), behind `first` pending ones, with what it made of their
  // parents (S, W, dim).
  EagleHead::States run_level(const Tensor& tokens, const Tensor& recurring,
                              const infer::TokenTree& tree, int64_t first);
  // Rows of draft places, (…) i32 or i64, as the model's tokens, i32.
  Tensor tokens_of(const Tensor& places) const;
  decoding::Drafts chain(const decoding::BatchDraws& draws);
  decoding::Drafts tree();
  // The children of `beams` (undefined at level 1: of the root) go to the pool. Gives the next
  // level's beams, where there is one.
  Beams grow(const Tensor& output, const Tensor& recurring, const Beams& beams, int64_t level,
             Pool& pool) const;

  const EagleHead& head_;
  EagleProposerOptions options_;
  decoding::DrawnGuesses drawn_;
  Tensor token_of_place_;  // (N) i32; undefined: places are tokens
  Tensor own_bits_;        // (64) i64: 1 << n
  Tensor parent_of_;       // (W·W) i32: n / W
  infer::KvCache cache_;
  decoding::SlotRows output_, recurring_, next_;  // of the newest token; next (S, 1) i32
  bool observed_ = false;
};

}  // namespace binade::heads::eagle
