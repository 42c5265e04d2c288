// Ranks that begin, and go on, with their share of the state alone: counted, and equal to ranks
// that have everything at first.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include <binade/core/device.h>
#include <binade/core/file.h>
#include <binade/optim/adamw.h>
#include <binade/train/checkpoint_pieces.h>
#include <binade/train/data_parallel.h>
#include <binade/train/frozen_weights.h>
#include <binade/train/signals.h>
#include <binade/train/trainer.h>

#include "../dist/ranks.h"
#include "gpu.h"
#include "small_run.h"
#include "temporary_folder.h"
#include "warnings.h"

namespace binade::test {
namespace {

constexpr int kRanks = 4;

SmallRunOptions half_with_masters() {
  SmallRunOptions options{.preset = "fp16", .dim = 64};
  options.scaler.init_scale = 1024;
  return options;
}

// A run whose optimizer moves what it trains to a device of its own accord.
struct PlacedRun : SmallRun {
  PlacedRun(const SmallRunOptions& options, Device device, train::DataParallel* parallel)
      : SmallRun(options) {
    step.reset();
    optimizer.reset();
    std::vector<optim::ParameterGroup> groups = optim::split_by_decay(*model, 0.1);
    for (optim::ParameterGroup& group : groups) group.device = device;
    optimizer = std::make_unique<optim::AdamW>(groups);
    model->to(device);
    ema = std::make_unique<optim::Ema>(*optimizer, 0.9);
    scaler = std::make_unique<amp::GradScaler>(device, options.scaler);
    step_options.parallel = parallel;
    step = std::make_unique<train::TrainStep>(heads::language_model::loss(*model), *optimizer,
                                              *scaler, preset, step_options, ema.get());
  }
  train::Trainer trainer(train::RunFolder& folder, int64_t steps) {
    train::TrainerOptions trainer_options;
    trainer_options.steps = steps;
    trainer_options.schedule = {.learning_rate = 0.01, .total = 8};
    trainer_options.step = step_options;
    trainer_options.quiet = true;
    return {{.model = model.get(),
             .data = [](int64_t index) { return small_batch(index, 8, kRanks); },
             .loss = heads::language_model::loss(*model)},
            *optimizer,
            *scaler,
            preset,
            folder,
            trainer_options,
            ema.get()};
  }
  std::unique_ptr<optim::Ema> ema;
};

std::map<std::string, std::vector<float>> all_of(const PlacedRun& run) {
  std::map<std::string, std::vector<float>> all = run.weights();
  for (const auto& [name, array] : run.optimizer->state())
    all["optimizer." + name] = array.to(DType::f32).to_vector<float>();
  for (const auto& [name, array] : run.ema->state()) all["ema." + name] = array.to_vector<float>();
  for (const nn::NamedParameter& one : run.model->named_parameters())
    all["value." + one.name] = one.parameter->tensor().array().to(DType::f32).to_vector<float>();
  return all;
}

TEST_CASE("sharded begin: masters stay in the parameters' memory until a rank takes its own",
          "[dist][sharing][train]") {
  const SmallRunOptions options = half_with_masters();
  PlacedRun alone(options, Device::cpu(), nullptr);
  const Array before = alone.model->named_parameters()[0].parameter->master();
  CHECK_FALSE(before.shares_storage(alone.optimizer->groups()[0].master()));  // which moves them
  CHECK(alone.model->named_parameters()[0].parameter->master().shares_storage(
      alone.optimizer->groups()[0].master()));
  const auto steps = [](PlacedRun& run, int64_t first, int64_t last) {
    for (int64_t index = first; index < last; ++index) {
      const train::StepData data = small_batch(index, 8, kRanks);
      run.step->run(index, data.micro_batches, data.normalisers, 0.01);
    }
  };
  // The averages are those of the values at the beginning.
  SmallRun usual(options);
  optim::Ema averages(*usual.optimizer, 0.9);
  usual.step = std::make_unique<train::TrainStep>(heads::language_model::loss(*usual.model),
                                                  *usual.optimizer, *usual.scaler, usual.preset,
                                                  usual.step_options, &averages);
  for (int64_t index = 0; index < 4; ++index) {
    const train::StepData data = small_batch(index, 8, kRanks);
    usual.step->run(index, data.micro_batches, data.normalisers, 0.01);
  }
  steps(alone, 0, 4);
  CHECK(alone.weights() == usual.weights());
  for (const auto& [name, array] : averages.state())
    CHECK(alone.ema->state().at(name).to_vector<float>() == array.to_vector<float>());
  const auto expected = all_of(alone);
  for (const int stage : {1, 2}) {
    const auto errors = run_ranks(kRanks, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu(), {.stage = stage, .bucket = 1});
      PlacedRun run(options, Device::cpu(), &parallel);
      run.step->share_state();
      const optim::FlatGroup& group = run.optimizer->groups()[0];
      check(group.master().numel() == group.owned() && group.owned() < group.numel() / 2,
            "a rank has ", group.master().numel(), " masters of ", group.numel());
      steps(run, 0, 4);
      run.step->complete_state();
      check(all_of(run) == expected, "the state differs");
    });
    for (const std::string& error : errors) CHECK(error == "");
  }
}

