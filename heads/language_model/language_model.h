// What training a language model adds to the trainer: batches of windows, the validation loss.
#pragma once

#include <memory>

#include <binade/amp/preset.h>
#include <binade/data/prefetcher.h>
#include <binade/data/sampler.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/train/trainer.h>

namespace binade::heads::language_model {

// Batches of the sampler's windows: "inputs" and "targets", (B / accumulation, T) i32 each, made
// ready in the background, in page-locked memory for a GPU. The normaliser is "targets".
class WindowBatches {
 public:
  // Throws Error unless the sampler's batch size is a multiple of `accumulation`.
  WindowBatches(std::shared_ptr<const data::WindowSampler> sampler, int64_t accumulation,
                Device device);
  // For Task::data: consecutive indices, from any start.
  train::StepData operator()(int64_t step);

 private:
  std::shared_ptr<const data::WindowSampler> sampler_;
  int64_t accumulation_;
  Device device_;
  std::shared_ptr<data::Prefetcher> prefetcher_;  // made at the first call
};

// For Task::loss.
train::LossFunction loss(const nn::CausalLm& model);

// Mean loss a token over the sampler's first `batches` batches, or all of its windows if those are
// fewer. The model should be in evaluation mode.
// With `parallel` every rank evaluates its share of the batches, and all get the same loss, that of
// one rank.
double validation_loss(const nn::CausalLm& model, const data::WindowSampler& sampler,
                       const amp::Preset& preset, int64_t batches,
                       train::DataParallel* parallel = nullptr);

}  // namespace binade::heads::language_model
