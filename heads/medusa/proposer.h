// Medusa heads as a proposer: all levels of a tree at once, from the hidden state of the last token
// of the text.
#pragma once

#include <cstdint>
#include <vector>

#include <binade/heads/decoding/draft_vocabulary.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/heads/medusa/medusa.h>

namespace binade::heads::medusa {

struct MedusaProposerOptions {
  int64_t slots = 1;
  // Heads that guess, and so are counted in statistics; 0: as many as the tree is deep.
  int64_t heads = 0;
  decoding::DraftVocabulary vocabulary = {};  // what is guessed among
};

// Guesses are each head's 10 likeliest tokens (all tokens of a smaller vocabulary), which it finds
// on the device; nothing waits, so that passes can be captured.
class MedusaProposer : public decoding::Proposer {
 public:
  // The heads must outlive it, on the language model's device. Throws Error for a tree deeper than
  // there are heads, or with ranks beyond the guesses.
  MedusaProposer(const MedusaHeads& heads, const decoding::DraftTree& tree,
                 const MedusaProposerOptions& options);

  decoding::ProposerNeeds needs() const override { return {.last = true}; }
  bool repeats() const override { return true; }
  void observe(const decoding::Observation& observation) override;
  decoding::Drafts propose(const decoding::BatchDraws& draws) override;

 private:
  const MedusaHeads& heads_;
  decoding::DraftTree tree_;
  int64_t slots_;
  std::vector<decoding::DraftOutput> outputs_;  // of the heads that guess
  Array candidates_;  // (N) i32: where a node's token stands in [root, guesses]
  Array guesses_;     // (S, K, W) i32; undefined: no head guesses
  Array next_;        // (S) i32
  Array last_;        // (S, dim); undefined until a prompt was observed
};

}  // namespace binade::heads::medusa
