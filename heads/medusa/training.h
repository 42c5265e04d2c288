// Training Medusa heads: the loss for the trainer, and what validation looks at.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <binade/heads/decoding/head_accuracy.h>
#include <binade/heads/decoding/heads_loss.h>
#include <binade/heads/medusa/medusa.h>

namespace binade::heads::medusa {

// Of the language model that is trained together with its heads (Medusa-2, section 2.2 of the
// paper).
struct JointOptions {
  double weight = 0.2;  // λ0: what the heads count beside the model's own loss
  // Above 0: λ0 grows as sin(π/2 · step / ramp) until that step, and stays (training in one stage;
  // λ0 is 0.01 then).
  int64_t ramp = 0;
  // Self-distillation: the model that this one is to keep to, as hidden states (B, T, dim) behind
  // the last norm, and its output layer. The model's loss is KL(p ‖ q) with p of the teacher, in
  // place of the labels' cross-entropy; both are means over the labels' positions.
  std::function<Tensor(const Tensor& ids, const nn::Sequence&)> teacher;
  Tensor teacher_weight;  // (V, dim)
};

struct MedusaLossOptions {
  double decay = 0.8;                 // λ_k = decay^k
  double acceptance = 0;              // decoding::learn_acceptance()
  std::optional<JointOptions> joint;  // without: Medusa-1
};
// Of the heads in the whole loss: λ_k, times λ0 for Medusa-2.
std::vector<double> coefficients(int64_t heads, const MedusaLossOptions& options);
decoding::HeadSet head_set(int64_t heads, const MedusaLossOptions& options);

// The data of a step: a batch of packed documents, cut into micro-batches of equal size, and one
// normaliser a head, "head1" … (and "main", with joint training): how many labels it has in the
// whole step. With a cache of hidden states, the loss of Medusa-1 takes these instead of passes of
// the language model.
std::function<train::StepData(int64_t)> medusa_data(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t heads, int64_t accumulation,
    const MedusaLossOptions& options = {},
    std::shared_ptr<const decoding::HiddenCache> cache = nullptr);

// Medusa-1: Σ_k λ_k · CE of head k, each the mean over its own labels. The language model is read
// only: its pass is not recorded. Medusa-2: the model's own loss + λ0 · that sum. Reports
// head<k>_loss and head<k>_top1 (share of labels that are the head's likeliest token), and the same
// of "main" for Medusa-2. `heads` must outlive the function.
train::LossFunction medusa_loss(const MedusaHeads& heads, const decoding::PackingOptions& packing,
                                const MedusaLossOptions& options = {});

// On documents that nobody trained on, with the model and the heads in evaluation mode.
decoding::HeadAccuracy head_accuracy(const MedusaHeads& heads,
                                     const decoding::PackedDocuments& documents,
                                     const amp::Preset& preset, int64_t batches,
                                     const MedusaLossOptions& options = {},
                                     train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::medusa
