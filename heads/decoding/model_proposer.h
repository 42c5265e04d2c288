// A language model as a proposer: a smaller one that reads the same tokens (Leviathan et al. 2023),
// or the target's own first layers with its last norm and output layer (early exit).
#pragma once

#include <cstdint>

#include <binade/heads/decoding/drawn_guess.h>
#include <binade/heads/decoding/proposer.h>
#include <binade/infer/decoder.h>

namespace binade::heads::decoding {

struct ModelProposerOptions {
  int64_t slots = 1;
  int64_t capacity = 0;  // tokens a slot, the target's; 0: the model's positions
  int64_t guesses = 4;   // in a row
  int64_t layers = 0;    // the model's first ones alone; 0: all
  // What guesses are drawn from, each behind the ones before it; at temperature 0 they are the
  // likeliest ones. The seed is that of BatchDraws.
  infer::SamplingOptions sampling;
};

// Chains. Its cache holds the text; a draft's tokens are pending there until observe() says which
// were accepted. The last guess is read, too, so that its keys are there if all are accepted:
// guesses + 1 passes a draft.
//
// The likeliest guesses are found on the device and nothing waits. Guesses with chance in them are
// drawn on the host, which waits once a guess.
class ModelProposer : public Proposer {
 public:
  // The model must outlive it, in evaluation mode on the target's device. Throws Error unless it
  // has `target`'s vocabulary, for too small a context, and for more layers than there are.
  ModelProposer(const nn::CausalLm& model, const nn::CausalLm& target,
                const ModelProposerOptions& options);

  ProposerNeeds needs() const override { return {}; }
  bool repeats() const override { return options_.sampling.temperature == 0; }
  void observe(const Observation& observation) override;
  Drafts propose(const BatchDraws& draws) override;

 private:
  // The next guesses, behind logits (S, V), go to column `number` of tokens (S, N).
  void guess(const Array& logits, int64_t number, const BatchDraws& draws, const Drafts& drafts);

  ModelProposerOptions options_;
  DrawnGuesses drawn_;
  infer::Decoder decoder_;
  Array next_;  // (S) i32
};

}  // namespace binade::heads::decoding
