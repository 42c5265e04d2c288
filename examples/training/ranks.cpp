#include "ranks.h"

#include <filesystem>

#include <binade/core/version.h>

namespace binade::examples {

void on_every_rank(const TrainingOptions& options,
                   const std::function<void(dist::World& world)>& body) {
  dist::Launch launch = dist::read_launch();
  launch.transport = dist::parse_transport(options.transport);
  dist::World world(launch, dist::read_limits());
  silent() = !world.is_first();
  const nn::Deferred scope;  // no rank makes values that belong to another, or to a GPU
  try {
    body(world);
    world.leave();
  } catch (const std::exception& error) {
    world.report_failure(error.what());
    throw;
  }
}

void require_one_rank(const std::string& reason) {
  const int ranks = dist::read_launch().size;
  check(ranks == 1, "this program runs on one rank, and was started on ", ranks, ": ", reason);
}

Device choose_device(const TrainingOptions& options, const dist::World& world) {
  const Device chosen = choose_device(options.device);
  if (world.alone() || chosen.is_cpu()) return chosen;
  check(options.device == "auto" || options.device == "cuda", "--device ", options.device,
        " is one GPU for ", world.size(), " ranks; give --device cuda, and each takes its own");
  const int count = cuda_device_count();
  check(count == 1 || world.local_rank() < count, "rank ", world.rank(), " is number ",
        world.local_rank(), " on its host, which has ", count, " GPUs; start fewer ranks");
  return Device::cuda(count == 1 ? 0 : world.local_rank());
}

namespace {

// A rank that does not see the run that it shall go on with has none of its options either.
void require_run_folder(const TrainingOptions& options, dist::World& world) {
  const bool has_run =
      std::filesystem::exists(std::filesystem::path(options.run_dir) / "config.json");
  world.require_same("run folders", !options.resume ? "a new run"
                                    : has_run       ? "a run to go on with in " + options.run_dir
                                                    : "no run in " + options.run_dir);
}

}  // namespace

std::unique_ptr<train::DataParallel> data_parallel(const TrainingOptions& options,
                                                   const std::string& config, dist::World& world,
                                                   Device device) {
  if (world.alone()) return nullptr;
  const auto facts = version_facts();
  world.require_same("versions of Binade",
                     concat(facts[0].second, " (commit ", facts[1].second, ')'));
  require_run_folder(options, world);
  world.require_same("options", config, [](const std::string& first, const std::string& own) {
    return train::configuration_differences(first, "rank 0's configuration", own, {});
  });
  world.require_same("devices", device.is_cpu() ? "cpu" : "cuda");
  train::check_lanes(options.accumulation, world.size());
  return std::make_unique<train::DataParallel>(
      world, device,
      train::DataParallelOptions{.stage = static_cast<int>(options.zero),
                                 .timeline = options.timeline,
                                 .late_values = options.send_values == "forward"});
}

std::unique_ptr<optim::Optimizer> make_placed_optimizer(const TrainingOptions& options,
                                                        nn::Module& trained,
                                                        std::vector<optim::ParameterGroup> groups,
                                                        const dist::World& world, Device device) {
  if (!world.alone())
    for (optim::ParameterGroup& group : groups) group.device = device;
  auto optimizer = make_optimizer(options, std::move(groups));
  trained.to(device);
  return optimizer;
}

}  // namespace binade::examples
