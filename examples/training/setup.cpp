#include "setup.h"

#include <fmt/core.h>

#include <cmath>

#if BINADE_HAVE_CUDA
#include <binade/core/cuda/libraries.h>
#endif

namespace binade::examples {

namespace fs = std::filesystem;

std::vector<std::string> with_saved_config(std::vector<std::string> arguments, CommandLine& command,
                                           const TrainingOptions& options) {
  try {
    command.parse(arguments);
  } catch (const std::exception&) {
    return arguments;  // run_program() will say what is wrong with them
  }
  const fs::path saved = fs::path(options.run_dir) / "config.json";
  std::error_code error;
  // A launcher that starts a failed run again (binade-run --restarts) cannot know whether it came
  // so far as to have a folder.
  if (!options.resume && dist::restarted() && fs::exists(saved, error)) {
    arguments.emplace_back("--resume");
    return with_saved_config(std::move(arguments), command, options);
  }
  if (!options.resume || command.given("--config")) return arguments;
  if (fs::exists(saved, error)) arguments.insert(arguments.begin(), "--config=" + saved.string());
  return arguments;
}

void set_gpu_switches([[maybe_unused]] const TrainingOptions& options,
                      [[maybe_unused]] Device device) {
#if BINADE_HAVE_CUDA
  if (!device.is_cuda()) return;
  cuda::set_allow_tf32(options.allow_tf32);
  cuda::set_deterministic(options.deterministic);
#endif
}

std::unique_ptr<optim::Optimizer> make_optimizer(const TrainingOptions& options,
                                                 std::vector<optim::ParameterGroup> groups) {
  if (options.optimizer == "sgd")
    return std::make_unique<optim::Sgd>(std::move(groups),
                                        optim::SgdOptions{.momentum = options.momentum});
  if (options.optimizer == "lion")
    return std::make_unique<optim::Lion>(
        std::move(groups), optim::LionOptions{.beta1 = options.beta1, .beta2 = options.beta2});
  const optim::AdamWOptions adamw{options.beta1, options.beta2, options.eps};
  if (options.optimizer == "muon")
    return std::make_unique<optim::Muon>(
        std::move(groups), optim::MuonOptions{.momentum = options.momentum, .adamw = adamw});
  return std::make_unique<optim::AdamW>(std::move(groups), adamw);
}

amp::GradScalerOptions scaler_options(const TrainingOptions& options, const amp::Preset& preset) {
  amp::GradScalerOptions scaler = amp::GradScalerOptions::of(preset);
  if (scaler.dynamic) {
    scaler.init_scale = options.init_scale;
    scaler.min_scale = options.min_scale;
  }
  scaler.growth_interval = static_cast<int>(options.growth_interval);
  scaler.hysteresis = static_cast<int>(options.hysteresis);
  return scaler;
}

train::TrainerOptions trainer_options(const TrainingOptions& options,
                                      train::DataParallel* parallel) {
  train::TrainerOptions trainer;
  trainer.steps = options.steps;
  trainer.validate_every = options.validate_every;
  trainer.checkpoint_every = options.checkpoint_every;
  trainer.keep_checkpoints = static_cast<int>(options.keep_checkpoints);
  trainer.schedule = {.kind = optim::Schedule::parse_kind(options.schedule),
                      .learning_rate = options.learning_rate,
                      .warmup = options.warmup,
                      .total = options.steps,
                      .decay = options.decay,
                      .final_factor = options.final_lr};
  trainer.step = {
      .clip = options.clip, .seed = options.seed, .capture = !options.eager, .parallel = parallel};
  trainer.quiet = options.quiet;
  trainer.diagnose_overflow = options.diagnose_overflow;
  trainer.underflow_every = options.underflow_report;
  trainer.compare_every = options.compare_ranks;
  return trainer;
}

int64_t trained_count(const optim::Optimizer& optimizer) {
  int64_t count = 0;
  for (const optim::FlatGroup& group : optimizer.groups())
    for (const optim::FlatGroup::Member& member : group.members()) count += member.numel;
  return count;
}

std::map<std::string, std::string> manifest(Device device) {
  std::map<std::string, std::string> facts = {{"device", '"' + concat(device) + '"'}};
#if BINADE_HAVE_CUDA
  if (device.is_cuda()) facts["matmul_algorithms"] = cuda::export_matmul_algorithms(device);
#endif
  return facts;
}

amp::Preset preset_of(const TrainingOptions& options, Device device) {
  return options.precision.empty() ? amp::Preset::default_for(device)
                                   : amp::Preset::parse(options.precision);
}

void resume_if_asked(const TrainingOptions& options, train::Trainer& trainer) {
  if (!options.resume) return;
  if (trainer.resume()) {
    say("resumed at step {}\n", trainer.steps_done());
  } else {
    say("no checkpoint to resume from; starting at step 0\n");
  }
}

std::string summary(const train::Trainer::Outcome& outcome, bool finished_before,
                    std::string_view unit) {
  std::string text = fmt::format("{} at step {}",
                                 outcome.stopped         ? "stopped by a signal"
                                 : outcome.patience_lost ? "stopped, as nothing got better,"
                                                         : "done",
                                 outcome.steps_done);
  if (finished_before) text += " already (--steps goes further)";
  if (outcome.steps_done > 0) text += fmt::format(": loss {:.4f}", outcome.last_loss);
  if (finished_before && outcome.best)
    text += fmt::format(", best validation {} {:.4f}", outcome.best->name, outcome.best->shown);
  if (std::isfinite(outcome.tokens_per_second))
    text += fmt::format(", {:.0f} {}/s", outcome.tokens_per_second, unit);
  if (outcome.without_labels > 0)
    text += fmt::format(", {} steps had no label and were passed over", outcome.without_labels);
  return text;
}

}  // namespace binade::examples
