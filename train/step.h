// TrainStep: one training step, from host batches to updated masters, with nothing inside that
// waits for the device:
//
//   upload → [forward under the policy → loss → scaled backward] × micro-batches → one pass over
//   the gradients → clip factor → update of the masters and their compute copies → scale → report
//
// On a GPU the whole step is captured as one CUDA graph after two eager ones and replayed from then
// on; both paths queue the same kernels and give the same bits. Batches of other shapes get graphs
// of their own, in the same memory, as replays follow one another. Accumulation and recompute are
// options of the step.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <binade/amp/grad_scaler.h>
#include <binade/amp/underflow_report.h>
#include <binade/autograd/gradient_watch.h>
#include <binade/autograd/tape.h>
#include <binade/core/transfer.h>
#include <binade/optim/ema.h>
#include <binade/train/named.h>

namespace binade::train {

// Host arrays of one micro-batch, for example "inputs" and "targets". A step is prepared, and then
// captured, for each set of names, shapes and dtypes (StepOptions::prepared).
using Batch = Named<Array>;

// Throws Error unless so many rows can be split into `accumulation` micro-batches of equal size.
void check_accumulation(int64_t rows, int64_t accumulation);
// The rows of a step's batch, in turn, as micro-batches: views of its arrays.
std::vector<Batch> micro_batches(const Batch& batch, int64_t accumulation);

// What a loss is made of, all of it on the device.
struct LossInputs {
  Named<Tensor> batch;  // the micro-batch
  // Counts of the valid labels in all micro-batches of the step, f32 scalars. Each part of a loss
  // is a sum divided by one of them, so that 8 rows equal 2 × 4 also when the counts differ. A
  // count of 0 comes as 1: the sum over nothing is 0.
  Named<Tensor> normalisers;
  // The number of the step, an f32 scalar (exact up to 2^24), for what follows a schedule inside
  // the loss. A number of the host would stay what it was when the step was captured.
  Tensor step;
};

struct Loss {
  // NOLINTNEXTLINE(google-explicit-constructor): most losses have nothing else to report
  Loss(Tensor value, Named<Tensor> scalars = {})
      : value(std::move(value)), scalars(std::move(scalars)) {}

  Tensor value;  // scalar; backward starts here
  // Scalars of floating dtype to report beside it. No gradient flows through them; like the value
  // they are summed over the micro-batches, in f32. Their names are those of every step; a batch of
  // new shapes may bring others, with which everything is captured anew.
  Named<Tensor> scalars;
};
using LossFunction = std::function<Loss(const LossInputs& in)>;

// What one optimizer does in a step. With several (a GAN's two) the parts follow one another: each
// takes its loss of the step's batch with what the parts before have updated, and updates its own
// parameters alone, whatever else its gradients reach.
struct StepPart {
  // Of several: its loss and norm are reported as loss_<name> and grad_norm_<name>, and its
  // optimizer is saved under it.
  std::string name;
  LossFunction loss;
  optim::Optimizer* optimizer = nullptr;
  double clip = 1;  // the norm of this optimizer's gradients; 0: no clipping
};

class DataParallel;

struct StepOptions {
  double clip = 1;      // global gradient norm, of a step without parts; 0: no clipping
  uint64_t seed = 0;    // of dropout masks and other draws inside the step
  bool capture = true;  // replay a CUDA graph (GPU only)
  // Sets of shapes that stay prepared, each with a graph of its own. Beyond them the one that was
  // used longest ago gives way.
  int64_t prepared = 16;
  // Of a run on several ranks, each of which runs some of the step's micro-batches
  // (data_parallel.h); must outlive the step. Null: this process runs all of them.
  DataParallel* parallel = nullptr;
};

// How long the devices of ranks waited for other ranks in a step, in seconds. The slowest rank
// waits least, and what it waits is what communication costs; others wait for it, too.
struct Waiting {
  int slowest = 0;  // a rank
  double least = 0, most = 0;
};

// What is known of a finished step.
struct StepReport {
  int64_t step = 0;
  double loss = 0;
  double grad_norm = 0;  // unscaled, before clipping; over finite elements
  double scale = 1;      // the loss scale that the step ran with
  bool skipped = false;  // a gradient was not finite: nothing was updated
  int64_t skipped_total = 0;
  int64_t at_floor = 0;                   // consecutive skips with the scale at its floor
  std::optional<amp::Offender> offender;  // of a skipped step
  std::optional<Waiting> waiting;         // with DataParallelOptions::timeline
  Named<double> scalars;                  // of the loss
};

class TrainStep {
 public:
  // The step keeps references: optimizer and scaler must outlive it. `ema` may be null.
  TrainStep(LossFunction loss, optim::Optimizer& optimizer, amp::GradScaler& scaler,
            const amp::Preset& preset, const StepOptions& options, optim::Ema* ema = nullptr);
  // Several optimizers of one device, which share the loss scale: one that meets a gradient that is
  // not finite skips its own update alone, and the scale moves once a step. Throws Error for no
  // part at all, parts without loss or optimizer, and names that are missing or come twice.
  TrainStep(std::vector<StepPart> parts, amp::GradScaler& scaler, const amp::Preset& preset,
            const StepOptions& options, optim::Ema* ema = nullptr);
  ~TrainStep();

