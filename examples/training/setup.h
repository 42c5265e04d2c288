// From the options of a training program to the parts of a run.
#pragma once

#include <functional>
#include <memory>

#include <binade/binade.h>

#include "../device.h"
#include "options.h"

namespace binade::examples {

// Options that a resumed run may have otherwise than before; a program may add some.
inline const std::vector<std::string> kMayChange = {"steps",
                                                    "resume",  // of older run folders
                                                    "run-dir",
                                                    "save-hf",
                                                    "quiet",
                                                    "config",
                                                    "checkpoint-every",
                                                    "keep-checkpoints",
                                                    "eager",
                                                    "zero",
                                                    "transport",
                                                    "send-values",
                                                    "timeline",
                                                    "compare-ranks",
                                                    "sample-prompt",
                                                    "validate-every",
                                                    "validation-batches",
                                                    "sample-tokens",
                                                    "diagnose-overflow",
                                                    "underflow-report"};

// `command` has the program's options, which are read into `options`.
std::vector<std::string> with_saved_config(std::vector<std::string> arguments, CommandLine& command,
                                           const TrainingOptions& options);
// --resume alone takes the options of the run folder; options given beside it are compared with
// them. `Options` are the program's.
template <class Options>
std::vector<std::string> with_saved_config(std::vector<std::string> arguments) {
  CommandLine command;
  Options options;
  add_options(command, options);
  return with_saved_config(std::move(arguments), command, options);
}

void set_gpu_switches(const TrainingOptions& options, Device device);
amp::Preset preset_of(const TrainingOptions& options, Device device);
std::unique_ptr<optim::Optimizer> make_optimizer(const TrainingOptions& options,
                                                 std::vector<optim::ParameterGroup> groups);
amp::GradScalerOptions scaler_options(const TrainingOptions& options, const amp::Preset& preset);
// `parallel` is null on one rank.
train::TrainerOptions trainer_options(const TrainingOptions& options,
                                      train::DataParallel* parallel = nullptr);
int64_t trained_count(const optim::Optimizer& optimizer);
std::map<std::string, std::string> manifest(Device device);
// Resumes with --resume, and says from where.
void resume_if_asked(const TrainingOptions& options, train::Trainer& trainer);
// "done at step 200: loss 3.1415, 9507 tokens/s"
std::string summary(const train::Trainer::Outcome& outcome, bool finished_before,
                    std::string_view unit = "tokens");

}  // namespace binade::examples
