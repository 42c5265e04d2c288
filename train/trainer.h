// Trainer: the loop around TrainStep. It knows batches, losses and schedules, and no particular
// model.
//
//   train::Trainer trainer(task, optimizer, scaler, preset, run_folder, options);
//   trainer.run();
#pragma once

#include <functional>
#include <string>

#include <binade/optim/schedule.h>
#include <binade/train/checkpoint.h>
#include <binade/train/run_folder.h>
#include <binade/train/step.h>

namespace binade::train {

// The data of one step.
struct StepData {
  std::vector<Batch> micro_batches;
  double valid_targets = 0;  // over all micro-batches: the loss is the sum over this
  int64_t tokens = 0;        // for the throughput
};

// What is trained.
struct Task {
  nn::Module* model = nullptr;
  // The data of step `index`: called with consecutive indices from where the run starts or resumes.
  std::function<StepData(int64_t index)> data;
  LossFunction loss;
  std::function<double()> validate;  // validation loss in evaluation mode; may be empty
  // What the data are ("1048576 tokens, CRC-32C 0x89abcdef"): kept in checkpoints, and a resume
  // with other data is refused, as it would not go on with the same run. Empty: not checked.
  std::string data_fingerprint;
};

struct TrainerOptions {
  int64_t steps = 1000;
  int64_t validate_every = 0;    // steps; 0: only at the end
  int64_t checkpoint_every = 0;  // steps; 0: only at the end
  int keep_checkpoints = 3;
  optim::Schedule schedule;
  StepOptions step;
  bool quiet = false;  // no progress line
  // A skipped step is run again to name the op that overflowed, in its metrics row and on the
  // screen. Every step is waited for.
  bool diagnose_overflow = false;
  int64_t underflow_every = 0;  // steps between rows in underflow.jsonl (amp/underflow_report.h)
};

// Steps with the scale stuck at its floor before the run is given up.
inline constexpr int64_t kMostStepsAtFloor = 100;

class Trainer {
 public:
  Trainer(Task task, optim::Optimizer& optimizer, amp::GradScaler& scaler,
          const amp::Preset& preset, RunFolder& folder, const TrainerOptions& options,
          optim::Ema* ema = nullptr);

  // Goes on from the newest whole checkpoint of the folder; false if there is none. Throws Error
  // when it is past options.steps.
  bool resume();
  // Trains up to options.steps, or until a signal asked to stop (signals.h), and writes a
  // checkpoint and the chart. Throws Error when the scale is stuck at its floor (naming the
  // offender). What is thrown here or in the task leaves a checkpoint of the last whole step, and
  // the chart, as well.
  struct Outcome {
    int64_t steps_done = 0;
    bool stopped = false;          // by a signal
    double last_loss = 0;          // of a run that was finished before, as its checkpoint has it
    double best_validation = 0;    // infinity if there was no validation
    double tokens_per_second = 0;  // NaN after too few steps to tell
  };
  Outcome run();
  int64_t steps_done() const { return step_; }

 private:
  void loop();
  void collect(bool wait);
  void handle(const StepReport& report, bool diagnose);
  void validate_now();
  void report_underflow();
  bool save(bool best);  // false, with a warning, when it could not be written
  void rescue();         // what an exception leaves behind
  Checkpoint snapshot() const;

  Task task_;
  optim::Optimizer& optimizer_;
  amp::GradScaler& scaler_;
  RunFolder& folder_;
  TrainerOptions options_;
  optim::Ema* ema_;
  CheckpointFolder checkpoints_;
  TrainStep train_step_;

  int64_t step_ = 0;  // steps queued so far: the place in the data and in the schedule
  int64_t last_saved_ = -1;
  double smoothed_ = 0;
  double last_loss_ = 0;
  bool has_smoothed_ = false;
  double best_validation_;
  class Pace;
  std::shared_ptr<Pace> pace_;
};

}  // namespace binade::train