TEST_CASE("sharded begin: a rank reads its part of a checkpoint, and goes on as one process does",
          "[dist][sharing][train]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;  // those of the threads come and go in any order
  const SmallRunOptions options = half_with_masters();
  const auto path = folder.path() / "run";
  const auto train_alone = [&](int64_t steps) {
    PlacedRun run(options, Device::cpu(), nullptr);
    train::RunFolder run_folder(path, /*resume=*/steps > 4);
    run_folder.set_config("{}");
    train::Trainer trainer = run.trainer(run_folder, steps);
    trainer.resume();
    trainer.run();
    return all_of(run);
  };
  train_alone(4);
  const auto first = path / "checkpoints" / "step-000000004.safetensors";
  std::filesystem::copy(path, folder.path() / "ranks", std::filesystem::copy_options::recursive);
  const auto expected = train_alone(8);
  const int64_t file_bytes = static_cast<int64_t>(std::filesystem::file_size(first));

  std::mutex mutex;
  std::vector<int64_t> read;
  for (const int stage : {1, 2}) {
    const auto ranks = folder.path() / "ranks";
    std::filesystem::remove(ranks / "checkpoints" / "step-000000008.safetensors");
    const auto errors = run_ranks(kRanks, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu(), {.stage = stage, .bucket = 1});
      PlacedRun run(options, Device::cpu(), &parallel);
      train::RunFolder run_folder(ranks, /*resume=*/true, world.is_first());
      run_folder.set_config("{}");
      train::Trainer trainer = run.trainer(run_folder, 8);
      check(trainer.resume(), "there is no checkpoint");
      {
        // As the trainer has.
        train::CheckpointSource own;
        train::FrozenWeights(*run.model, *run.optimizer).add_to(own);
        for (const optim::MemberState& one : run.optimizer->moments()) own.add("optimizer", one);
        for (const optim::MemberState& one : run.ema->parameter_averages()) own.add("ema", one);
        train::CheckpointPieces pieces(world.communicator(), own.pieces());
        check(train::CheckpointFolder(ranks / "checkpoints", 9).newest(&pieces).has_value(),
              "the checkpoint is damaged");
        const std::lock_guard lock(mutex);
        read.push_back(pieces.bytes_read());
      }
      trainer.run();
      check(all_of(run) == expected, "the state differs");
    });
    for (const std::string& error : errors) CHECK(error == "");
    CHECK((read_text_file(ranks / "checkpoints" / "step-000000008.safetensors") ==
           read_text_file(path / "checkpoints" / "step-000000008.safetensors")));
  }
  REQUIRE(read.size() == 2 * kRanks);
  int64_t sum = 0;
  for (const int64_t bytes : read) {
    // Its share of 14 chunks, up to one chunk of each of four tensors; and what all ranks have.
    CHECK(bytes < file_bytes * 45 / 100);
    sum += bytes;
  }
  CHECK(sum / 2 < file_bytes * 115 / 100);  // nothing of what is shared was read twice
  CHECK(sum / 2 > file_bytes * 90 / 100);
}

TEST_CASE("sharded begin: a checkpoint that is damaged in one rank's part is passed over by all",
          "[dist][sharing][train]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;
  const SmallRunOptions options = half_with_masters();
  {
    PlacedRun run(options, Device::cpu(), nullptr);
    train::RunFolder run_folder(folder.path() / "run", false);
    run_folder.set_config("{}");
    run.trainer(run_folder, 2).run();
    train::Trainer more = run.trainer(run_folder, 3);
    check(more.resume(), "there is no checkpoint");
    more.run();
  }
  const auto newest = folder.path() / "run" / "checkpoints" / "step-000000003.safetensors";
  const auto size = static_cast<int64_t>(std::filesystem::file_size(newest));
  std::string bytes = read_text_file(newest);
  // The whole range of the tensors, in big steps.
  for (const int64_t at : {size / 4, size / 2, size * 3 / 4, size - 5}) {
    CAPTURE(at);
    std::string changed = bytes;
    changed[static_cast<size_t>(at)] = static_cast<char>(changed[static_cast<size_t>(at)] ^ 1);
    std::ofstream(newest, std::ios::binary) << changed;
    const ExpectWarning expected("is damaged: the checksum of");
    const auto errors = run_ranks(kRanks, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
      PlacedRun run(options, Device::cpu(), &parallel);
      train::RunFolder run_folder(folder.path() / "run", true, false);
      run_folder.set_config("{}");
      train::Trainer trainer = run.trainer(run_folder, 3);
      check(trainer.resume() && trainer.steps_done() == 2, "a damaged checkpoint was taken");
    });
    for (const std::string& error : errors) CHECK(error == "");
  }
}

