// Ranks that share optimizer states (ZeRO stage 1): equal to those that do not, and to one process.
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <binade/core/file.h>
#include <binade/nn/state.h>
#include <binade/optim/lion.h>
#include <binade/optim/muon.h>
#include <binade/optim/sgd.h>
#include <binade/train/data_parallel.h>
#include <binade/train/signals.h>
#include <binade/train/trainer.h>

#include "../dist/ranks.h"
#include "small_run.h"
#include "temporary_folder.h"

namespace binade::test {
namespace {

// Ranks are threads here, in which Catch's own checks cannot be used: run_ranks() has what they
// throw.
template <class Work>
void expect_error(const Work& work, const std::vector<std::string>& parts) {
  std::string message = "nothing was thrown";
  try {
    work();
  } catch (const Error& error) {
    message = error.what();
  }
  for (const std::string& part : parts)
    check(message.find(part) != std::string::npos, "'", message, "' does not say '", part, "'");
}

using Bytes = std::map<std::string, std::vector<std::byte>>;

void add_bytes(Bytes& all, const std::string& section, const nn::StateDict& state) {
  for (const auto& [name, array] : state) {
    const Array host = array.to(Device::cpu()).contiguous();
    const auto* data = static_cast<const std::byte*>(host.data());
    all[section + '.' + name] = {data, data + host.bytes()};
  }
}

// What a run is: its model has 13 chunks of decayed weights, in which members and slices end at
// different places, and less than one of others.
struct Setup {
  SmallRunOptions model = {.preset = "fp16",
                           .dropout = 0.1,
                           .dim = 64,
                           .scaler = {.init_scale = 0x1p24, .growth_interval = 5}};
  std::string optimizer = "adamw";
  int64_t lanes = 4, steps = 20;
  int64_t bucket = 1;  // the smallest: a chunk of every rank
  bool averages = true;
  bool two_parts = false;  // an optimizer for each of the groups
  int64_t freeze_at = -1;  // the step before which a layer is frozen; 4 steps later it trains again
};

std::unique_ptr<optim::Optimizer> make_optimizer(const std::string& name,
                                                 std::vector<optim::ParameterGroup> groups) {
  if (name == "sgd")
    return std::make_unique<optim::Sgd>(std::move(groups), optim::SgdOptions{.momentum = 0.9});
  if (name == "lion") return std::make_unique<optim::Lion>(std::move(groups));
  if (name == "muon") return std::make_unique<optim::Muon>(std::move(groups));
  return std::make_unique<optim::AdamW>(std::move(groups));
}

// A run whose optimizers are those of a setup.
struct Run : SmallRun {
  explicit Run(const Setup& setup, train::DataParallel* parallel) : SmallRun(setup.model) {
    step.reset();
    optimizer.reset();
    std::vector<optim::ParameterGroup> groups = optim::split_by_decay(*model, 0.1);
    if (setup.two_parts) {
      for (optim::ParameterGroup& group : groups)
        optimizers.push_back(make_optimizer(setup.optimizer, {std::move(group)}));
    } else {
      optimizers.push_back(make_optimizer(setup.optimizer, std::move(groups)));
    }
    if (setup.averages) ema = std::make_unique<optim::Ema>(*optimizers.front(), 0.9);
    step_options.parallel = parallel;
    const train::LossFunction loss = heads::language_model::loss(*model);
    for (const auto& one : optimizers)
      parts.push_back(
          {setup.two_parts ? concat("part", parts.size()) : "", loss, one.get(), setup.model.clip});
    step = std::make_unique<train::TrainStep>(parts, *scaler, preset, step_options, ema.get());
  }
  Bytes state() const {
    Bytes all;
    add_bytes(all, "model", model->state());
    for (size_t i = 0; i < optimizers.size(); ++i)
      add_bytes(all, concat("optimizer", i), optimizers[i]->state());
    add_bytes(all, "scaler", scaler->state());
    if (ema) add_bytes(all, "ema", ema->state());
    for (const nn::NamedParameter& one : model->named_parameters())
      add_bytes(all, "values", {{one.name, one.parameter->tensor().array()}});
    return all;
  }

