// Training Medusa heads: the loss for the trainer, and what validation looks at.
#pragma once

#include <memory>
#include <vector>

#include <binade/heads/decoding/head_accuracy.h>
#include <binade/heads/medusa/medusa.h>

namespace binade::heads::medusa {

struct MedusaLossOptions {
  double decay = 0.8;  // λ_k = decay^k
};
std::vector<double> coefficients(int64_t heads, const MedusaLossOptions& options);

// The data of a step: a batch of packed documents, cut into micro-batches of equal size, and one
// normaliser a head, "head1" …: how many labels it has in the whole step.
std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads,
    int64_t accumulation);

// Medusa-1: Σ_k λ_k · CE of head k, each the mean over its own labels. The language model is read
// only: its pass is not recorded. Reports head<k>_loss and head<k>_top1 (share of labels that are
// the head's likeliest token). `heads` must outlive the function.
train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options = {});

// On documents that nobody trained on, with the model and the heads in evaluation mode.
decoding::HeadAccuracy head_accuracy(const MedusaHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches);

}  // namespace binade::heads::medusa
