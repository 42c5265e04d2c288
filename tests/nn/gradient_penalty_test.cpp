// Trainings with a gradient penalty against PyTorch's own: scripts/long/penalty_cases.py makes the
// numbers again.
#include <cmath>
#include <functional>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/nn/conv2d.h>
#include <binade/nn/group_norm.h>
#include <binade/nn/linear.h>
#include <binade/nn/norm.h>
#include <binade/optim/adamw.h>
#include <nlohmann/json.hpp>

#include "parsed_json.h"

using namespace binade;
using nlohmann::json;

namespace {

const json& golden(const std::string& name) {
  static const json file =
      test::parsed(read_text_file(BINADE_SOURCE_DIR "/tests/nn/torch_penalties.json"));
  for (const json& one : file.at("cases"))
    if (one.at("name") == name) return one;
  fail("no case ", name);
}

Array f32_of(const json& values, const Shape& shape) {
  return Array::from(values.get<std::vector<double>>(), shape).to(DType::f32);
}

void check_close(const Array& got, const json& expected, double tolerance) {
  const auto values = expected.get<std::vector<double>>();
  const std::vector<double> found = got.to_vector<double>();
  REQUIRE(found.size() == values.size());
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < values.size(); ++i)
    CHECK(std::abs(found[i] - values[i]) <= tolerance * (largest + std::abs(values[i])));
}

// 8×8 images of one channel → a number each.
struct ConvCritic : nn::Module {
  static constexpr Conv2dOptions kHalving = {.stride = {2, 2}, .padding = {1, 1}};
  static constexpr Conv2dOptions kGrouped = {.stride = {2, 2}, .padding = {1, 1}, .groups = 2};
  std::shared_ptr<nn::Conv2d> conv1 = add<nn::Conv2d>("conv1", 1, 4, 3, kHalving);
  std::shared_ptr<nn::GroupNorm> norm1 = add<nn::GroupNorm>("norm1", 2, 4);
  std::shared_ptr<nn::Conv2d> conv2 = add<nn::Conv2d>("conv2", 4, 6, 3, kGrouped);
  std::shared_ptr<nn::LayerNorm> norm2 = add<nn::LayerNorm>("norm2", 6 * 2 * 2);
  std::shared_ptr<nn::Linear> out = add<nn::Linear>("out", 6 * 2 * 2, 1);

  Tensor forward(const Tensor& images) const {
    const Tensor x = leaky_relu(norm1->forward(conv1->forward(images)), 0.2);
    return out->forward(silu(norm2->forward(flatten(conv2->forward(x), 1))));
  }
};

// Sequences of 5 tokens of 3 numbers → a logit each.
struct AttentionJudge : nn::Module {
  std::shared_ptr<nn::Linear> embed = add<nn::Linear>("embed", 3, 8);
  std::shared_ptr<nn::LayerNorm> norm = add<nn::LayerNorm>("norm", 8);
  std::shared_ptr<nn::Linear> q = add<nn::Linear>("q", 8, 8),
                              k = add<nn::Linear>("k", 8, 8, /*bias=*/false),
                              v = add<nn::Linear>("v", 8, 8), o = add<nn::Linear>("o", 8, 8);
  std::shared_ptr<nn::Linear> up = add<nn::Linear>("up", 8, 12),
                              down = add<nn::Linear>("down", 12, 8);
  std::shared_ptr<nn::Linear> out = add<nn::Linear>("out", 8, 1);

  Tensor forward(const Tensor& tokens) const {
    Tensor x = embed->forward(tokens);
    const Tensor normed = norm->forward(x);
    const auto heads = [&](const nn::Linear& layer) {
      return transpose(reshape(layer.forward(normed), {-1, 5, 2, 4}), 1, 2);
    };
    const Tensor mixed =
        scaled_dot_product_attention(heads(*q), heads(*k), heads(*v), {.causal = true});
    x = x + o->forward(reshape(transpose(mixed, 1, 2), {-1, 5, 8}));
    x = x + down->forward(gelu_tanh(up->forward(x)));
    return out->forward(mean(x, {1}));
  }
};

