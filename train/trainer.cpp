#include <binade/train/trainer.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include <binade/core/device_errors.h>
#include <binade/core/log.h>
#include <binade/train/data_parallel.h>
#include <binade/train/pace.h>
#include <binade/train/progress.h>
#include <binade/train/signals.h>

namespace binade::train {

namespace {

constexpr double kSmoothing = 0.95;  // share of the past in the smoothed loss

// What a row of metrics may have beside the scalars of the loss.
constexpr std::string_view kOwnMetrics[] = {"step",
                                            "loss",
                                            "loss_smoothed",
                                            "grad_norm",
                                            "learning_rate",
                                            "scale",
                                            "skipped",
                                            "skipped_total",
                                            "peak_gib",
                                            "tokens_per_s",
                                            "offender",
                                            "overflow",
                                            "offender_kind",
                                            "underflow_share",
                                            "no_labels",
                                            "exposed_ms",
                                            "longest_wait_ms",
                                            "slowest_rank"};
constexpr std::string_view kValidationPrefix = "validation_";

// A loss that reports no scalar under a name that is taken.
LossFunction with_free_names(LossFunction loss) {
  return [loss = std::move(loss)](const LossInputs& in) {
    Loss result = loss(in);
    for (const auto& [name, scalar] : result.scalars) {
      const bool own = std::find(std::begin(kOwnMetrics), std::end(kOwnMetrics), name) !=
                           std::end(kOwnMetrics) ||
                       name.ends_with("_per_s");
      check(!own && !name.starts_with(kValidationPrefix), "the loss reports a scalar named ", name,
            ", which is a name of the metrics themselves; give it another one");
    }
    return result;
  };
}

std::vector<StepPart> with_free_names(std::vector<StepPart> parts) {
  check(!parts.empty(), "a trainer needs an optimizer at least");
  for (StepPart& part : parts) {
    check(part.loss != nullptr && part.optimizer != nullptr, "a trainer needs a loss and an ",
          "optimizer", part.name.empty() ? "" : " for its part ", part.name);
    part.loss = with_free_names(std::move(part.loss));
  }
  return parts;
}

std::vector<const optim::Optimizer*> optimizers_of(const std::vector<StepPart>& parts) {
  std::vector<const optim::Optimizer*> optimizers;
  for (const StepPart& part : parts) optimizers.push_back(part.optimizer);
  return optimizers;
}

MetricRow metrics_of(const Validation& validation) {
  const auto name = [](const std::string& what) { return concat(kValidationPrefix, what); };
  MetricRow row = {{name("loss"), validation.loss}};
  if (validation.score) row.emplace_back(name("score"), *validation.score);
  check(validation.score_of.empty() || validation.scalars.contains(validation.score_of),
        "a validation's score is said to be ", validation.score_of, ", which it does not report");
  for (const auto& [what, value] : validation.scalars) {
    check(what != "loss" && what != "score", "a validation reports a scalar named ", what,
          ", which it has anyway; give it another name");
    row.emplace_back(name(what), value);
  }
  return row;
}

// A second look at a step leaves running statistics as they were.
class KeptBuffers {
 public:
  explicit KeptBuffers(const nn::Module& model) {
    for (const nn::NamedBuffer& one : model.named_buffers())
      kept_.emplace_back(one.buffer.array(), one.buffer.array().clone());
  }
  KeptBuffers(const KeptBuffers&) = delete;
  KeptBuffers& operator=(const KeptBuffers&) = delete;
  ~KeptBuffers() {
    for (const auto& [buffer, before] : kept_) buffer.copy_from(before);
  }

