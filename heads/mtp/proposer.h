// Multi-token prediction as proposers of drafts.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/heads/decoding/slot_rows.h>
#include <binade/heads/mtp/draft_plan.h>
#include <binade/heads/mtp/mtp.h>

namespace binade::heads::mtp {

struct MtpProposerOptions {
  int64_t slots = 1;
  int64_t capacity = 0;                       // tokens a text; 0: the model's positions
  decoding::DraftVocabulary vocabulary = {};  // what is guessed among
};

// The proposer of these heads, which must outlive it, as the language model must. A node of the
// tree with rank r is the (r + 1)-th likeliest token at its parent. Throws Error for a tree deeper
// than the heads reach.
std::unique_ptr<decoding::Proposer> make_proposer(const MtpHeads& heads,
                                                  const decoding::DraftTree& tree,
                                                  const MtpProposerOptions& options);

// Sequential and recursive modules, which guess a level at a time. Call a token's place in the text
// p: at depth k a module learns token p ≥ k beside what depth k − 1 made of token p − 1, and
// guesses p + 1. The cache of depth k holds what it learnt of the text, refilled from the model's
// hidden states; guesses are pending in it. So drafts are what whole texts would give, guesses
// among them.
//
// Depth k begins at p = k: in drafts behind fewer than K tokens the deeper levels hold no guess.
class ModuleProposer : public decoding::Proposer {
 public:
  ModuleProposer(const MtpHeads& heads, const decoding::DraftTree& tree,
                 const MtpProposerOptions& options);

  decoding::ProposerNeeds needs() const override { return {.hidden = true}; }
  void observe(const decoding::Observation& observation) override;
  decoding::Drafts propose(const decoding::BatchDraws& draws) override;
  // Whether passes queue the same work from now on: all texts are as long as the tree is deep.
  bool repeats() const override { return learns_beside_guesses(); }

 private:
  struct Depth {
    std::unique_ptr<infer::KvCache> cache;
    decoding::SlotRows last;  // what the next depth reads of the newest token
  };
  // Tokens that the first depth has learnt, and the deeper ones have not: they do beside guesses,
  // in one pass. In memory that stays where it is.
  struct Accepted {
    Array tokens, counts, running, newest;  // as kernels::LearntTokens, of M tokens a slot
    Array states;                           // (S, M, dim): what the first depth made of them
    // (S) i32: what the first depth held before; undefined where all texts were long enough for
    // every depth to have begun.
    Array lengths;
    bool waiting = false;
  };
  void observe_prompts(const decoding::Observation& observation);
  void observe_accepted(const decoding::Observation& observation);
  void learn_accepted();  // at all deeper depths
  // Whether the deeper depths can learn in the passes over guesses: texts are long enough for all
  // of them, and there is room.
  bool learns_beside_guesses() const;
  int64_t depth_of_texts() const;  // the levels that can be guessed for all of them
  // Depth k (from 0) over the nodes of a draft (S, nodes so far) up to those of `level`, but for
  // the root: what depth k − 1 made of the nodes above is in `states` (S, …, dim), undefined where
  // that is the root alone. The second brings accepted tokens with it, in front of nodes in the
  // result as in `states`.
  MtpModule::States run_nodes(int64_t k, const DraftPlan::Level& level, const Tensor& tokens,
                              const Tensor& states);
  MtpModule::States learn_beside_guesses(int64_t k, const Tensor& tokens, const Tensor& states);

  const MtpHeads& heads_;
  DraftPlan plan_;
  decoding::DraftOutput guesses_;
  int64_t slots_;
  std::vector<Depth> depths_;
  Accepted accepted_;
  decoding::SlotRows output_;   // of the first depth, for the newest token
  decoding::SlotRows next_;     // (S, 1) i32
  std::vector<int64_t> known_;  // tokens before the newest of each slot, at least; −1: no text
};

// Parallel heads, each with a cache, guess all levels at once: nodes of one level and rank are the
// same token whatever their parents.
class ParallelProposer : public decoding::Proposer {
 public:
  ParallelProposer(const MtpHeads& heads, const decoding::DraftTree& tree,
                   const MtpProposerOptions& options);

  // The residual streams that enter the model's last layer.
  decoding::ProposerNeeds needs() const override;
  void observe(const decoding::Observation& observation) override;
  decoding::Drafts propose(const decoding::BatchDraws& draws) override;
  bool repeats() const override { return true; }

 private:
  struct Head {
    std::unique_ptr<infer::KvCache> cache;
    decoding::SlotRows output;  // for the newest token that was fed
  };

  const MtpHeads& heads_;
  DraftPlan plan_;
  decoding::DraftOutput guesses_;
  int64_t slots_;
  std::vector<Head> levels_;
  decoding::SlotRows next_;  // (S, 1) i32
};

}  // namespace binade::heads::mtp
