#include <cmath>
#include <numbers>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/cuda/graph.h>
#include <binade/nn/attention.h>
#include <binade/nn/conv2d.h>
#include <binade/nn/dropout.h>
#include <binade/nn/embedding.h>
#include <binade/nn/linear.h>
#include <binade/nn/mlp.h>
#include <binade/nn/rotary.h>

#include "gpu.h"
#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;

TEST_CASE("linear is a product with the transposed weight and a bias", "[layers]") {
  Linear layer(2, 3);
  layer.weight()->assign(Array::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}));
  layer.bias()->assign(Array::from(std::vector<float>{10, 20, 30}, {3}));
  const Tensor y = layer.forward(Tensor::from(std::vector<float>{1, -1}, {1, 2}));
  CHECK(y.to_vector<float>() == std::vector<float>{9, 19, 29});
  CHECK(layer.in_features() == 2);
  CHECK(layer.out_features() == 3);
  CHECK_THROWS_AS(Linear(0, 3), Error);
}

TEST_CASE("dropout acts while training only", "[layers]") {
  Dropout layer(0.5);
  const Tensor x = Tensor::ones({1000});
  const double kept = sum(layer.forward(x)).item() / 2;
  CHECK(kept > 400);
  CHECK(kept < 600);
  layer.eval();
  CHECK(layer.forward(x).to_vector<float>() == x.to_vector<float>());
  CHECK_THROWS_WITH(Dropout(1), Catch::Contains("[0, 1)"));
}

TEST_CASE("a convolution's parameters have the shapes of its groups", "[layers]") {
  const Conv2d layer(4, 6, 3, {.padding = {1, 1}, .groups = 2});
  CHECK(layer.state().at("weight").shape() == Shape{6, 2, 3, 3});
  CHECK(layer.forward(Tensor::ones({2, 4, 5, 5})).shape() == Shape{2, 6, 5, 5});
  CHECK_THROWS_WITH(Conv2d(3, 6, 3, {.groups = 2}), Catch::Contains("groups"));
}

TEST_CASE("the MLPs are their formulas", "[layers]") {
  Mlp mlp(3, 5, Activation::relu);
  GatedMlp swiglu_mlp({.dim = 3, .hidden = 5});
  const Tensor x = Tensor::from(std::vector<float>{0.5f, -1, 2}, {1, 3});
  const auto rows = [](const Module& module, const char* name) {
    return module.state().at(name).to_vector<double>();
  };
  const auto product = [](const std::vector<double>& w, const std::vector<double>& v) {
    std::vector<double> y(w.size() / v.size());
    for (size_t i = 0; i < w.size(); ++i) y[i / v.size()] += w[i] * v[i % v.size()];
    return y;
  };
  std::vector<double> h = product(rows(mlp, "c_fc.weight"), x.to_vector<double>());
  const std::vector<double> bias = rows(mlp, "c_fc.bias");
  for (size_t i = 0; i < h.size(); ++i) h[i] = std::max(0.0, h[i] + bias[i]);
  std::vector<double> y = product(rows(mlp, "c_proj.weight"), h);
  std::vector<double> got = mlp.forward(x).to_vector<double>();
  for (size_t i = 0; i < y.size(); ++i)
    CHECK(got[i] == Approx(y[i] + rows(mlp, "c_proj.bias")[i]).margin(1e-6));

  const std::vector<double> gate =
      product(rows(swiglu_mlp, "gate_proj.weight"), x.to_vector<double>());
  h = product(rows(swiglu_mlp, "up_proj.weight"), x.to_vector<double>());
  for (size_t i = 0; i < h.size(); ++i) h[i] *= gate[i] / (1 + std::exp(-gate[i]));
  y = product(rows(swiglu_mlp, "down_proj.weight"), h);
  got = swiglu_mlp.forward(x).to_vector<double>();
  for (size_t i = 0; i < y.size(); ++i) CHECK(got[i] == Approx(y[i]).margin(1e-6));
}

