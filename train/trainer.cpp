#include <binade/train/trainer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include <binade/core/device_errors.h>
#include <binade/core/log.h>
#include <binade/core/text.h>
#include <binade/train/data_parallel.h>
#include <binade/train/pace.h>
#include <binade/train/progress.h>
#include <binade/train/signals.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/libraries.h>
#endif

namespace binade::train {

namespace {

constexpr double kSmoothing = 0.95;  // share of the past in the smoothed loss

constexpr double kNone = std::numeric_limits<double>::infinity();  // in checkpoints: no validation

// What a row of metrics may have beside the scalars of the loss.
constexpr std::string_view kOwnMetrics[] = {
    "step",     "loss",     "loss_smoothed", "grad_norm",       "learning_rate",
    "scale",    "skipped",  "skipped_total", "peak_gib",        "tokens_per_s",
    "offender", "overflow", "offender_kind", "underflow_share", "no_labels"};
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

double number(const std::map<std::string, std::string>& values, const char* key) {
  const auto found = values.find(key);
  check(found != values.end(), "the checkpoint has no value ", key);
  const std::optional<double> value = parse_number(found->second);
  check(value.has_value(), "the checkpoint's ", key, " is not a number: ", found->second);
  return *value;
}

const nn::StateDict& section_of(const CheckpointFolder::Found& found, const char* name) {
  const auto at = found.checkpoint.sections.find(name);
  check(at != found.checkpoint.sections.end(), found.path.string(), " has no section ", name);
  return at->second;
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

bool Trainer::resume() {
  const auto found = checkpoints_.newest();
  if (!found) {
    folder_.rewind(0);
    return false;
  }
  const Checkpoint& checkpoint = found->checkpoint;
  const double saved_step = number(checkpoint.values, "step");
  check(saved_step >= 0 && saved_step <= 0x1p53 && saved_step == std::floor(saved_step),
        found->path.string(), " has no step number: ", saved_step);
  const auto steps_done = static_cast<int64_t>(saved_step);
  check(steps_done <= options_.steps, "the run has done ", steps_done,
        " steps already, more than the ", options_.steps, " asked for; raise --steps");
  if (const auto data = checkpoint.values.find("data"); data != checkpoint.values.end())
    check(data->second == task_.data_fingerprint, "cannot resume ", folder_.path().string(),
          " with other data: ", data->second, " then, ", task_.data_fingerprint, " now");
  load_weights(*found);
  for (const auto& [section, optimizer] : optimizer_sections())
    optimizer->load_state(section_of(*found, section.c_str()));
  scaler_.load_state(section_of(*found, "scaler"));
  step_ = steps_done;
  note_saved();
  smoothed_ = number(checkpoint.values, "loss_smoothed");
  has_smoothed_ = step_ > 0;
  last_loss_ = checkpoint.values.contains("loss") ? number(checkpoint.values, "loss") : smoothed_;
  restore_best(checkpoint);
#if BINADE_HAVE_CUDA
  // The same matmul algorithms give the same bits.
  if (const auto table = checkpoint.values.find("matmul_algorithms");
      table != checkpoint.values.end() && device().is_cuda())
    cuda::import_matmul_algorithms(table->second, device());
#endif
  folder_.rewind(step_);
  return true;
}

void Trainer::load_weights(const CheckpointFolder::Found& found) {
  const auto frozen = found.checkpoint.values.find("frozen_weights");
  frozen_.load(section_of(found, "model"),
               frozen == found.checkpoint.values.end() ? "" : frozen->second);
  if (ema_) ema_->load_state(section_of(found, "ema"));
}

void Trainer::restore_best(const Checkpoint& checkpoint) {
  const double value = number(checkpoint.values, "best_validation");
  const auto rule = checkpoint.values.find("best_by");
  const bool by_score = rule != checkpoint.values.end() && rule->second == "score";
  best_.reset();
  record_began_ = checkpoint.values.contains("best_step")
                      ? static_cast<int64_t>(number(checkpoint.values, "best_step"))
                      : step_;
  if (!std::isfinite(value)) return;
  best_ = {value, by_score, record_began_, by_score ? "score" : "loss", value};
  if (!checkpoint.values.contains("best_name")) return;  // of an earlier version
  best_->name = checkpoint.values.at("best_name");
  best_->shown = number(checkpoint.values, "best_shown");
}

CheckpointSource Trainer::snapshot() {
  CheckpointSource checkpoint;
  frozen_.add_to(checkpoint);
  for (const auto& [section, optimizer] : optimizer_sections()) {
    checkpoint.add(section, optimizer->scalars());
    for (const optim::MemberState& moment : optimizer->moments()) checkpoint.add(section, moment);
  }
  checkpoint.add("scaler", scaler_.state());
  if (ema_) {
    checkpoint.add("ema", ema_->statistics());
    for (const optim::MemberState& one : ema_->parameter_averages()) checkpoint.add("ema", one);
  }
  checkpoint.values = {{"step", std::to_string(step_)},
                       {"loss", exact_number(last_loss_)},
                       {"loss_smoothed", exact_number(smoothed_)},
                       {"best_validation", exact_number(best_ ? best_->value : kNone)},
                       {"best_step", std::to_string(best_step())},
                       {"best_by", best_ && best_->by_score ? "score" : "loss"}};
  if (best_) {
    checkpoint.values["best_name"] = best_->name;
    checkpoint.values["best_shown"] = exact_number(best_->shown);
  }
  if (std::string prints = frozen_.fingerprints(); !prints.empty())
    checkpoint.values["frozen_weights"] = std::move(prints);
  if (!task_.data_fingerprint.empty()) checkpoint.values["data"] = task_.data_fingerprint;
#if BINADE_HAVE_CUDA
  if (device().is_cuda())
    checkpoint.values["matmul_algorithms"] = cuda::export_matmul_algorithms(device());
#endif
  return checkpoint;
}

bool Trainer::save(bool best) {
  CheckpointSource checkpoint = snapshot();
  const bool saved = !folder_.writes() || write(checkpoint, best);
  checkpoint.finish();
  if (!(parallel_ ? parallel_->as_first(saved) : saved)) return false;
  note_saved();
  return true;
}

void Trainer::note_saved() {
  last_saved_ = step_;
  if (parallel_) parallel_->world().note_checkpoint(step_);
}

bool Trainer::write(CheckpointSource& checkpoint, bool best) {
  try {
    checkpoints_.save(step_, checkpoint, best);
    return true;
  } catch (const Error& error) {
    // A full disk must not cost the run: what was saved before is still there.
    log_warning("no checkpoint was written at step ", step_, ": ", error.what());
    return false;
  }
}

void Trainer::handle(const StepReport& report, bool diagnose) {
  pace_->tick();
  const int64_t done = report.step + 1;
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
                                   .peak_bytes = peak}),
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

bool Trainer::stop_asked() {
  stopped_ = StopSignals::requested();
  if (parallel_) stopped_ = parallel_->any(stopped_);
  return stopped_;
}

bool Trainer::pass_over(const StepData& data) {
  if (data.normalisers.empty()) return false;
  for (const auto& [name, count] : data.normalisers)
    if (count != 0) return false;  // NaN, too, which the step refuses
  collect(/*wait=*/true);  // rows of metrics stay in order
  ++without_labels_;
  folder_.add_metrics(step_ + 1, {{"no_labels", true}});
  return true;
}

void Trainer::loop() {
  if (parallel_) parallel_->check_equal(task_.model->state());
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
    if (write(checkpoint, false)) note_saved();
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

bool Trainer::load_best() {
  if (!std::filesystem::exists(checkpoints_.best_path())) return false;
  load_weights({checkpoints_.best_path(), read_checkpoint(checkpoints_.best_path())});
  return true;
}

}  // namespace binade::train
