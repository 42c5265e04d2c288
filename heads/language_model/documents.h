// Training a language model on conversations: packed documents (heads/decoding/documents.h), of
// which what the assistant wrote is learned.
#pragma once

#include <functional>
#include <memory>

#include <binade/amp/preset.h>
#include <binade/heads/decoding/documents.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/train/trainer.h>

namespace binade::heads::language_model {

// For Task::data. The normaliser is "main", the number of labels.
std::function<train::StepData(int64_t)> document_batches(
    std::shared_ptr<const decoding::PackedDocuments> documents, int64_t accumulation);

// For Task::loss: the cross-entropy of the labels, or with a teacher KL(teacher ‖ model) where
// there is a label (Hinton et al. 2015, at temperature 1). The teacher must have the model's
// vocabulary, and `packing` be that of the documents. Reports main_loss and main_top1. `model` must
// outlive the function.
train::LossFunction document_loss(const nn::CausalLm& model,
                                  const decoding::PackingOptions& packing,
                                  std::shared_ptr<const nn::CausalLm> teacher = nullptr);

// Mean cross-entropy a label over the first `batches` batches of rows. The model should be in
// evaluation mode. With `parallel` the ranks of a run, which all call this, do some of them each.
double validation_loss(const nn::CausalLm& model, const decoding::PackedDocuments& documents,
                       const amp::Preset& preset, int64_t batches,
                       train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::language_model