TEST_CASE("rotary frequencies follow their formulas", "[rotary]") {
  RopeConfig config;
  config.theta = 100;
  CHECK(rope_frequencies(4, config) == std::vector<float>{1, 0.1f});
  config.scaling = RopeScaling::linear;
  config.factor = 4;
  CHECK(rope_frequencies(4, config)[1] == Approx(0.025));
  config.partial_factor = 0.5;
  CHECK(rope_frequencies(4, config) == std::vector<float>{0.25f});

  // Llama 3.1's three regions, with wavelengths 2π, 20π, 200π and a context of 100.
  config = RopeConfig{.theta = 1000,
                      .scaling = RopeScaling::llama3,
                      .factor = 8,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4,
                      .original_max_positions = 100};
  const std::vector<float> frequencies = rope_frequencies(6, config);
  CHECK(frequencies[0] == 1);  // shorter than 100 / 4: kept
  const double smooth = (100 / (20 * std::numbers::pi) - 1) / (4 - 1);
  CHECK(frequencies[1] == Approx((1 - smooth) * 0.1 / 8 + smooth * 0.1));
  CHECK(frequencies[2] == Approx(0.01 / 8));  // longer than 100: stretched
}

TEST_CASE("YaRN keeps fast pairs, stretches slow ones and grows the scores", "[rotary]") {
  // By Peng et al. 2023: of 8 dimensions at a base of 1000, pair i turns 100 / 2π · 1000^(−i/4)
  // times in 100 positions. 32 turns are in front of pair 0, one turn is at pair 1.602.
  RopeConfig config{
      .theta = 1000, .scaling = RopeScaling::yarn, .factor = 4, .original_max_positions = 100};
  const auto frequency = [](int pair, double divided) {
    return std::pow(1000, -pair / 4.0) * (1 - divided + divided / 4);
  };
  std::vector<float> frequencies = rope_frequencies(8, config);
  CHECK(frequencies[0] == 1);
  CHECK(frequencies[1] == Approx(frequency(1, 0.5)));  // the ramp ends at a whole pair, 2
  CHECK(frequencies[2] == Approx(frequency(2, 1)));
  CHECK(frequencies[3] == Approx(frequency(3, 1)));
  config.truncate = false;
  frequencies = rope_frequencies(8, config);
  const double end = 8 * std::log(100 / (2 * std::numbers::pi)) / (2 * std::log(1000));
  CHECK(frequencies[1] == Approx(frequency(1, 1 / end)));
  CHECK(frequencies[2] == Approx(frequency(2, 1)));

  CHECK(rope_amplitude(config) == Approx(0.1 * std::log(4) + 1));
  config.mscale = 1.5;
  config.mscale_all_dim = 0.75;
  CHECK(rope_amplitude(config) == Approx((0.15 * std::log(4) + 1) / (0.075 * std::log(4) + 1)));
  config.attention_factor = 1.25;
  CHECK(rope_amplitude(config) == 1.25f);
  CHECK(rope_amplitude({.scaling = RopeScaling::linear, .factor = 4}) == 1);
}

TEST_CASE("frequencies that depend on a text's length", "[rotary]") {
  const RopeConfig dynamic{
      .theta = 1000, .scaling = RopeScaling::dynamic, .factor = 4, .original_max_positions = 20};
  const double base = 1000 * std::pow(4 * 50 / 20.0 - 3, 8.0 / 6);
  CHECK(rope_frequencies(8, dynamic, 50)[3] == Approx(std::pow(base, -0.75)));
  CHECK(rope_frequencies(8, dynamic, 20) == rope_frequencies(8, {.theta = 1000}));
  CHECK(rope_frequencies(8, dynamic) == rope_frequencies(8, {.theta = 1000}));

  const RopeConfig longrope{.theta = 100,
                            .scaling = RopeScaling::longrope,
                            .factor = 4,
                            .short_factor = {1, 2},
                            .long_factor = {4, 8},
                            .original_max_positions = 20};
  CHECK(rope_frequencies(4, longrope, 20)[1] == Approx(0.1 / 2));
  CHECK(rope_frequencies(4, longrope, 21)[1] == Approx(0.1 / 8));
  CHECK(rope_amplitude(longrope) == Approx(std::sqrt(1 + std::log(4) / std::log(20))));
}