  std::vector<std::unique_ptr<optim::Optimizer>> optimizers;
  std::unique_ptr<optim::Ema> ema;
  std::vector<train::StepPart> parts;
};

struct Outcome {
  Bytes state;
  std::vector<train::StepReport> reports;
};

void run_steps(Run& run, const Setup& setup, int64_t first, int64_t last) {
  for (int64_t index = first; index < last; ++index) {
    if (setup.freeze_at >= 0 && (index == setup.freeze_at || index == setup.freeze_at + 4))
      for (const nn::NamedParameter& one : run.model->named_parameters())
        if (one.name.find("h.0.mlp") != std::string::npos)
          one.parameter->set_trainable(index != setup.freeze_at);
    const train::StepData data = small_batch(index, 8, setup.lanes);
    run.step->run(index, data.micro_batches, data.normalisers, 0.01);
  }
}

Outcome train(const Setup& setup, train::DataParallel* parallel = nullptr) {
  Run run(setup, parallel);
  run_steps(run, setup, 0, setup.steps / 2);
  run.step->complete_state();  // between steps, which share it again
  run_steps(run, setup, setup.steps / 2, setup.steps);
  run.step->complete_state();
  return {run.state(), run.step->take_reports(/*wait=*/true)};
}

void check_equal(const Outcome& one, const Outcome& other) {
  REQUIRE(one.state.size() == other.state.size());
  for (const auto& [name, bytes] : one.state) {
    CAPTURE(name);
    CHECK(bytes == other.state.at(name));
  }
  REQUIRE(one.reports.size() == other.reports.size());
  for (size_t i = 0; i < one.reports.size(); ++i) {
    const train::StepReport &a = one.reports[i], &b = other.reports[i];
    CAPTURE(i);
    const double left[] = {a.loss, a.grad_norm, a.scale}, right[] = {b.loss, b.grad_norm, b.scale};
    CHECK(std::memcmp(left, right, sizeof left) == 0);
    CHECK(a.skipped == b.skipped);
    CHECK(a.offender.has_value() == b.offender.has_value());
    if (!a.offender || !b.offender) continue;
    CHECK(a.offender->parameter == b.offender->parameter);
    CHECK(a.offender->element == b.offender->element);
  }
}

// Trains on so many ranks, in each stage, and compares them with one process.
void check_ranks(const Setup& setup, const std::vector<int>& sizes) {
  const Outcome alone = train(setup);
  REQUIRE(std::ssize(alone.reports) == setup.steps);
  if (setup.model.preset.starts_with("fp16")) {
    const int64_t skipped = alone.reports.back().skipped_total;
    CHECK(skipped > 0);
    CHECK(skipped < setup.steps);
  }
  constexpr std::pair<int, bool> kWays[] = {
      {0, false}, {1, false}, {2, false}, {1, true}, {2, true}};
  for (const int size : sizes)
    for (const auto& [stage, late] : kWays) {
      std::mutex mutex;
      std::vector<Outcome> all;
      const auto errors = run_ranks(size, [&, stage = stage, late = late](dist::World& world) {
        train::DataParallel parallel(world, Device::cpu(),
                                     {.stage = stage, .bucket = setup.bucket, .late_values = late});
        Outcome outcome = train(setup, &parallel);
        const std::lock_guard lock(mutex);
        all.push_back(std::move(outcome));
      });
      CAPTURE(setup.model.preset, setup.optimizer, size, stage, late);
      for (const std::string& error : errors) CHECK(error == "");
      REQUIRE(std::ssize(all) == size);
      for (const Outcome& one : all) check_equal(alone, one);
    }
}

TEST_CASE("sharing: ranks that share states are equal to one process, bit by bit",
          "[dist][train]") {
  check_ranks({}, {2, 4});
  check_ranks({.lanes = 8}, {2, 4});
  Setup setup{.steps = 8};
  setup.model.scaler.init_scale = 0x1p20;
  for (const char* preset : {"fp32", "bf16", "fp16-no-masters"}) {
    setup.model.preset = preset;
    check_ranks(setup, {2, 4});
  }
}

TEST_CASE("sharing: every optimizer, Muon's matrices whole", "[dist][train]") {
  for (const char* optimizer : {"sgd", "lion", "muon"}) {
    Setup setup{.optimizer = optimizer, .steps = 8};
    setup.model.scaler.init_scale = 0x1p20;
    check_ranks(setup, {2, 4});
  }
}

TEST_CASE("sharing: a group of one chunk, frozen layers, two optimizers, recompute",
          "[dist][train]") {
  Setup small{.steps = 8};
  small.model.dim = 16;
  small.model.scaler.init_scale = 0x1p20;
  check_ranks(small, {4});
  Setup setup{.steps = 10, .freeze_at = 5};
  setup.model.scaler.init_scale = 0x1p20;
  check_ranks(setup, {4});
  setup.freeze_at = -1;
  setup.two_parts = true;
  check_ranks(setup, {4});
  setup.two_parts = false;
  setup.model.recompute = Recompute::blocks;
  check_ranks(setup, {4});
}

// A trainer's run of two optimizers up to a step, in a folder of the ranks.
void run_trainer(const std::filesystem::path& path, int64_t steps, train::DataParallel* parallel) {
  const Setup setup{.two_parts = true};
  Run run(setup, parallel);
  const bool resume = steps > 4;
  train::RunFolder folder(path, resume, parallel == nullptr || parallel->rank() == 0);
  folder.set_config("{}");
  const train::Task task{.model = run.model.get(),
                         .data = [&](int64_t index) { return small_batch(index, 8, setup.lanes); }};
  train::TrainerOptions options;
  options.steps = steps;
  options.schedule = {.learning_rate = 0.01, .total = 8};
  options.step = run.step_options;
  options.quiet = true;
  train::Trainer trainer(task, run.parts, *run.scaler, run.preset, folder, options, run.ema.get());
  check(trainer.resume() == resume, "the trainer found no checkpoint");
  trainer.run();
  run.state();  // which is whole
}

TEST_CASE("sharing: a trainer of two optimizers writes one file, whatever the number of ranks",
          "[dist][train]") {
  const TemporaryFolder folder;
  const train::StopSignals outermost;  // those of the threads come and go in any order
  run_trainer(folder.path() / "alone", 4, nullptr);
  run_trainer(folder.path() / "alone", 8, nullptr);
  for (const auto& [first, then] : {std::pair{2, 4}, std::pair{4, 2}}) {
    const std::filesystem::path path = folder.path() / concat(first);
    for (const auto& [ranks, steps] : {std::pair{first, 4}, std::pair{then, 8}}) {
      const auto errors = run_ranks(ranks, [&, steps = steps, first = first](dist::World& world) {
        train::DataParallel parallel(world, Device::cpu(), {.late_values = first == 2});
        run_trainer(path, steps, &parallel);
      });
      for (const std::string& error : errors) CHECK(error == "");
    }
    for (const char* name : {"step-000000004.safetensors", "step-000000008.safetensors"}) {
      CAPTURE(first, name);
      CHECK((read_text_file(path / "checkpoints" / name) ==
             read_text_file(folder.path() / "alone" / "checkpoints" / name)));
    }
  }
}

TEST_CASE("sharing: a rank holds its share of the state, and no more", "[dist][train]") {
  constexpr int kRanks = 4;
  std::mutex mutex;
  int64_t held = 0, elements = 0;
  const auto errors = run_ranks(kRanks, [&](dist::World& world) {
    train::DataParallel parallel(world, Device::cpu());
    const Setup setup{.steps = 4};
    Run run(setup, &parallel);
    run_steps(run, setup, 0, 2);
    const optim::Optimizer& optimizer = *run.optimizers.front();
    int64_t bytes = 0, copies = 0, most = 0;
    for (const optim::FlatGroup& group : optimizer.groups()) {
      // Where there are no masters, the values are, which every rank has.
      if (!group.master().shares_storage(group.value())) bytes += group.master().storage()->bytes();
      copies +=
          group.master().shares_storage(group.value()) ? 3 * group.numel() : 4 * group.numel();
      most += (group.numel() / kRanks + kGradientChunk) * 4;
    }
    check(bytes <= most, "masters take ", bytes, " bytes");
    const auto size_of_all = [&](const std::vector<optim::MemberState>& states, int buffers) {
      std::map<const Storage*, int64_t> storages;
      for (const optim::MemberState& one : states)
        storages[one.buffer.storage().get()] = one.buffer.storage()->bytes();
      int64_t sum = 0;
      for (const auto& [storage, size] : storages) sum += size;
      check(sum <= buffers * most, "moments or averages take ", sum, " bytes");
      return sum;
    };
    bytes += size_of_all(optimizer.moments(), 2);
    bytes += size_of_all(run.ema->parameter_averages(), 1);
    const std::lock_guard lock(mutex);
    held += bytes;
    elements = copies;
  });
  for (const std::string& error : errors) CHECK(error == "");
  // Two moments, an average, and what masters there are: each once over all ranks.
  CHECK(held == 4 * elements);
}

TEST_CASE("sharing: what is in pieces cannot be read by mistake", "[dist][train]") {
  const auto errors = run_ranks(2, [](dist::World& world) {
    train::DataParallel parallel(world, Device::cpu());
    const Setup setup{.steps = 2};
    Run run(setup, &parallel);
    run_steps(run, setup, 0, 1);
    const std::vector<std::string> in_pieces = {"in pieces", "complete()"};
    const nn::ParameterPtr first = run.model->named_parameters()[0].parameter;
    optim::Optimizer& optimizer = *run.optimizers.front();
    expect_error([&] { run.model->state(); }, {"in pieces", "complete()", "wte"});
    expect_error([&] { first->assign(Array::zeros(first->shape(), DType::f32)); }, in_pieces);
    expect_error([&] { optimizer.state(); }, {"in pieces", "complete()", "exp_avg"});
    expect_error([&] { optimizer.load_state({}); }, {"the saved state has no exp_avg"});
    expect_error([&] { run.ema->state(); }, in_pieces);
    expect_error([&] { run.ema->load_state({}); }, {"the saved state has no "});
    expect_error([&] { optimizer.share(world.communicator(), {.bucket = 1}); }, {"already"});
    optimizer.zero_grad();
    const Tensor& values = first->tensor();
    values.backward(Tensor(Array::zeros(values.shape(), values.dtype())));
    expect_error([&] { optimizer.step(); }, {"train::TrainStep"});
    expect_error([&] { optimizer.accumulate(); }, {"train::TrainStep"});
    run.step->complete_state();
    run.model->state();
    optimizer.load_state(nn::copy_of(optimizer.state()));
    run_steps(run, setup, 1, 2);
    // Without its optimizer the masters are lost, and that is said, too.
    run.step.reset();
    run.ema.reset();
    run.optimizers.clear();
    expect_error([&] { first->master(); }, {"its optimizer is gone"});
  });
  for (const std::string& error : errors) CHECK(error == "");
}

TEST_CASE("sharing: averages in use are whole on every rank, and go again bit by bit",
          "[dist][train]") {
  for (const char* preset : {"fp32", "fp16", "fp16-no-masters"}) {
    Setup setup{.steps = 6};
    setup.model.preset = preset;
    setup.model.scaler.init_scale = 1024;
    // The values while the averages are in use, and all state after.
    const auto swapped = [&](train::DataParallel* parallel) {
      Run run(setup, parallel);
      run_steps(run, setup, 0, 3);
      Bytes during;
      {
        const optim::Ema::Scope scope(*run.ema);
        for (const nn::NamedParameter& one : run.model->named_parameters())
          add_bytes(during, "values", {{one.name, one.parameter->tensor().array()}});
        expect_error([&] { run.ema->share(); }, {"in use"});
        expect_error([&] { run.ema->unshare(); }, {"in use"});
      }
      run_steps(run, setup, 3, 6);
      run.step->complete_state();
      return std::pair(during, run.state());
    };
    const auto alone = swapped(nullptr);
    for (const bool late : {false, true}) {
      const auto errors = run_ranks(4, [&](dist::World& world) {
        train::DataParallel parallel(world, Device::cpu(), {.late_values = late});
        const auto got = swapped(&parallel);
        check(got.first == alone.first, "the averages in use differ");
        check(got.second == alone.second, "the state after them differs");
      });
      CAPTURE(preset, late);
      for (const std::string& error : errors) CHECK(error == "");
    }
  }
}

TEST_CASE("sharing: stages that there are not", "[dist][train]") {
  const auto errors = run_ranks(2, [](dist::World& world) {
    for (const int stage : {-1, 3})
      expect_error([&] { train::DataParallel(world, Device::cpu(), {.stage = stage}); },
                   {concat("0, 1 and 2, got ", stage)});
  });
  for (const std::string& error : errors) CHECK(error == "");
}

}  // namespace
}  // namespace binade::test
