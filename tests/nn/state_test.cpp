// States as copies and in files.
#include <binade/nn/state.h>

#include <catch2/catch.hpp>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/create.h>
#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/nn/batch_norm.h>
#include <binade/nn/linear.h>
#include <binade/optim/adamw.h>

#include "temporary_folder.h"

using namespace binade;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;

namespace {

struct Net : nn::Module {
  Net()
      : first(add<nn::Linear>("first", 4, 8)),
        norm(add<nn::BatchNorm1d>("norm", 8)),
        last(add<nn::Linear>("last", 8, 1)) {}
  Tensor forward(const Tensor& x) const {
    return last->forward(relu(norm->forward(first->forward(x))));
  }
  std::shared_ptr<nn::Linear> first;
  std::shared_ptr<nn::BatchNorm1d> norm;
  std::shared_ptr<nn::Linear> last;
};

// A run with a loop of its own, as docs/from-pytorch.md shows it.
struct Run {
  Net net;
  amp::Preset preset = amp::Preset::parse("fp16");
  std::unique_ptr<optim::AdamW> optimizer;
  std::unique_ptr<amp::GradScaler> scaler;

  Run() {
    RandomState::current().set_seed(1);
    net.load_state(Net().state());
    preset.apply(net);
    optimizer = std::make_unique<optim::AdamW>(optim::split_by_decay(net, 0.1));
    optimizer->set_learning_rate(0.01);
    amp::GradScalerOptions options = amp::GradScalerOptions::of(preset);
    options.growth_interval = 3;
    scaler = std::make_unique<amp::GradScaler>(Device::cpu(), options);
  }
  void steps(uint64_t from, uint64_t to) {
    for (uint64_t step = from; step < to; ++step) {
      RandomState::current().begin_step(1, step);
      const Tensor x = randn({16, 4});
      optimizer->zero_grad();
      const amp::Autocast scope(preset, *scaler);
      scaler->scale(mse_loss(net.forward(x), sum(x, {1}, true))).backward();
      scaler->step(*optimizer);
      scaler->update();
    }
  }
  nn::States states() const {
    return {{"model", net.state()}, {"optimizer", optimizer->state()}, {"scaler", scaler->state()}};
  }
};

bool same_bits(const nn::StateDict& a, const nn::StateDict& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.dtype() == y.second.dtype() &&
           x.second.shape() == y.second.shape() &&
           x.second.template to_vector<double>() == y.second.template to_vector<double>();
  });
}

}  // namespace

TEST_CASE("a copy of a state stays as it is, and a state does not", "[state]") {
  Run run;
  const nn::StateDict alias = run.net.state(), copy = nn::copy_of(alias);
  CHECK(same_bits(alias, copy));
  run.steps(0, 3);
  CHECK(same_bits(alias, run.net.state()));
  CHECK_FALSE(same_bits(copy, run.net.state()));
  run.net.load_state(copy);
  CHECK(same_bits(alias, copy));
}

TEST_CASE("a loop that goes on from its states is one that never stopped", "[state]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "states.safetensors";
  Run whole;
  whole.steps(0, 5);
  nn::write_states(path, whole.states());
  whole.steps(5, 9);

  Run resumed;
  const nn::States saved = nn::read_states(path);
  resumed.net.load_state(saved.at("model"));
  resumed.optimizer->load_state(saved.at("optimizer"));
  resumed.scaler->load_state(saved.at("scaler"));
  resumed.steps(5, 9);
  const nn::States expected = whole.states(), actual = resumed.states();
  REQUIRE(actual.size() == 3);
  for (const auto& [name, state] : expected) {
    INFO(name);
    CHECK_FALSE(state.empty());
    CHECK(same_bits(state, actual.at(name)));
  }
}

TEST_CASE("a model's file is read as a state", "[state]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "net.safetensors";
  RandomState::current().set_seed(1);
  Net net;
  write_safetensors(path, net.state());
  CHECK(same_bits(nn::read_state(path), net.state()));
  Net other;
  CHECK_FALSE(same_bits(other.state(), net.state()));
  other.load_state(nn::read_state(path));
  CHECK(same_bits(other.state(), net.state()));
  CHECK_THROWS_WITH(nn::read_states(path),
                    Contains("belongs to no state") && Contains("read_state()"));
}

TEST_CASE("states have names that a file can tell apart", "[state]") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "states.safetensors";
  const nn::StateDict state = {{"a/b", Array::zeros({1}, DType::f32)}};
  nn::write_states(path, {{"x", state}});  // a slash in a tensor's own name is its own
  CHECK(nn::read_states(path).at("x").count("a/b") == 1);
  CHECK_THROWS_WITH(nn::write_states(path, {{"x/y", state}}), Contains("without a slash"));
  CHECK_THROWS_WITH(nn::write_states(path, {{"", state}}), Contains("without a slash"));
  CHECK_THROWS_AS(nn::read_states(folder.path() / "missing"), Error);
}