  // Queues step number `step` on these micro-batches, of all ranks, and returns. `normalisers` are
  // 0 or more; throws Error when all of them are 0 (there may be none at all).
  void run(int64_t step, const std::vector<Batch>& micro_batches, const Named<double>& normalisers,
           double learning_rate);
  // Reports of finished steps, oldest first; with `wait` of all that were queued.
  std::vector<StepReport> take_reports(bool wait = false);
  // Whether the last step's shapes are replayed from a graph now.
  bool captured() const;
  int64_t graphs() const;  // that are ready to be replayed
  // Whether the last run() threw between the updates of two parts.
  bool partly_done() const { return partly_done_; }
  // Of a run on several ranks, which hold optimizer states in pieces from the first step on, or
  // from share_state(): with complete_state() every rank has everything again, until the next step
  // (DataParallel::complete). All ranks call them. Deferred values (nn/deferred.h) are made when
  // ranks share the state, unless `begin` is false: then a state is loaded next, or begin_state()
  // makes them.
  void share_state(bool begin = true);
  void begin_state();
  void complete_state();
  // Of a run on several ranks whose values are late (DataParallelOptions::late_values): every rank
  // has those of the last step. Between two steps they are needed by whatever uses the model: a
  // validation, a checkpoint, a sample. All ranks call it.
  void complete_values();
  // Runs the coming steps eagerly and captures anew: after anything baked into the graph changed.
  void invalidate();

  // ---- a second look at the last step, after its report and before the next run() ----
  // Its forward and backward passes run again, eagerly, with the present weights and the same
  // random numbers; nothing is updated, but running statistics (batch norm) move once more.
  //
  // The op that first produced a non-finite value at this loss scale, in words; empty if none did.
  std::string diagnose_overflow(double scale);
  // Of the first micro-batch, and of the first part.
  amp::UnderflowReport underflow_report();

 private:
  // What is made once for each set of shapes.
  struct Prepared;
  Prepared& prepare(const std::vector<Batch>& micro_batches, const Named<double>& normalisers);
  void upload(int64_t step, const std::vector<Batch>& micro_batches,
              const Named<double>& normalisers);
  void capture();
  void queue_work();  // everything between upload and report
  // A part, and what its loss reports, summed over the micro-batches.
  struct Part : StepPart {
    explicit Part(StepPart part) : StepPart(std::move(part)) {}
    Array loss_sum;              // f32 scalar
    Named<Array> scalar_sums;    // f32 scalars
    bool scalars_known = false;  // the loss ran before with what is prepared
  };
  optim::Ema* averages_of(const Part& part) const;  // or null
  void queue_part(Part& part);
  bool has_timeline() const;
  void report_scale();
  void report_step();
  void zero_grad();
  // Which micro-batch of the whole step `m` of this process is.
  int64_t lane(size_t m) const;
  // Forward and backward of micro-batch `m` under the loss scale; returns the loss without it.
  // `watch`: of the backward pass, or null.
  Loss forward_backward(const Part& part, size_t m, const Array& scale,
                        GradientWatch* watch = nullptr);
  // What a micro-batch reports, its value first: f32 scalars.
  std::vector<Array> reported(Part& part, const Loss& loss);
  // The sums of what all micro-batches have reported, those of other ranks too.
  void sum_up(Part& part, std::vector<std::vector<Array>> reports);
  // Makes room for these scalars in the report, or throws Error where others have been reported.
  void expect_scalars(Part& part, const Named<Tensor>& scalars);
  Array empty_report() const;
  StepReport read(const Array& values) const;
  Device device() const { return parts_.front().optimizer->device(); }
  int64_t group_count() const;  // of all optimizers
  bool several() const { return parts_.size() > 1; }

  std::vector<Part> parts_;
  bool partly_done_ = false;
  amp::GradScaler& scaler_;
  amp::Preset preset_;
  StepOptions options_;
  optim::Ema* ema_;
  std::vector<std::unique_ptr<Prepared>> prepared_;  // the last one used comes last
  Array step_;                                       // i64, for random numbers
  Array report_;                                     // of all parts
  Downloader reports_;
  std::vector<StepReport> finished_;  // read already, as later ones have another form
  std::vector<bool> frozen_;          // the optimizers' parameters, when graphs were captured
};

}  // namespace binade::train