struct Losses {
  Tensor loss, penalty;
};

Losses wgan_gp(const ConvCritic& critic, const std::function<Tensor(const char*)>& input) {
  const Tensor real = reshape(input("real"), {3, 1, 8, 8}),
               made = reshape(input("made"), {3, 1, 8, 8});
  const Tensor mix = reshape(input("mix"), {3, 1, 1, 1});
  const Tensor between = (mix * real + (1 - mix) * made).set_requires_grad(true);
  const Tensor gradient =
      grad({sum(critic.forward(between))}, {between}, {}, {.create_graph = true})[0];
  const Tensor penalty = mean(square(norm(flatten(gradient, 1), 2, {1}) - 1.0));
  return {mean(critic.forward(made)) - mean(critic.forward(real)) + 10 * penalty, penalty};
}

Losses r1(const AttentionJudge& judge, const std::function<Tensor(const char*)>& input) {
  const Tensor real = reshape(input("real"), {4, 5, 3}).set_requires_grad(true);
  const Tensor logits = judge.forward(real);
  const Tensor gradient = grad({sum(logits)}, {real}, {}, {.create_graph = true})[0];
  const Tensor penalty = mean(sum(square(gradient), {1, 2}));
  const Tensor made = judge.forward(reshape(input("made"), {4, 5, 3}));
  return {mean(softplus(-logits)) + mean(softplus(made)) + 5 * penalty, penalty};
}

nn::StateDict start_of(const json& expected) {
  nn::StateDict start;
  for (const auto& [name, parameter] : expected.at("state").items()) {
    Shape shape;
    for (const auto size : parameter.at("shape").get<std::vector<int64_t>>()) shape.push_back(size);
    start[name] = f32_of(parameter.at("values"), shape);
  }
  return start;
}

// As the golden: eight steps of Adam, each on its own inputs.
template <class Network>
void train(const json& expected,
           Losses (*losses)(const Network&, const std::function<Tensor(const char*)>&)) {
  Network network;
  network.load_state(start_of(expected));  // strict: the names are PyTorch's
  optim::AdamW optimizer(optim::split_by_decay(network, 0));
  optimizer.set_learning_rate(1e-2);
  const size_t steps = expected.at("losses").size();
  for (size_t step = 0; step < steps; ++step) {
    INFO("step " << step);
    const auto input = [&](const char* name) {
      const auto all = expected.at("inputs").at(name).get<std::vector<double>>();
      const auto count = static_cast<int64_t>(all.size()),
                 each = count / std::ssize(expected.at("losses"));
      const Array values = Array::from(all, {count}).to(DType::f32);
      const auto first = static_cast<int64_t>(step) * each;
      return Tensor(values.slice(0, first, first + each).clone());
    };
    optimizer.zero_grad();
    const Losses now = losses(network, input);
    now.loss.backward();
    CHECK(now.loss.item() == Approx(expected.at("losses")[step].get<double>()).epsilon(1e-3));
    CHECK(now.penalty.item() == Approx(expected.at("penalties")[step].get<double>()).epsilon(1e-3));
    if (step == 0)
      for (const nn::NamedParameter& named : network.named_parameters()) {
        INFO(named.name);
        check_close(named.parameter->tensor().grad(),
                    expected.at("state").at(named.name).at("grad"), 2e-5);
      }
    optimizer.step();
  }
  for (const nn::NamedParameter& named : network.named_parameters()) {
    INFO(named.name);
    check_close(named.parameter->tensor().array(), expected.at("state").at(named.name).at("after"),
                2e-3);
  }
}

}  // namespace

TEST_CASE("a critic with a gradient penalty trains as PyTorch's (WGAN-GP)", "[twice][nn]") {
  train<ConvCritic>(golden("wgan-gp"), wgan_gp);
}

TEST_CASE("an attention network with an R1 penalty trains as PyTorch's", "[twice][nn]") {
  train<AttentionJudge>(golden("r1"), r1);
}
