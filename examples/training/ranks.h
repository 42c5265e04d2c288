// The ranks of a training program: its main(), and what every rank has to agree on.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <binade/binade.h>

#include "setup.h"

namespace binade::examples {

// Runs `body` on the ranks of this launch (binade-run, torchrun, mpirun, srun; one without any),
// which speak over --transport. A failure on one of them is told to all; those behind rank 0 say
// nothing else.
void on_every_rank(const TrainingOptions& options,
                   const std::function<void(dist::World& world)>& body);
// For a program that runs on one rank: throws Error, with the reason, when a launcher has started
// several.
void require_one_rank(const std::string& reason);

// The main() of a training program: `train(options, configuration, world)` on every rank. --resume
// takes the options of the run folder.
template <class Options, class Train>
int run_training(const std::string& description, int argc, char** argv, const Train& train) {
  CommandLine command(description);
  Options options;
  add_options(command, options);
  return run_program(
      command, argv[0], with_saved_config<Options>({argv + 1, argv + argc}),
      [&] {
        on_every_rank(options,
                      [&](dist::World& world) { train(options, command.configuration(), world); });
      },
      Output::narration);
}

// --device on these ranks: of several, each has the GPU of its number on its host, or the only one
// that it sees.
Device choose_device(const TrainingOptions& options, const dist::World& world);
// Null on one rank. Throws Error for ranks that cannot share out the micro-batches, or have
// different options or versions of Binade.
std::unique_ptr<train::DataParallel> data_parallel(const TrainingOptions& options,
                                                   const std::string& config, dist::World& world,
                                                   Device device);
// make_optimizer() for what the module trains, whose parts all are on the device then. Of several
// ranks what is trained may still be on the CPU: it goes there with the optimizer, so that masters,
// which ranks may share, never are all on a GPU (optim::ParameterGroup::device).
std::unique_ptr<optim::Optimizer> make_placed_optimizer(const TrainingOptions& options,
                                                        nn::Module& trained,
                                                        std::vector<optim::ParameterGroup> groups,
                                                        const dist::World& world, Device device);

}  // namespace binade::examples
