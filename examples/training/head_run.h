// What the programs that train decoding heads do alike: the model, its documents, the run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <binade/binade.h>

#include "head_options.h"
#include "ranks.h"

namespace binade::examples {

// What a program trains, and how.
struct HeadTask {
  std::string what;  // "4 Medusa heads", to be printed
  nn::Module* module = nullptr;
  std::vector<optim::ParameterGroup> groups;
  std::function<train::StepData(int64_t)> data;
  train::LossFunction loss;
  // On held-out documents, and what each head's loss counts in that of validations. With ranks to
  // share it out (or null) all of them call it.
  std::function<heads::decoding::HeadAccuracy(const heads::decoding::PackedDocuments&,
                                              train::DataParallel*)>
      accuracy;
  std::vector<double> coefficients;
};

class HeadRun {
 public:
  // Reads the model, on the CPU in f32, and the documents; the seed is set. `options` and `world`
  // must outlive the run. Throws Error for what does not fit together, or differs between ranks.
  HeadRun(HeadTrainingOptions& options, std::string config, dist::World& world);

  dist::World& world() const { return world_; }
  Device device() const { return device_; }
  const amp::Preset& preset() const { return preset_; }
  const std::shared_ptr<nn::CausalLm>& model() const { return model_; }
  const std::shared_ptr<const heads::decoding::PackedDocuments>& documents() const {
    return documents_;
  }
  DType save_dtype() const;
  // Of the model's weights as its folder has them.
  uint32_t base_fingerprint() const { return base_fingerprint_; }
  // Of the whole run: --steps, or what --epochs makes.
  int64_t steps() const;

  // What the optimizer gets: the heads and, with --joint, the model at its share of the rate.
  std::vector<optim::ParameterGroup> groups(const nn::Module& heads) const;
  // Writes the model and its tokenizer where --save-model says so.
  void save_model() const;

  // The file of --hidden-cache, which is made if it is not there; null without the option. The
  // model must be placed, in evaluation mode. `ahead`: HiddenCacheOptions.
  std::shared_ptr<const heads::decoding::HiddenCache> hidden_cache(
      const heads::decoding::CachedStates& states, int64_t ahead = 0) const;
  // Moves the module to the device, in the precision of the run. Of several ranks what is trained
  // goes there with its optimizer, in train().
  void place(nn::Module& module) const;
  // Trains to the end, and prints the accuracy on held-out documents. Whether what was trained is
  // to be saved now: not when a signal has stopped it, and by one rank alone.
  bool train(const HeadTask& task);

 private:
  HeadTrainingOptions& options_;
  std::string config_;
  dist::World& world_;
  Device device_;
  std::unique_ptr<train::DataParallel> parallel_;  // or null
  amp::Preset preset_;
  train::RunFolder folder_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::shared_ptr<nn::CausalLm> model_;
  uint32_t base_fingerprint_ = 0;
  std::shared_ptr<const heads::decoding::PackedDocuments> documents_,
      held_out_;  // held_out: or null
};

}  // namespace binade::examples
