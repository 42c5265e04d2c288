// Training Medusa heads: the loss for the trainer, and what validation looks at.
#pragma once

#include <memory>
#include <vector>

#include <binade/amp/preset.h>
#include <binade/heads/decoding/documents.h>
#include <binade/heads/decoding/hidden_cache.h>
#include <binade/heads/medusa/medusa.h>

namespace binade::heads::medusa {

struct MedusaLossOptions {
  double decay = 0.8;  // λ_k = decay^k
};

// The data of a step: a batch of packed documents, cut into micro-batches of equal size, and one
// normaliser a head, "head1" …: how many labels it has in the whole step. With a cache of hidden
// states, the loss takes these instead of passes of the language model.
std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads, int64_t accumulation,
    std::shared_ptr<const decoding::HiddenCache> cache = nullptr);

// Medusa-1: Σ_k λ_k · CE of head k, each the mean over its own labels. The language model is read
// only: its pass is not recorded. Reports head<k>_loss and head<k>_top1 (share of labels that are
// the head's likeliest token). `heads` must outlive the function.
train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options = {});

// How often heads are right on documents that nobody trained on.
struct HeadAccuracy {
  std::vector<double> loss;              // by head, nats a label
  std::vector<std::vector<double>> top;  // by head: share of labels among its 1 … 5 likeliest
  double tokens_per_pass = 1;            // τ of a chain of the heads' likeliest tokens
};

// Over the first `batches` batches of rows. τ is found by following every reply as greedy chain
// decoding would: a pass of the model gives its own token and those of the heads that agree with
// the text, one after the other until the first that does not (the text is taken to be the model's
// greedy choice). The model and the heads should be in evaluation mode.
HeadAccuracy head_accuracy(const MedusaHeads& heads, const decoding::PackedDocuments& documents,
                           const amp::Preset& preset, int64_t batches);

// The same for Task::validate: the loss is Σ λ_k · loss_k, the score τ.
train::Validation validation_of(const HeadAccuracy& accuracy, const MedusaLossOptions& options);

}  // namespace binade::heads::medusa
