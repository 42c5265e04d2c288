// A small language model with made-up batches: enough of a run to test the loop around it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <binade/amp/grad_scaler.h>
#include <binade/core/random.h>
#include <binade/heads/language_model/language_model.h>
#include <binade/nn/models/causal_lm.h>
#include <binade/optim/adamw.h>
#include <binade/train/step.h>

namespace binade::test {

inline constexpr int64_t kVocabulary = 29, kLength = 6;

struct SmallRunOptions {
  std::string preset = "fp32";
  double dropout = 0;
  int64_t dim = 16;
  Recompute recompute = Recompute::nothing;
  double clip = 1;
  uint64_t seed = 1;
  bool capture = true;
  Device device = {};
  bool placed = false;  // the optimizer moves the model there (optim::ParameterGroup::device)
  amp::GradScalerOptions scaler = {};  // of dynamic scaling
};

// Two blocks of GPT-2, tied.
inline std::shared_ptr<nn::CausalLm> small_gpt(const SmallRunOptions& options) {
  nn::CausalLmConfig config = nn::CausalLmConfig::of(nn::Family::gpt2);
  config.vocab_size = kVocabulary;
  config.dim = options.dim;
  config.layers = 2;
  config.heads = 2;
  config.max_positions = kLength;
  config.tie_embeddings = true;
  config.embedding_dropout = config.residual_dropout = options.dropout;
  RandomState::current().set_seed(7);
  return nn::make_causal_lm(config, {.vocabulary_multiple = 8});
}

// The same under AdamW.
struct SmallRun {
  explicit SmallRun(const SmallRunOptions& options = {})
      : preset(amp::Preset::parse(options.preset)) {
    model = small_gpt(options);
    model->set_recompute(options.recompute);
    if (!options.placed) model->to(options.device);
    preset.apply(*model);
    std::vector<optim::ParameterGroup> groups = optim::split_by_decay(*model, 0.1);
    for (optim::ParameterGroup& group : groups)
      if (options.placed) group.device = options.device;
    optimizer = std::make_unique<optim::AdamW>(groups);
    const bool dynamic = preset.scaling == amp::Preset::Scaling::dynamic;
    scaler = std::make_unique<amp::GradScaler>(
        options.device, dynamic ? options.scaler : amp::GradScalerOptions::of(preset));
    step_options = {.clip = options.clip, .seed = options.seed, .capture = options.capture};
    step = std::make_unique<train::TrainStep>(heads::language_model::loss(*model), *optimizer,
                                              *scaler, preset, step_options);
  }

  amp::Preset preset;
  std::shared_ptr<nn::CausalLm> model;
  std::unique_ptr<optim::AdamW> optimizer;
  std::unique_ptr<amp::GradScaler> scaler;
  train::StepOptions step_options;
  std::unique_ptr<train::TrainStep> step;

  // Masters by name, copied to the host.
  std::map<std::string, std::vector<float>> weights() const {
    std::map<std::string, std::vector<float>> all;
    for (const auto& [name, array] : model->state()) all[name] = array.to_vector<float>();
    return all;
  }
};

// Step `step`'s `rows` rows in so many micro-batches. Rows have from 1 to kLength targets.
inline train::StepData small_batch(int64_t step, int64_t rows = 8, int64_t micro_batches = 1) {
  train::StepData data;
  double valid_targets = 0;
  for (int64_t m = 0; m < micro_batches; ++m) {
    std::vector<int32_t> ids, targets;
    const int64_t part = rows / micro_batches;
    for (int64_t row = m * part; row < (m + 1) * part; ++row) {
      for (int64_t t = 0; t < kLength; ++t) {
        const PhiloxBlock draw = philox(99, static_cast<uint64_t>(step), static_cast<uint64_t>(row),
                                        static_cast<uint64_t>(t));
        ids.push_back(static_cast<int32_t>(draw.word[0] % kVocabulary));
        const bool valid = t <= row % kLength;
        targets.push_back(valid ? static_cast<int32_t>((ids.back() * 5 + 3) % kVocabulary) : -100);
        valid_targets += valid;
      }
    }
    data.micro_batches.push_back({{"inputs", Array::from(ids, {part, kLength})},
                                  {"targets", Array::from(targets, {part, kLength})}});
  }
  data.normalisers = {{"targets", valid_targets}};
  data.tokens = rows * kLength;
  return data;
}

// Runs steps [first, last) and returns their reports.
inline std::vector<train::StepReport> run_steps(SmallRun& run, int64_t first, int64_t last,
                                                int64_t micro_batches = 1,
                                                double learning_rate = 0.01) {
  for (int64_t step = first; step < last; ++step) {
    const train::StepData data = small_batch(step, 8, micro_batches);
    run.step->run(step, data.micro_batches, data.normalisers, learning_rate);
  }
  return run.step->take_reports(/*wait=*/true);
}

}  // namespace binade::test
