// Multi-token prediction as a part of train_gpt's loss.
#pragma once

#include <memory>

#include <binade/binade.h>

#include "options.h"

namespace binade::examples {

// Of --mtp KIND:DEPTH. Throws Error for another form.
struct MtpChoice {
  heads::mtp::Kind kind;
  int64_t depth;
};
MtpChoice mtp_choice(const TrainGptOptions& options);

// The heads for the model, and what the trainer makes of both.
class MtpTraining {
 public:
  // `recompute` as the model has it.
  MtpTraining(const TrainGptOptions& options, const std::shared_ptr<nn::CausalLm>& model,
              Recompute recompute);

  nn::Module& module() { return both_; }
  // `windows` are those of language-model training.
  std::function<train::StepData(int64_t)> data(
      std::function<train::StepData(int64_t)> windows) const;
  train::LossFunction loss() const { return heads::mtp::mtp_loss(*heads_, false, loss_); }
  void save(const TrainGptOptions& options) const;

 private:
  heads::mtp::Format format_;
  heads::mtp::MtpLossOptions loss_;
  std::shared_ptr<heads::mtp::MtpHeads> heads_;
  heads::decoding::TrunkWithHeads both_;
};

}  // namespace binade::examples
