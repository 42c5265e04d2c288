// What a run leaves behind, and goes on from.
#include <cmath>
#include <limits>
#include <optional>

#include <binade/core/log.h>
#include <binade/core/text.h>
#include <binade/train/checkpoint_pieces.h>
#include <binade/train/data_parallel.h>
#include <binade/train/trainer.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/libraries.h>
#endif

namespace binade::train {

namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();  // in checkpoints: no validation

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

bool Trainer::resume() {
  // Ranks that will share states read no more than that.
  train_step_.share_state(/*begin=*/false);
  std::optional<CheckpointPieces> pieces;
  if (parallel_) {
    CheckpointSource own;
    add_states(own);
    pieces.emplace(parallel_->world().communicator(), own.pieces());
  }
  if (parallel_)
    parallel_->world().require_same(
        "checkpoints", checkpoints_.contents(),
        [this](const std::string& first, const std::string& own) {
          return concat("rank 0 sees ", first, " in ", folder_.path().string(), ", rank ",
                        parallel_->rank(), " sees ", own, "; all have to see one run folder");
        });
  const auto found = checkpoints_.newest(pieces ? &*pieces : nullptr);
  if (!found) {
    train_step_.begin_state();
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

void Trainer::add_states(CheckpointSource& checkpoint) {
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
}

CheckpointSource Trainer::snapshot() {
  CheckpointSource checkpoint;
  add_states(checkpoint);
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
  std::string problem = folder_.writes() ? write(checkpoint, best) : "";
  checkpoint.finish();
  if (parallel_) {
    // Ranks that go on without one lose all that comes with the next of them.
    problem = parallel_->as_first(problem);
    check(problem.empty(), "no checkpoint was written at step ", step_, ": ", problem,
          "; the one before it is whole: make room and go on from there");
  }
  if (!problem.empty()) {
    // A full disk must not cost the run: what was saved before is still there.
    log_warning("no checkpoint was written at step ", step_, ": ", problem);
    return false;
  }
  note_saved();
  return true;
}

void Trainer::note_saved() {
  last_saved_ = step_;
  if (parallel_) parallel_->world().note_checkpoint(step_);
}

std::string Trainer::write(CheckpointSource& checkpoint, bool best) {
  try {
    checkpoints_.save(step_, checkpoint, best);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

bool Trainer::load_best() {
  if (!std::filesystem::exists(checkpoints_.best_path())) return false;
  load_weights({checkpoints_.best_path(), read_checkpoint(checkpoints_.best_path())});
  return true;
}

}  // namespace binade::train
