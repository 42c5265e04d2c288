// Checkpoints in a loop of one's own, as docs/training.md shows it.
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/nn/batch_norm.h>
#include <binade/nn/dropout.h>
#include <binade/nn/linear.h>
#include <binade/nn/sequential.h>
#include <binade/nn/state.h>
#include <binade/optim/adamw.h>
#include <binade/train/checkpoint.h>

#include "temporary_folder.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

std::map<std::string, std::vector<float>> values_of(const nn::StateDict& state) {
  std::map<std::string, std::vector<float>> values;
  for (const auto& [name, array] : state) values[name] = array.to_vector<float>();
  return values;
}

// Trains up to `steps` from what the folder holds, saves every third step, and gives the weights.
std::map<std::string, std::vector<float>> train_to(const std::filesystem::path& folder,
                                                   int64_t steps) {
  RandomState::current().set_seed(std::filesystem::exists(folder) ? 99 : 1);
  nn::Sequential net;
  net.append<nn::Linear>(4, 8).append<nn::BatchNorm1d>(8).append(relu);
  net.append<nn::Dropout>(0.2).append<nn::Linear>(8, 1);
  const amp::Preset preset = amp::Preset::parse("fp16");
  preset.apply(net);
  optim::AdamW optimizer(optim::split_by_decay(net, 0.01));
  amp::GradScaler scaler(Device::cpu(), {.init_scale = 0x1p20, .growth_interval = 2});

  train::CheckpointFolder checkpoints(folder, /*keep=*/2);
  int64_t step = 0;
  if (const auto found = checkpoints.newest()) {
    net.load_state(found->checkpoint.sections.at("model"));
    optimizer.load_state(found->checkpoint.sections.at("optimizer"));
    scaler.load_state(found->checkpoint.sections.at("scaler"));
    step = static_cast<int64_t>(*parse_number(found->checkpoint.values.at("step")));
  }
  for (; step < steps; ++step) {
    RandomState::current().begin_step(/*seed=*/1, static_cast<uint64_t>(step));
    const Tensor x(nn::init::normal()({16, 4}, Device::cpu()));
    optimizer.zero_grad();
    optimizer.set_learning_rate(0.01);
    Tensor loss;
    {
      const amp::Autocast scope(preset, scaler);
      loss = mse_loss(net.forward(x), sum(x, {1}, true));
    }
    scaler.scale(loss).backward();
    scaler.clip_norm(1.0);
    scaler.step(optimizer);
    scaler.update();
    if ((step + 1) % 3 == 0)
      checkpoints.save(step + 1,
                       {.sections = {{"model", net.state()},
                                     {"optimizer", optimizer.state()},
                                     {"scaler", scaler.state()}},
                        .values = {{"step", std::to_string(step + 1)}}},
                       /*best=*/false);
  }
  return values_of(net.state());
}

}  // namespace

TEST_CASE("a loop of one's own goes on from its checkpoints bit by bit", "[train][own_loop]") {
  const TemporaryFolder temporary;
  const auto whole = train_to(temporary.path() / "whole", 10);
  const auto parts = temporary.path() / "parts";
  train_to(parts, 4);  // saved after 3
  train_to(parts, 6);
  CHECK(train_to(parts, 10) == whole);
  CHECK(whole.contains("1.running_mean"));

  // A damaged one is named, and the one before it used.
  const auto files = train::list_checkpoints(parts);
  REQUIRE(files.size() == 2);
  std::filesystem::resize_file(files.back(), std::filesystem::file_size(files.back()) - 5);
  const ExpectWarning expected(files.back().filename().string());
  CHECK(train_to(parts, 10) == whole);
}

TEST_CASE("a state is read back from its file, as copies", "[train][own_loop]") {
  const TemporaryFolder temporary;
  const auto path = temporary.path() / "net.safetensors";
  RandomState::current().set_seed(3);
  nn::Sequential net, other;
  net.append<nn::Linear>(3, 2).append<nn::BatchNorm1d>(2);
  other.append<nn::Linear>(3, 2).append<nn::BatchNorm1d>(2);
  write_safetensors(path, net.state());
  nn::StateDict state = nn::read_state(path);
  CHECK(values_of(state) == values_of(net.state()));
  other.load_state(state);
  CHECK(values_of(other.state()) == values_of(net.state()));
  write_safetensors(path, {{"0.bias", Array::full({2}, 7, DType::f32)}});  // in its place
  CHECK(values_of(state) == values_of(net.state()));
  state.at("0.bias").fill(3);  // and may be written
  CHECK(values_of(nn::read_state(path)).at("0.bias") == std::vector<float>{7, 7});
  CHECK_THROWS_WITH(nn::read_state(temporary.path() / "none"), Contains("none"));
}

TEST_CASE("a snapshot stays while the state moves on", "[train][own_loop]") {
  RandomState::current().set_seed(3);
  nn::Sequential net;
  net.append<nn::Linear>(3, 2).append<nn::BatchNorm1d>(2);
  const nn::StateDict state = net.state(), snapshot = net.snapshot();
  const auto before = values_of(snapshot);
  CHECK(values_of(state) == before);
  optim::AdamW optimizer(optim::split_by_decay(net, 0.1));
  optimizer.set_learning_rate(0.1);
  sum(square(net.forward(Tensor(nn::init::normal()({8, 3}, {}))))).backward();
  optimizer.step();
  CHECK(values_of(snapshot) == before);
  CHECK(values_of(net.state()) != before);
  for (const auto& [name, array] : net.snapshot())
    CHECK(!array.shares_storage(net.state().at(name)));
  net.load_state(snapshot);
  CHECK(values_of(net.state()) == before);
}
