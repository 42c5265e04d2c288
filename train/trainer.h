// Trainer: the loop around TrainStep. It knows batches, losses and schedules, and no particular
// model.
//
//   train::Trainer trainer(task, optimizer, scaler, preset, run_folder, options);
//   trainer.run();
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <binade/optim/schedule.h>
#include <binade/train/checkpoint.h>
#include <binade/train/frozen_weights.h>
#include <binade/train/run_folder.h>
#include <binade/train/step.h>

namespace binade::train {

// The data of one step.
struct StepData {
  std::vector<Batch> micro_batches;
  // Valid labels over all micro-batches, for each part of the loss (LossInputs). A step for which
  // all of these are 0 is passed over: nothing is updated, and its row of metrics says so
  // ("no_labels").
  Named<double> normalisers;
  int64_t tokens = 0;  // or whatever TrainerOptions::unit names, for the throughput
};

// What a validation found.
struct Validation {
  // NOLINTNEXTLINE(google-explicit-constructor): most have a loss alone
  Validation(double loss, Named<double> scalars = {}, std::optional<double> score = {},
             std::string score_of = {})
      : loss(loss), scalars(std::move(scalars)), score(score), score_of(std::move(score_of)) {}

  double loss;
  Named<double> scalars;  // validation_<name> in the metrics
  // What the best checkpoint is chosen by, higher is better (validation_score in the metrics).
  // Without it the lowest loss is the best.
  std::optional<double> score;
  // The scalar that the score is, or is the negative of: lines print it, by its name. Empty: lines
  // print the score. Error for a scalar that there is not.
  std::string score_of;
};
struct BestValidation {
  double value = 0;
  bool by_score = false;  // otherwise it is a loss
  int64_t step = 0;       // after which it was found; 0: before the first
  // What lines call it and its number there: "loss", "score", or Validation::score_of.
  std::string name = "loss";
  double shown = 0;
};

// What is trained.
//
// A validation runs in evaluation mode: the trainer calls model->eval() in front of it and
// model->train() behind it, also when it throws. In a loop of one's own that is one's own to do.
struct Task {
  // Goes through train() at the start and after validations; a module that keeps a frozen trunk in
  // evaluation mode sees to that in its train() (nn/module.h).
  nn::Module* model = nullptr;
  // The data of step `index`: called with consecutive indices from where the run starts or resumes.
  std::function<StepData(int64_t index)> data;
  LossFunction loss;                     // not with several optimizers, whose parts have their own
  std::function<Validation()> validate;  // in evaluation mode; may be empty
  // What the data are ("1048576 tokens, CRC-32C 0x89abcdef"): kept in checkpoints, and a resume
  // with other data is refused, as it would not go on with the same run. Empty: not checked.
  std::string data_fingerprint;
};

struct TrainerOptions {
  int64_t steps = 1000;
  int64_t validate_every = 0;  // steps; 0: only at the end
  // A new run also validates what it begins with, which may stay the best: for a model that was
  // trained before.
  bool validate_first = false;
  int64_t checkpoint_every = 0;  // steps; 0: only at the end
  int keep_checkpoints = 3;
  optim::Schedule schedule;
  StepOptions step;
  // The run ends when so many times `validate_every` steps have brought no better validation; 0:
  // never. A run that ended so goes on if it is resumed with more.
  int64_t patience = 0;
  // What StepData::tokens counts, in the plural: "images" is "images_per_s" in the metrics.
  std::string unit = "tokens";
  bool quiet = false;  // no progress line
  // A skipped step is run again to name the op that overflowed, in its metrics row and on the
  // screen. Every step is waited for.
  bool diagnose_overflow = false;
  // On several ranks: steps between comparisons of what all of them have (a bit that flips in one
  // rank's memory is an error that names rank and tensor); 0: at the start only.
  int64_t compare_every = 0;
  int64_t underflow_every = 0;  // steps between rows in underflow.jsonl (amp/underflow_report.h)
};

// Steps with the scale stuck at its floor before the run is given up.
inline constexpr int64_t kMostStepsAtFloor = 100;

class Pace;
class ProgressLine;

class Trainer {
 public:
  Trainer(Task task, optim::Optimizer& optimizer, amp::GradScaler& scaler,
          const amp::Preset& preset, RunFolder& folder, const TrainerOptions& options,
          optim::Ema* ema = nullptr);

