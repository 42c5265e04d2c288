// Heads on a real model, stories260k: trained on what it writes itself.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include <binade/heads/decoding/heads_loss.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>
#include <binade/optim/adamw.h>

#include "shared.h"

namespace binade::test {

using Text = std::vector<int32_t>;

// As it is, in evaluation mode; null (the test is skipped) without ../shared.
inline std::shared_ptr<nn::CausalLm> stories_model() {
  const auto folder = shared_path("models/stories260k");
  if (!folder) return nullptr;
  std::shared_ptr<nn::CausalLm> model = nn::load_hf(*folder);
  model->set_trainable(false);
  model->eval();
  return model;
}

inline int32_t bos_of(const nn::CausalLm& model) {
  return static_cast<int32_t>(model.config().bos_ids.at(0));
}

// The model's own stories at temperature 0.3, BOS and `length` tokens each, in rows of their own.
inline std::shared_ptr<const heads::decoding::PackedDocuments> stories(const nn::CausalLm& model,
                                                                       int64_t count,
                                                                       int64_t batch_size) {
  constexpr int64_t kLength = 255;
  infer::GenerateOptions options{.max_new_tokens = kLength};
  options.sampling.temperature = 0.3;
  options.sampling.seed = 1;
  const int32_t bos = bos_of(model);
  std::vector<heads::decoding::Document> documents;
  for (Text& text :
       infer::generate(model, std::vector<Text>(static_cast<size_t>(count), Text{bos}), options)) {
    text.insert(text.begin(), bos);
    documents.push_back(heads::decoding::whole_document(std::move(text)));
  }
  return std::make_shared<const heads::decoding::PackedDocuments>(
      std::move(documents),
      heads::decoding::PackingOptions{
          .batch_size = batch_size, .seq_len = kLength + 1, .pack = false, .seed = 1});
}

// AdamW on these heads: the rate stays at `rate`, and over the last 100 steps falls to 0.
// `look(i)` is called in front of step i, and behind the last.
inline void train_on(const std::shared_ptr<const heads::decoding::PackedDocuments>& documents,
                     nn::Module& heads, const heads::decoding::HeadSet& set,
                     const train::LossFunction& loss, int64_t steps, double rate,
                     const amp::Preset& preset = amp::Preset::parse("fp32"),
                     const std::function<void(int64_t)>& look = {}) {
  optim::AdamW optimizer(optim::split_by_decay(heads, 0));
  amp::GradScaler scaler(Device::cpu(), {});
  train::TrainStep step(loss, optimizer, scaler, preset, {});
  const auto data = heads::decoding::heads_data(documents, set, 1);
  for (int64_t i = 0; i < steps; ++i) {
    if (look) look(i);
    const train::StepData now = data(i);
    step.run(i, now.micro_batches, now.normalisers,
             rate * std::min(1.0, static_cast<double>(steps - i) / 100));
  }
  if (look) look(steps);
}

}  // namespace binade::test