TEST_CASE("a pass turns tokens by the length of their text", "[rotary]") {
  struct Nothing : KeyValueStore {
    Tensor attend(int64_t, const Tensor& q, const Tensor&, const Tensor&, double,
                  int64_t) override {
      return q;
    }
  } cache;
  for (const bool by_length : {true, false}) {
    const RopeConfig config{.theta = 100,
                            .scaling = by_length ? RopeScaling::dynamic : RopeScaling::longrope,
                            .factor = 2,
                            .short_factor = {1, 2},
                            .long_factor = {3, 4},
                            .original_max_positions = 4};
    const Rotary rotary(4, 8, config);
    // The angle of pair 1 at `position` of a text of `length` tokens.
    const auto angle = [&](int64_t position, int64_t length) {
      return static_cast<float>(position) * rope_frequencies(4, config, length)[1];
    };
    const auto check_rows = [&](const RotaryTables& tables, const std::vector<float>& angles) {
      REQUIRE(tables.sin().shape() == Shape{static_cast<int64_t>(angles.size()), 2});
      const std::vector<float> sines = tables.sin().to_vector<float>();
      for (size_t i = 0; i < angles.size(); ++i)
        CHECK(sines[2 * i + 1] ==
              Approx(rope_amplitude(config) * std::sin(angles[i])).margin(1e-6));
    };
    INFO(name_of(config.scaling));
    for (const int64_t tokens : {2, 4, 5, 8, 5}) {
      std::vector<float> angles;
      for (int64_t p = 0; p < tokens; ++p) angles.push_back(angle(p, tokens));
      check_rows(rotary.at({}, tokens), angles);
    }
    // A prompt within the original positions beside a longer one: the padding does not count.
    const RotaryTables prompts = rotary.at({.lengths = {3, 6}, .cache = &cache}, 6);
    CHECK_FALSE(prompts.shared());
    std::vector<float> angles;
    for (const int64_t length : {3, 6})
      for (int64_t p = 0; p < 6; ++p) angles.push_back(angle(p, p < length ? length : p + 1));
    check_rows(prompts, angles);
    // Decoding: by the text that ends with the token.
    const Tensor positions = Tensor::from(std::vector<int32_t>{3, 4, 7}, {3, 1});
    check_rows(rotary.at({.positions = positions, .cache = &cache}, 1),
               {angle(3, 4), angle(4, 5), angle(7, 8)});
    const Tensor packed = Tensor::from(std::vector<int32_t>{0, 1, 2, 0, 1}, {1, 5});
    CHECK_THROWS_WITH(rotary.at({.positions = packed}, 5),
                      Catch::Contains(std::string(name_of(config.scaling))));
    CHECK_NOTHROW(rotary.at({.positions = slice(packed, 1, 0, 4)}, 4));
  }
}

TEST_CASE("tables of the last used lengths are kept, and no more", "[rotary]") {
  const RopeConfig config{
      .theta = 100, .scaling = RopeScaling::dynamic, .factor = 50, .original_max_positions = 2};
  const Rotary rotary(4, 100, config);
  const auto place = [](const RotaryTables& tables) { return tables.cos().array().data(); };
  const RotaryTables first =
      rotary.at({}, 5);  // holds its memory, so that no other takes the place
  for (int64_t length = 6; length < 90; ++length) {
    rotary.at({}, length);
    REQUIRE(place(rotary.at({}, 5)) == place(first));
  }
  const std::vector<float> values = first.cos().to_vector<float>();
  int64_t kept = 0;
  std::vector<RotaryTables> held;
  for (int64_t length = 6; length < 90; ++length) held.push_back(rotary.at({}, length));
  for (int64_t length = 89; length >= 6; --length, ++kept)
    if (place(rotary.at({}, length)) != place(held[static_cast<size_t>(length - 6)])) break;
  CHECK(kept == 32);
  const RotaryTables again = rotary.at({}, 5);
  CHECK(place(again) != place(first));
  CHECK(again.cos().to_vector<float>() == values);
}

