// Training an EAGLE head behind a frozen language model, whose pass is part of the step or, where
// what it gives is kept in a file, is not needed.
#pragma once

#include <functional>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/heads/decoding/head_accuracy.h>
#include <binade/heads/decoding/heads_loss.h>
#include <binade/heads/eagle/eagle.h>

namespace binade::heads::eagle {

struct EagleLossOptions {
  // Drafting steps: what EAGLE-3 is trained on, and what is validated of both.
  int64_t steps = 7;
  double decay = 0.8;  // step s counts with decay^s, s from 0; in (0, 1]
  // Of a step, with p the model's distribution and q the head's: hard · CE(label, q) + soft ·
  // KL(p ‖ q) − acceptance · Σ min(p, q). EAGLE-3's labels are the model's likeliest tokens: the
  // first is for greedy decoding. The last is the chance that a sampled draft is accepted ("LK"
  // loss).
  double hard = 0, soft = 1, acceptance = 0;
  // EAGLE-1: what the regression of features counts, and uniform noise on features that are read:
  // ±noise · 512 / T for rows of T tokens.
  double feature = 1, noise = 0.1;

  // What the papers have: EAGLE-1 counts its tokens with 0.1.
  static EagleLossOptions of(Version version);
};

// How often each of the model's tokens is a label; those that end a text as often as can be.
std::vector<int64_t> label_counts(const decoding::PackedDocuments& documents,
                                  const nn::CausalLmConfig& base);

// The steps as heads 1, 2, … of the loss: for decoding::heads_data().
decoding::HeadSet head_set(Version version, const EagleLossOptions& options);
// What validation's losses count, one a step.
std::vector<double> coefficients(const EagleLossOptions& options);

// What a head's training reads of the model, in the dtype that the model has it in: the hidden
// states behind the last norm and, for EAGLE-3, the streams that enter its layers. Training from a
// cache (decoding::HiddenCache) of them gives the numbers of training behind the model, bit by bit,
// which is why a cache of another preset is another one. `head` must outlive it, placed where it is
// trained.
decoding::CachedStates cached_states(const EagleHead& head, const amp::Preset& preset);

// EAGLE-3: Σ_s decay^s · L_s. L_s is a sum over the labels of the step, divided by their number:
// the loss above over the draft vocabulary, p restricted to it. Labels are the model's likeliest
// tokens where the text's label counts; one outside of the draft vocabulary adds 0 (it is still
// counted). EAGLE-1: feature · smooth L1 of the predicted feature, the mean over its numbers, plus
// the loss above, of one step; labels are the text's. No logits are held, neither p nor q.
//
// The batch has "ids" and "labels", the next tokens, where rows are packed ("packed") "documents"
// and "positions", and from a cache "hidden", which cached_states() describe. Reports head<s>_loss
// and head<s>_top1, for EAGLE-1 feature_loss. `head` must outlive the function, and be where it is
// trained by now.
train::LossFunction eagle_loss(const EagleHead& head, bool packed, const EagleLossOptions& options);

// On documents that nobody trained on, with the model and the head in evaluation mode: each step's
// guess behind the head's own output of the steps before and the true tokens. A label outside of
// the draft vocabulary counts as a miss, and with no loss.
decoding::HeadAccuracy head_accuracy(const EagleHead& head,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const EagleLossOptions& options,
                                     train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::eagle