TEST_CASE("sharded begin: ranks that see other checkpoints are told which",
          "[dist][sharing][train]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;
  const SmallRunOptions options = half_with_masters();
  const auto run_of = [&](int rank) { return folder.path() / concat("of-", rank); };
  {
    PlacedRun run(options, Device::cpu(), nullptr);
    train::RunFolder run_folder(run_of(0), false);
    run_folder.set_config("{}");
    run.trainer(run_folder, 2).run();
  }
  const auto name = "checkpoints/step-000000002.safetensors";
  const auto bytes = std::filesystem::file_size(run_of(0) / name);
  for (const bool there : {false, true}) {
    std::filesystem::remove_all(run_of(1));
    std::filesystem::copy(run_of(0), run_of(1), std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(run_of(1) / "checkpoints");
    if (there) {  // and cut off
      std::filesystem::create_directory(run_of(1) / "checkpoints");
      std::filesystem::copy(run_of(0) / name, run_of(1) / name);
      std::filesystem::resize_file(run_of(1) / name, bytes - 1);
    }
    const auto errors = run_ranks(2, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
      PlacedRun run(options, Device::cpu(), &parallel);
      train::RunFolder run_folder(run_of(world.rank()), true, false);
      run_folder.set_config("{}");
      run.trainer(run_folder, 4).resume();
    });
    const std::string expected =
        concat("the ranks have different checkpoints: rank 0 sees step-000000002.safetensors of ",
               bytes, " bytes in ", run_of(1).string(), ", rank 1 sees ",
               there ? concat("step-000000002.safetensors of ", bytes - 1, " bytes") : "none",
               "; all have to see one run folder");
    for (const std::string& error : errors) CHECK_THAT(error, Catch::Contains(expected));
  }
}

TEST_CASE("sharded begin: a GPU never has all masters", "[cuda][dist][sharing]") {
  require_gpu();
  // Two ranks that only one process plays: nothing is sent before a step.
  class Half : public dist::Communicator {
   public:
    Half() : Communicator(0, 2) {}
    Device device() const override { return test_gpu(); }

   protected:
    void exchange(const std::vector<Block>&, const std::vector<Block>&) override {}
  };
  Half ranks;
  constexpr int64_t kNumel = 1 << 24;
  struct Wide : nn::Module {
    Wide() {
      for (int i = 0; i < 4; ++i)
        add_parameter(concat("p", i), Array::full({kNumel / 4}, 0.25 * i, DType::f32));
    }
  };
  Wide model;
  amp::Preset::parse("fp16").apply(model);
  release_cached_memory(test_gpu());
  reset_peak_memory(test_gpu());
  const int64_t before = memory_stats(test_gpu()).in_use;
  std::vector<optim::ParameterGroup> groups = optim::one_group(model, 0);
  groups[0].device = test_gpu();
  optim::AdamW optimizer(groups);
  model.to(test_gpu());
  optimizer.share(ranks, {.bucket = 1 << 20});
  optimizer.set_learning_rate(0.1);
  const double bytes = static_cast<double>(memory_stats(test_gpu()).peak_in_use - before) / kNumel;
  CAPTURE(bytes);
  // Values and gradients of 2, half of them apart, half of masters and two moments of 4 each.
  CHECK(bytes < 2 + 2 + 1 + 6 + 0.5);
  CHECK(bytes > 2 + 2 + 1 + 6);
  // Put together again they are in host memory.
  reset_peak_memory(test_gpu());
  optimizer.unshare();
  const auto of = [&](int64_t now) { return static_cast<double>(now - before) / kNumel; };
  CHECK(of(memory_stats(test_gpu()).peak_in_use) < 2 + 2 + 1 + 6 + 0.5);
  CHECK(of(memory_stats(test_gpu()).in_use) < 2 + 2 + 0.5);
  CHECK(model.named_parameters()[0].parameter->master().device() == Device::cpu());
  CHECK(optimizer.state().at("exp_avg.p0").device() == Device::cpu());
}

}  // namespace
}  // namespace binade::test
