// What train_gpt trains on: windows of a text, or conversations.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <binade/binade.h>

#include "options.h"

namespace binade::examples {

class TrainingData {
 public:
  virtual ~TrainingData() = default;

  virtual int64_t vocabulary() const = 0;
  virtual std::string summary() const = 0;      // "9 tokens, 2 windows of 4"
  virtual std::string fingerprint() const = 0;  // Task::data_fingerprint
  // For train::Task. `model` must outlive what these give.
  virtual std::function<train::StepData(int64_t)> batches(Device device) const = 0;
  virtual train::LossFunction loss(const nn::CausalLm& model, const amp::Preset& preset) const = 0;
  // Empty where nothing is held out. `parallel` is null on one rank.
  virtual std::function<train::Validation()> validation(const nn::CausalLm& model,
                                                        const amp::Preset& preset,
                                                        train::DataParallel* parallel) const = 0;
};

// Throws Error for options that do not go together and for what cannot be read.
std::unique_ptr<TrainingData> prepare_data(const TrainGptOptions& options,
                                           const data::Tokenizer& tokenizer);

}  // namespace binade::examples
