// Two linear heads behind a frozen language model, each with targets of its own: what training
// several heads asks of the loop.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <binade/autograd/ops.h>

#include "train/small_run.h"

namespace binade::test {

inline const std::vector<std::string> kHeads = {"head_1", "head_2"};
inline constexpr double kRamp = 10;  // steps until the second head counts in full

class TwoHeads : public nn::Module {
 public:
  explicit TwoHeads(std::shared_ptr<nn::CausalLm> trunk) : trunk_(std::move(trunk)) {
    for (const std::string& name : kHeads)
      heads_.push_back(add<nn::Linear>(name, trunk_->config().dim, kVocabulary));
    add_child("trunk", trunk_);
    trunk_->set_trainable(false);
  }
  void train(bool training = true) override {
    Module::train(training);
    trunk_->eval();
  }

  const nn::CausalLm& trunk() const { return *trunk_; }
  // Σ over the rows of head k's cross-entropies / normaliser. inputs (B, T), targets (B, T).
  Tensor head_loss(size_t k, const Tensor& inputs, const Tensor& targets,
                   const Tensor& normaliser) const {
    CrossEntropyOptions options;
    options.normaliser = normaliser;
    return cross_entropy(heads_[k]->forward(hidden(inputs)), targets, options);
  }
  // The first head's loss and, rising with the step, a part of the second one's.
  train::Loss loss(const train::LossInputs& in) const {
    const Tensor ramp = sin(in.step * (std::acos(-1.0) / 2 / kRamp));
    train::Named<Tensor> parts;
    for (size_t k = 0; k < kHeads.size(); ++k)
      parts.add(kHeads[k], head_loss(k, in.batch.at("inputs"), in.batch.at(kHeads[k]),
                                     in.normalisers.at(kHeads[k])));
    const Tensor total = parts.at("head_1") + ramp * parts.at("head_2");
    parts.add("ramp", ramp);
    return {total, parts};
  }

 private:
  Tensor hidden(const Tensor& inputs) const {
    const NoGrad off;
    return trunk_->hidden_states(inputs);
  }
  std::shared_ptr<nn::CausalLm> trunk_;
  std::vector<std::shared_ptr<nn::Linear>> heads_;
};

// AdamW without decay on the two heads.
struct TwoHeadsRun {
  explicit TwoHeadsRun(const SmallRunOptions& options = {}) : base(options) {
    base.step.reset();
    base.optimizer.reset();
    model = std::make_unique<TwoHeads>(base.model);
    model->to(options.device);
    base.preset.apply(*model);
    optimizer = std::make_unique<optim::AdamW>(optim::split_by_decay(*model, 0));
    restart([this](const train::LossInputs& in) { return model->loss(in); });
  }
  // The step anew, with another loss.
  void restart(train::LossFunction loss) {
    step = std::make_unique<train::TrainStep>(std::move(loss), *optimizer, *base.scaler,
                                              base.preset, base.step_options);
    model->train();
  }

  SmallRun base;  // the trunk, preset and scaler
  std::unique_ptr<TwoHeads> model;
  std::unique_ptr<optim::AdamW> optimizer;
  std::unique_ptr<train::TrainStep> step;

  std::map<std::string, std::vector<float>> weights() const {
    std::map<std::string, std::vector<float>> all;
    for (const auto& [name, array] : model->state()) all[name] = array.to_vector<float>();
    return all;
  }
};

// small_batch() with targets for both heads: the second one looks one token further, so it has
// fewer. The counts differ from row to row, and from step to step for the first head.
inline train::StepData two_heads_batch(int64_t step, int64_t rows = 8, int64_t micro_batches = 1) {
  train::StepData data;
  std::vector<double> counts(2, 0.0);
  size_t token = 0;  // over all micro-batches
  for (const train::Batch& given : small_batch(step, rows, micro_batches).micro_batches) {
    const Array& inputs = given.at("inputs");
    std::vector<int32_t> first = given.at("targets").to_vector<int32_t>(), second(first.size());
    for (size_t i = 0; i < first.size(); ++i, ++token) {
      const bool last = i % kLength == kLength - 1;
      second[i] = last ? -100 : first[i + 1];
      if (token % static_cast<size_t>(step + 2) == 0) first[i] = -100;
      counts[0] += first[i] >= 0;
      counts[1] += second[i] >= 0;
    }
    data.micro_batches.push_back({{"inputs", inputs},
                                  {"head_1", Array::from(first, inputs.shape())},
                                  {"head_2", Array::from(second, inputs.shape())}});
  }
  data.normalisers = {{"head_1", counts[0]}, {"head_2", counts[1]}};
  data.tokens = rows * kLength;
  return data;
}

inline std::vector<train::StepReport> run_heads(TwoHeadsRun& run, int64_t first, int64_t last,
                                                int64_t micro_batches = 1,
                                                double learning_rate = 0.01) {
  for (int64_t step = first; step < last; ++step) {
    const train::StepData data = two_heads_batch(step, 8, micro_batches);
    run.step->run(step, data.micro_batches, data.normalisers, learning_rate);
  }
  return run.step->take_reports(/*wait=*/true);
}

}  // namespace binade::test