 private:
  std::vector<std::pair<Array, Array>> kept_;
};

// What counts of a validation after `step`.
BestValidation judged(const Validation& validation, int64_t step) {
  if (!validation.score) return {validation.loss, false, step, "loss", validation.loss};
  const double score = *validation.score;
  if (validation.score_of.empty()) return {score, true, step, "score", score};
  return {score, true, step, validation.score_of, validation.scalars.at(validation.score_of)};
}

}  // namespace

Trainer::Trainer(Task task, optim::Optimizer& optimizer, amp::GradScaler& scaler,
                 const amp::Preset& preset, RunFolder& folder, const TrainerOptions& options,
                 optim::Ema* ema)
    : Trainer(task, {{"", task.loss, &optimizer, options.step.clip}}, scaler, preset, folder,
              options, ema) {}

Trainer::Trainer(Task task, std::vector<StepPart> parts, amp::GradScaler& scaler,
                 const amp::Preset& preset, RunFolder& folder, const TrainerOptions& options,
                 optim::Ema* ema)
    : task_(std::move(task)),
      parts_(with_free_names(std::move(parts))),
      scaler_(scaler),
      folder_(folder),
      options_(options),
      ema_(ema),
      checkpoints_(folder.path() / "checkpoints", options.keep_checkpoints),
      frozen_(*task_.model, optimizers_of(parts_)),
      train_step_(parts_, scaler, preset, options.step, ema),
      parallel_(options.step.parallel),
      pace_(std::make_unique<Pace>()),
      line_(std::make_unique<ProgressLine>()) {
  check(parts_.size() == 1 || task_.loss == nullptr,
        "a task of several optimizers has a loss for each in its part, and none of its own");
  if (parallel_ == nullptr) return;
  check(!options.diagnose_overflow && options.underflow_every == 0,
        "the diagnosis of overflow and the underflow report look at one rank's micro-batches; "
        "use them on one rank");
  for (const nn::NamedBuffer& one : task_.model->named_buffers())
    fail(one.name,
         ", as running statistics and sparse tables do, follows every micro-batch in turn, ",
         "which several ranks do not support");
  options_.quiet = options_.quiet || !folder_.writes();
}

Trainer::~Trainer() = default;

std::vector<std::pair<std::string, optim::Optimizer*>> Trainer::optimizer_sections() const {
  std::vector<std::pair<std::string, optim::Optimizer*>> sections;
  for (const StepPart& part : parts_)
    sections.emplace_back(part.name.empty() ? "optimizer" : "optimizer_" + part.name,
                          part.optimizer);
  return sections;
}

void Trainer::handle(const StepReport& report, bool diagnose) {
  pace_->tick();
  const int64_t done = report.step + 1;
  note_finished(done);
  if (std::isfinite(report.loss)) {
    last_loss_ = report.loss;
    smoothed_ =
        has_smoothed_ ? kSmoothing * smoothed_ + (1 - kSmoothing) * report.loss : report.loss;
    has_smoothed_ = true;
  }
  const double learning_rate = options_.schedule.at(report.step);
  const int64_t peak = memory_stats(device()).peak_in_use;
  MetricRow row = {{"loss", report.loss},
                   {"loss_smoothed", smoothed_},
                   {"grad_norm", report.grad_norm},
                   {"learning_rate", learning_rate},
                   {"scale", report.scale},
                   {"skipped", report.skipped},
                   {"skipped_total", report.skipped_total},
                   {"peak_gib", static_cast<double>(peak) / 1073741824.0}};
  if (const double pace = pace_->recent(); std::isfinite(pace))
    row.emplace_back(concat(options_.unit, "_per_s"), pace);
  if (report.skipped) {
    row.emplace_back("offender", report.offender ? report.offender->parameter : "norm overflow");
    row.emplace_back("offender_kind",
                     std::string(report.offender && report.offender->is_nan ? "nan" : "inf"));
    if (diagnose) {
      const KeptBuffers kept(*task_.model);
      std::string text = train_step_.diagnose_overflow(report.scale);
      if (text.empty()) text = "no op produced a non-finite value when the step ran again";
      line_->message(concat("step ", done, " was skipped: ", text));
      row.emplace_back("overflow", text);
    }
  }
  if (const auto& waiting = report.waiting) {
    row.emplace_back("exposed_ms", 1000 * waiting->least);
    row.emplace_back("longest_wait_ms", 1000 * waiting->most);
    row.emplace_back("slowest_rank", static_cast<int64_t>(waiting->slowest));
  }
  for (const auto& [name, value] : report.scalars) row.emplace_back(name, value);
  folder_.add_metrics(done, row);
  if (!options_.quiet) {
    line_->update(format_progress({.step = done,
                                   .steps = options_.steps,
                                   .loss = report.loss,
                                   .smoothed = smoothed_,
                                   .tokens_per_second = pace_->recent(),
                                   .unit = options_.unit == "tokens" ? "tok" : options_.unit,
                                   .learning_rate = learning_rate,
                                   .grad_norm = report.grad_norm,
                                   .scale = report.scale,
                                   .skipped = report.skipped_total,
                                   .seconds_left = pace_->seconds_for(options_.steps - done),
                                   .peak_bytes = peak,
                                   .waiting = report.waiting}),
                  done == options_.steps);
  }
}

void Trainer::report_underflow() {
  const KeptBuffers kept(*task_.model);
  const amp::UnderflowReport report = train_step_.underflow_report();
  folder_.add_underflow_report(report.to_json(step_));
  folder_.add_metrics(step_, {{"underflow_share", report.share()}});
  line_->message(concat("step ", step_, ": ", report.summary()));
}

void Trainer::validate_now() {
  if (!task_.validate) return;
  task_.model->eval();
  std::optional<Validation> validation;
  try {
    std::optional<optim::Ema::Scope> averages;
    if (ema_) averages.emplace(*ema_);
    validation = task_.validate();
  } catch (...) {
    task_.model->train();
    throw;
  }
  task_.model->train();
  folder_.add_metrics(step_, metrics_of(*validation));
  const std::optional<double>& score = validation->score;
  const BestValidation present = judged(*validation, step_);
  if (best_ && best_->by_score != present.by_score) {
    log_warning("validations have ", score ? "a" : "no", " score from step ", step_,
                " on; the record of the best one begins anew");
    record_began_ = best_->step;
    best_.reset();
  }
  const std::optional<BestValidation> best_before = best_;
  const bool best =
      std::isfinite(present.value) &&
      (!best_ || (score ? present.value > best_->value : present.value < best_->value));
  if (best) best_ = present;
  if (!options_.quiet)
    line_->message(concat("step ", step_, ": validation loss ", validation->loss,
                          score ? concat(", ", present.name, ' ', present.shown) : "",
                          best ? " (best)" : ""));
  // What could not be saved is not the best that is kept.
  if (best && !save(true)) best_ = best_before;
}

void Trainer::collect(bool wait) {
  const std::vector<StepReport> reports = train_step_.take_reports(wait);
  for (const StepReport& report : reports) handle(report, options_.diagnose_overflow);
  for (const StepReport& report : reports)
    check(report.at_floor < kMostStepsAtFloor, "the last ", report.at_floor,
          " steps were skipped with the loss scale at its floor of ", scaler_.options().min_scale,
          "; the first bad gradient is in ",
          report.offender ? report.offender->parameter : "the norm", " (",
          report.offender && report.offender->is_nan ? "NaN" : "inf",
          "): lower the learning rate, or look for the op with the overflow diagnosis");
}

void Trainer::note_finished(int64_t steps) {
  if (parallel_) parallel_->world().note_finished(steps);
}

bool Trainer::stop_asked() {
  stopped_ = StopSignals::requested();
  if (parallel_) stopped_ = parallel_->any(stopped_);
  return stopped_;
}

bool Trainer::pass_over(const StepData& data) {
  if (data.normalisers.empty()) return false;
  for (const auto& [name, count] : data.normalisers)
    if (count != 0) return false;  // NaN, too, which the step refuses
  collect(/*wait=*/true);          // rows of metrics stay in order
  note_finished(step_ + 1);
  ++without_labels_;
  folder_.add_metrics(step_ + 1, {{"no_labels", true}});
  return true;
}

void Trainer::compare_ranks(const std::string& when) {
  if (parallel_ == nullptr) return;
  nn::StateDict all;
  const auto add = [&all](const std::string& section, const nn::StateDict& state) {
    for (const auto& [name, array] : state) all[concat(section, name)] = array;
  };
  for (const nn::NamedParameter& one : task_.model->named_parameters()) {
    all[one.name] = one.parameter->tensor().array();
    if (one.parameter->has_master() && !one.parameter->master_in_pieces())
      all["the master of " + one.name] = one.parameter->master();
  }
  add("the loss scaler's ", scaler_.state());
  for (const auto& [section, optimizer] : optimizer_sections()) {
    add(section + "'s ", optimizer->scalars());
    if (!optimizer->shared()) add(section + "'s ", optimizer->state());
  }
  parallel_->check_equal(all, when);
}

void Trainer::loop() {
  compare_ranks("at the start: the ranks need the same model files, options and library");
  train_step_.share_state();
  note_finished(step_);
  const auto due = [this](int64_t every) { return every > 0 && step_ % every == 0; };
  if (options_.validate_first && step_ == 0 && !best_) validate_now();
  pace_->start();
  while (step_ < options_.steps && !stop_asked() && !patience_lost()) {
    const StepData data = task_.data(step_);
    pace_->tokens_per_step = data.tokens;
    if (parallel_) parallel_->world().note_step(step_ + 1);
    if (!pass_over(data))
      train_step_.run(step_, data.micro_batches, data.normalisers, options_.schedule.at(step_));
    ++step_;
    collect(options_.diagnose_overflow);
    const bool last = step_ == options_.steps;
    const bool validates = due(options_.validate_every) || last;
    const bool saves = due(options_.checkpoint_every);
    const bool looks = due(options_.underflow_every);
    const bool compares = due(options_.compare_every);
    if (compares || validates || saves || looks) train_step_.complete_values();
    if (compares) compare_ranks(concat("after step ", step_));
    if (!validates && !saves && !looks) continue;
    const auto busy = parallel_ ? parallel_->world().busy() : dist::World::Busy(nullptr);
    collect(true);
    check_device_faults(device());
    if (looks) report_underflow();
    if (validates) validate_now();
    if (saves && last_saved_ != step_) save(false);
    pace_->start();
  }
  collect(true);
  check_device_faults(device());
  train_step_.complete_values();
  check(stopped_ || step_ == 0 || without_labels_ < step_, "none of the ", step_,
        " steps had a valid label: there was nothing to learn from");
  if (last_saved_ != step_) save(false);
  folder_.write_chart();
  stop_asked();  // the signal may have come after the last step
}

void Trainer::rescue() {
  // A step that threw has updated nothing, but for one of several optimizers: weights, moments and
  // scaler are those of step_.
  const auto attempt = [](const char* what, const auto& part) {
    try {
      part();
    } catch (const std::exception& error) {
      log_warning("the run ends without ", what, ": ", error.what());
    }
  };
  attempt("its last metrics", [&] {
    for (const StepReport& report : train_step_.take_reports(/*wait=*/true))
      handle(report, /*diagnose=*/false);
  });
  attempt("a last checkpoint", [&] {
    check(!train_step_.partly_done(), "some of its optimizers have made the step, others have not");
    if (step_ == 0 || last_saved_ == step_ || !folder_.writes()) return;
    for (const StepPart& part : parts_)
      check(!part.optimizer->shared(), "the other ranks hold pieces of it");
    // On a GPU the steps that are queued may have computed with what a lost rank did not send.
    if (parallel_ && device().is_cuda() && parallel_->world().failed()) return;
    CheckpointSource checkpoint = snapshot();
    const std::string problem = write(checkpoint, false);
    check(problem.empty(), problem);
    note_saved();
  });
  attempt("its chart", [&] { folder_.write_chart(); });
}

Trainer::Outcome Trainer::run() {
  const StopSignals signals;
  task_.model->train();
  frozen_.fingerprints();  // of what the run begins with
  try {
    loop();
  } catch (...) {
    rescue();
    throw;
  }
  train_step_.complete_state();
  return {step_, stopped_, patience_lost(), last_loss_, best_, pace_->mean(), without_labels_};
}

}  // namespace binade::train
