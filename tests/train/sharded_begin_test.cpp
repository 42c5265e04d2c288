// Ranks that begin, and go on, with their share of the state alone: counted, and equal to ranks
// that have everything at first.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
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

SmallRunOptions placed(SmallRunOptions options) {
  options.placed = true;
  return options;
}

// A run whose optimizer moves what it trains to a device of its own accord.
struct PlacedRun : SmallRun {
  PlacedRun(const SmallRunOptions& options, train::DataParallel* parallel)
      : SmallRun(placed(options)) {
    ema = std::make_unique<optim::Ema>(*optimizer, 0.9);
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
  PlacedRun alone(options, nullptr);
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
      PlacedRun run(options, &parallel);
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
    PlacedRun run(options, nullptr);
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
      PlacedRun run(options, &parallel);
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

TEST_CASE("sharded begin: ranks that resume make no values before they read them",
          "[dist][sharing][train][deferred]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;
  const SmallRunOptions options = half_with_masters();
  std::map<std::string, std::vector<float>> expected;
  {
    PlacedRun run(options, nullptr);
    train::RunFolder run_folder(folder.path() / "run", false);
    run_folder.set_config("{}");
    train::Trainer trainer = run.trainer(run_folder, 3);
    trainer.run();
    expected = all_of(run);
  }
  for (const bool there : {true, false}) {
    // Of weights that count how often they are made.
    std::mutex mutex;
    int64_t made = 0;
    if (!there) std::filesystem::remove_all(folder.path() / "run" / "checkpoints");
    const auto errors = run_ranks(2, [&](dist::World& world) {
      const nn::Deferred scope;
      const auto model = small_gpt(options);
      for (const nn::NamedParameter& named : model->named_parameters())
        named.parameter->assign(nn::ValueSource(
            named.parameter->shape(),
            [&, source = named.parameter->source()](int64_t begin, const Array& out) {
              source.write(begin, out);
              const std::lock_guard lock(mutex);
              made += out.numel();
            }));
      const amp::Preset preset = amp::Preset::parse(options.preset);
      preset.apply(*model);
      std::vector<optim::ParameterGroup> groups = optim::split_by_decay(*model, 0.1);
      for (optim::ParameterGroup& group : groups) group.device = Device::cpu();
      optim::AdamW optimizer(groups);
      amp::GradScaler scaler(Device::cpu(), options.scaler);
      train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
      train::TrainerOptions trainer_options{.steps = 3, .quiet = true};
      trainer_options.step.parallel = &parallel;
      train::RunFolder run_folder(folder.path() / "run", /*resume=*/true, world.is_first());
      run_folder.set_config("{}");
      train::Trainer trainer({.model = model.get(),
                              .data = [](int64_t index) { return small_batch(index, 8, kRanks); },
                              .loss = heads::language_model::loss(*model)},
                             optimizer, scaler, preset, run_folder, trainer_options);
      check(trainer.resume() == there, "the checkpoint is not what was expected");
      if (!there) return;
      const nn::NamedParameter first = model->named_parameters()[0];
      check(first.parameter->tensor().array().to(DType::f32).to_vector<float>() ==
                expected.at("value." + first.name),
            "the values are not the checkpoint's");
    });
    for (const std::string& error : errors) CHECK(error == "");
    int64_t all = 0;
    for (const auto& [name, values] : expected)
      if (name.starts_with("value.")) all += std::ssize(values);
    CHECK(made == (there ? 0 : all));
  }
}

TEST_CASE("sharded begin: a checkpoint that is damaged in one rank's part is passed over by all",
          "[dist][sharing][train]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;
  const SmallRunOptions options = half_with_masters();
  {
    PlacedRun run(options, nullptr);
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
      PlacedRun run(options, &parallel);
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
    PlacedRun run(options, nullptr);
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
      PlacedRun run(options, &parallel);
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

TEST_CASE("sharded begin: of deferred values each rank makes its own, with the same bits",
          "[dist][sharing][train][deferred]") {
  struct Way {
    int stage;
    bool late;
  };
  for (const char* preset : {"fp32", "fp16", "fp16-no-masters", "bf16"}) {
    SmallRunOptions options = half_with_masters();
    options.preset = preset;
    const auto steps = [](PlacedRun& run) {
      for (int64_t index = 0; index < 3; ++index) {
        const train::StepData data = small_batch(index, 8, kRanks);
        run.step->run(index, data.micro_batches, data.normalisers, 0.01);
      }
    };
    PlacedRun alone(options, nullptr);
    steps(alone);
    const auto expected = all_of(alone);
    {
      const nn::Deferred scope;
      PlacedRun run(options, nullptr);
      steps(run);
      CHECK((all_of(run) == expected));
    }
    for (const Way way : {Way{0, false}, Way{1, false}, Way{1, true}, Way{2, true}})
      for (const int size : {2, kRanks})
        for (const bool looks : {false, true}) {
          CAPTURE(preset, way.stage, way.late, size, looks);
          const auto errors = run_ranks(size, [&](dist::World& world) {
            const nn::Deferred scope;
            train::DataParallel parallel(
                world, Device::cpu(), {.stage = way.stage, .bucket = 1, .late_values = way.late});
            PlacedRun run(options, &parallel);
            const auto parameters = run.model->named_parameters();
            // One rank alone reads some of them.
            if (looks && world.rank() == 1) {
              parameters[0].parameter->tensor().array();
              parameters[3].parameter->master();
            }
            check(looks || parameters[0].parameter->deferred(), "a value was made early");
            steps(run);
            run.step->complete_state();
            check(all_of(run) == expected, "the state differs");
          });
          for (const std::string& error : errors) CHECK(error == "");
        }
  }
}

constexpr int64_t kNumel = 1 << 24;
// Deferred values are made in pieces of 16 MiB: bytes a parameter.
constexpr double kPieces = 16.0 * (1 << 20) / kNumel;

struct Wide : nn::Module {
  Wide() {
    for (int i = 0; i < 4; ++i) add_parameter(concat("p", i), {kNumel / 4}, nn::init::normal());
  }
};

// Two ranks that only one process plays: what it sends gets nowhere.
class Half : public dist::Communicator {
 public:
  explicit Half(Device device) : Communicator(0, 2), device_(device) {}
  Device device() const override { return device_; }

 protected:
  void exchange(const std::vector<Block>&, const std::vector<Block>&) override {}

 private:
  Device device_;
};

TEST_CASE("sharded begin: a rank never has the masters of others in host memory",
          "[dist][sharing][deferred]") {
  const auto bytes_of = [](const std::function<void(Wide&)>& work) {
    release_cached_memory(Device::cpu());
    reset_peak_memory(Device::cpu());
    const int64_t before = memory_stats(Device::cpu()).in_use;
    Wide model;
    amp::Preset::parse("fp16").apply(model);
    work(model);
    return static_cast<double>(memory_stats(Device::cpu()).peak_in_use - before) / kNumel;
  };
  Half ranks(Device::cpu());
  const auto share = [&](Wide& model) {
    std::vector<optim::ParameterGroup> groups = optim::one_group(model, 0);
    groups[0].device = Device::cpu();
    optim::AdamW optimizer(groups);
    const optim::Ema ema(optimizer, 0.9);
    optimizer.share(ranks, {.bucket = 1 << 20});
    CHECK(optimizer.groups()[0].master().numel() == kNumel / 2);
  };
  // Values and gradients of 2; of one half values apart and masters of 4.
  constexpr double kOwn = 2 + 2 + 1 + 2;
  double bytes = 0;
  {
    const nn::Deferred scope;
    bytes = bytes_of(share);
    CAPTURE(bytes);
    CHECK(bytes >= kOwn);
    CHECK(bytes < kOwn + kPieces + 0.1);
    CHECK(bytes_of([](Wide&) {}) < 0.01);
  }
  bytes = bytes_of(share);
  CAPTURE(bytes);
  CHECK(bytes >
        kOwn + 4 + 4);  // the masters of the model, and the averages, are all there at first
}

TEST_CASE("sharded begin: a GPU never has all masters", "[cuda][dist][sharing]") {
  require_gpu();
  const bool deferred = GENERATE(false, true);
  CAPTURE(deferred);
  Half ranks(test_gpu());
  reset_peak_memory(Device::cpu());
  const int64_t host_before = memory_stats(Device::cpu()).in_use;
  std::optional<nn::Deferred> scope;
  if (deferred) scope.emplace();
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
  CHECK(bytes < 2 + 2 + 1 + 6 + 0.5 + (deferred ? kPieces : 0));
  CHECK(bytes > 2 + 2 + 1 + 6);
  if (deferred) {  // nor does the host
    const int64_t host = memory_stats(Device::cpu()).peak_in_use - host_before;
    CHECK(static_cast<double>(host) / kNumel < 2 * kPieces + 0.1);
  }
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