#if BINADE_HAVE_CUDA
TEST_CASE("a captured graph keeps the rotary tables that it reads", "[rotary][cuda][graph]") {
  test::require_gpu();
  const RopeConfig config{
      .theta = 100, .scaling = RopeScaling::dynamic, .factor = 50, .original_max_positions = 2};
  Rotary rotary(4, 100, config);
  rotary.to(test::test_gpu());
  const Tensor x = Tensor::ones({1, 60, 1, 4}, DType::f32, test::test_gpu());
  const std::vector<float> expected = rotary.at({}, 60).rotate(x).to_vector<float>();
  Tensor rotated;
  cuda::CapturedGraph graph = cuda::CapturedGraph::capture(
      [&] { rotated = rotary.at({}, 60).rotate(x); }, test::test_gpu());
  for (int64_t length = 3; length < 50; ++length) rotary.at({}, length);
  // Takes whatever memory the tables of 60 tokens had, were they freed.
  std::vector<Array> others;
  for (int i = 0; i < 64; ++i)
    others.push_back(Array::full({60, 2}, 9, DType::f32, test::test_gpu()));
  graph.replay();
  CHECK(rotated.to_vector<float>() == expected);
}
#endif

TEST_CASE("impossible rotary settings are refused", "[rotary]") {
  CHECK_THROWS_WITH(rope_frequencies(5, {}), Catch::Contains("even"));
  CHECK_THROWS_WITH(rope_frequencies(4, {.theta = 0}), Catch::Contains("rope_theta"));
  CHECK_THROWS_WITH(rope_frequencies(4, {.scaling = RopeScaling::llama3, .factor = 2}),
                    Catch::Contains("original_max_position_embeddings"));
  const Rotary rotary(4, 8, {});
  CHECK_THROWS_WITH(rotary.at({.start = 6}, 3), Catch::Contains("position 8"));
}

TEST_CASE("positions token by token rotate as the same positions in a row", "[rotary]") {
  const Rotary rotary(8, 16, {});
  const Tensor x(Array::arange(2 * 3 * 2 * 8, DType::f32).view({2, 3, 2, 8}));
  const Tensor positions = Tensor::from(std::vector<int32_t>{4, 5, 6, 4, 5, 6}, {2, 3});
  const Array in_a_row = rotary.at({.start = 4}, 3).rotate(x).array();
  const Array one_by_one = rotary.at({.positions = positions}, 3).rotate(x).array();
  REQUIRE(one_by_one.shape() == Shape{2, 2, 3, 8});
  CHECK(one_by_one.to_vector<float>() == in_a_row.to_vector<float>());
}

TEST_CASE("rotary embedding moves pairs of the two halves by position times frequency",
          "[rotary]") {
  const Rotary rotary(4, 8, {.theta = 100});
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4}, {1, 1, 1, 4});
  const std::vector<float> y = rotary.at({.start = 5}, 1).rotate(x).to_vector<float>();
  const double angles[] = {5, 0.5};
  for (size_t i = 0; i < 2; ++i) {
    const double a = static_cast<double>(i + 1), b = static_cast<double>(i + 3);
    CHECK(y[i] == Approx(a * std::cos(angles[i]) - b * std::sin(angles[i])));
    CHECK(y[i + 2] == Approx(b * std::cos(angles[i]) + a * std::sin(angles[i])));
  }
}

TEST_CASE("heads that do not fit are refused", "[layers]") {
  CHECK_THROWS_WITH(SelfAttention({.dim = 10, .heads = 3}), Catch::Contains("do not divide"));
  CHECK_THROWS_WITH(SelfAttention({.dim = 12, .heads = 3, .kv_heads = 2}),
                    Catch::Contains("key heads"));
}