  // Several optimizers, one a part, in the order of their turns (StepPart in step.h): a GAN's
  // discriminator and generator. They follow one schedule, by the lr_factor of their groups. Each
  // part has its clipping; `options.step.clip` is not used. `ema` follows one of them.
  Trainer(Task task, std::vector<StepPart> parts, amp::GradScaler& scaler,
          const amp::Preset& preset, RunFolder& folder, const TrainerOptions& options,
          optim::Ema* ema = nullptr);

  ~Trainer();

  // Goes on from the newest whole checkpoint of the folder; false if there is none. Throws Error
  // when it is past options.steps, or when the model's frozen weights are not the run's.
  bool resume();
  // Trains up to options.steps, or until a signal asked to stop (signals.h), and writes a
  // checkpoint and the chart. Throws Error when the scale is stuck at its floor (naming the
  // offender), and when no step of the run had a valid label. What is thrown here or in the task
  // leaves a checkpoint of the last whole step, and the chart, as well; not the checkpoint where
  // ranks hold the optimizer's state in pieces (data_parallel.h), of which no rank alone can write
  // one. On return every rank has everything.
  struct Outcome {
    int64_t steps_done = 0;
    bool stopped = false;  // by a signal
    bool patience_lost = false;
    double last_loss = 0;  // of a run that was finished before, as its checkpoint has it
    // Of the checkpoint that is kept as the best; none without a validation that had a finite
    // result. A run that goes on with a score where it had none, or without, begins its record
    // anew.
    std::optional<BestValidation> best;
    double tokens_per_second = 0;  // NaN after too few steps to tell
    int64_t without_labels = 0;    // steps that were passed over since this process began
  };
  Outcome run();
  // Puts the weights of the best validation, as its checkpoint has them, into the model; false if
  // there is none.
  bool load_best();
  int64_t steps_done() const { return step_; }

 private:
  void loop();
  bool pass_over(const StepData& data);  // step_, where it has no label
  void collect(bool wait);
  void handle(const StepReport& report, bool diagnose);
  void validate_now();
  void report_underflow();
  // False, with a warning, when it could not be written; on several ranks all throw Error.
  bool save(bool best);
  // Why it could not be written; empty where it was.
  std::string write(CheckpointSource& checkpoint, bool best);
  void note_saved();  // the state after step_
  void note_finished(int64_t steps);
  bool stop_asked();  // by a signal, on any rank
  // Throws Error unless all ranks have the same of what every rank has.
  void compare_ranks(const std::string& when);
  void rescue();  // what an exception leaves behind
  CheckpointSource snapshot();
  void add_states(CheckpointSource& checkpoint);            // all of its tensors
  void load_weights(const CheckpointFolder::Found& found);  // and their averages
  void restore_best(const Checkpoint& checkpoint);
  int64_t best_step() const { return best_ ? best_->step : record_began_; }
  bool patience_lost() const {
    return options_.patience > 0 && options_.validate_every > 0 &&
           step_ - best_step() >= options_.patience * options_.validate_every;
  }

  Device device() const { return parts_.front().optimizer->device(); }
  // The optimizers, and the sections of checkpoints that hold their states.
  std::vector<std::pair<std::string, optim::Optimizer*>> optimizer_sections() const;

  Task task_;
  std::vector<StepPart> parts_;
  amp::GradScaler& scaler_;
  RunFolder& folder_;
  TrainerOptions options_;
  optim::Ema* ema_;
  CheckpointFolder checkpoints_;
  FrozenWeights frozen_;
  TrainStep train_step_;

  DataParallel* parallel_;  // of options_.step; or null
  bool stopped_ = false;    // by a signal
  int64_t step_ = 0;        // steps queued so far: the place in the data and in the schedule
  int64_t without_labels_ = 0;
  int64_t last_saved_ = -1;
  double smoothed_ = 0;
  double last_loss_ = 0;
  bool has_smoothed_ = false;
  std::optional<BestValidation> best_;
  int64_t record_began_ = 0;  // the step from which on a best one is looked for
  std::unique_ptr<Pace> pace_;
  std::unique_ptr<ProgressLine> line_;
};

}  // namespace binade::train
