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

namespace binade::kernels {
struct DraftPool;
struct TreeBeams;
}  // namespace binade::kernels

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
// passes, their form is not. All of it happens on the device, four kernels a level beside the
// head's own, and can be captured.
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
  void observe_prompts(const decoding::Observation& observation);
  void observe_accepted(const decoding::Observation& observation);
  Tensor features_of(const decoding::Observation& observation) const;
  // A pass of the head over ids (S, W) i32, behind `first` pending ones, with what it made of their
  // parents (S, W, dim).
  EagleHead::States run_level(const Array& ids, const Tensor& recurring,
                              const infer::TokenTree& tree, int64_t first);
  decoding::Drafts chain(const decoding::BatchDraws& draws);
  decoding::Drafts tree();
  // The guesses behind rows of output (S·P, dim), nodes `behind`, go to the pool; the next level's
  // nodes to `next`, where it has arrays.
  void grow(const Tensor& output, int64_t level, const kernels::TreeBeams& behind,
            const kernels::DraftPool& pool, const kernels::TreeBeams& next) const;
  kernels::TreeBeams beams() const;  // uninitialised

  const EagleHead& head_;
  EagleProposerOptions options_;
  decoding::DrawnGuesses drawn_;
  Array token_of_place_;       // (N) i32; undefined: places are tokens
  std::vector<Array> depths_;  // (W) i32 for each level of a tree: its depth below the first
  infer::KvCache cache_;
  decoding::SlotRows output_, recurring_, next_;  // of the newest token; next (S, 1) i32
  bool observed_ = false;
};

}  // namespace binade::heads::eagle
