// Sequential, and the layers that are one op each.
#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/nn/conv1d.h>
#include <binade/nn/conv_transpose1d.h>
#include <binade/nn/conv_transpose2d.h>
#include <binade/nn/dropout.h>
#include <binade/nn/group_norm.h>
#include <binade/nn/linear.h>
#include <binade/nn/sequential.h>
#include <binade/nn/upsample.h>

using namespace binade;
using namespace binade::nn;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> names_of(const Module& module) {
  std::vector<std::string> names;
  for (const NamedParameter& named : module.named_parameters()) names.push_back(named.name);
  return names;
}

}  // namespace

TEST_CASE("a Sequential is its parts, one behind the other, numbered as in PyTorch",
          "[layers][sequential]") {
  Sequential net;
  const auto shared = std::make_shared<Linear>(4, 2, false);
  net.append<Linear>(3, 4).append(relu).append(shared).append(
      [](const Tensor& x) { return x * 2.0; });
  CHECK(net.size() == 4);
  CHECK(names_of(net) == std::vector<std::string>{"0.weight", "0.bias", "2.weight"});
  net.load_state(
      {{"0.weight", Array::from(std::vector<float>{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}, {4, 3})},
       {"0.bias", Array::from(std::vector<float>{0, 0, -10, 1}, {4})},
       {"2.weight", Array::from(std::vector<float>{1, 1, 1, 1, 0, 0, 0, 1}, {2, 4})}});
  // (1, −2, 3) → (1, −2, −7, 3) → (1, 0, 0, 3) → (4, 3) → (8, 6)
  const Tensor x = Tensor::from(std::vector<float>{1, -2, 3}, {1, 3});
  CHECK(net.forward(x).to_vector<float>() == std::vector<float>{8, 6});
  CHECK(Sequential().forward(x).to_vector<float>() == x.to_vector<float>());
  sum(net.forward(x)).backward();
  CHECK(shared->weight()->tensor().grad().to_vector<float>() ==
        std::vector<float>{2, 0, 0, 6, 2, 0, 0, 6});
}

TEST_CASE("a Sequential switches the mode of its parts", "[layers][sequential]") {
  Sequential net;
  net.append<Dropout>(0.5);
  const Tensor x = Tensor::ones({100});
  CHECK(net.forward(x).to_vector<float>() != x.to_vector<float>());
  net.eval();
  CHECK(net.forward(x).to_vector<float>() == x.to_vector<float>());
  CHECK_THROWS_WITH(net.append(std::shared_ptr<Linear>()), Contains("null"));
  CHECK_THROWS_WITH(net.append(std::function<Tensor(const Tensor&)>()), Contains("null"));
}

TEST_CASE("a transposed convolution spreads every element over its filters", "[layers]") {
  RandomState::current().set_seed(6);
  const ConvTranspose2d layer(4, 6, 2, {.stride = {2, 2}, .groups = 2});
  CHECK(layer.state().at("weight").shape() == Shape{4, 3, 2, 2});
  const double bound = 1 / std::sqrt(3.0 * 2 * 2);  // PyTorch's fan: K/groups · R²
  double largest = 0;
  for (const double value : layer.state().at("weight").to_vector<double>())
    largest = std::max(largest, std::abs(value));
  CHECK(largest <= bound);
  CHECK(largest > 0.8 * bound);
  const Tensor x(init::normal()({1, 4, 2, 3}, {}));
  const Tensor y = layer.forward(x);
  REQUIRE(y.shape() == Shape{1, 6, 4, 6});
  // With a stride of the kernel's size no two elements meet.
  const auto w = layer.state().at("weight").to_vector<double>(),
             b = layer.state().at("bias").to_vector<double>(), in = x.to_vector<double>(),
             out = y.to_vector<double>();
  for (size_t k = 0; k < 6; ++k)
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 6; ++j) {
        double sum = b[k];
        for (size_t c = k / 3 * 2; c < k / 3 * 2 + 2; ++c)
          sum += in[(c * 2 + i / 2) * 3 + j / 2] * w[((c * 3 + k % 3) * 2 + i % 2) * 2 + j % 2];
        CHECK(out[(k * 4 + i) * 6 + j] == Approx(sum).margin(1e-6));
      }
  CHECK_THROWS_WITH(ConvTranspose2d(4, 5, 2, {.groups = 2}), Contains("groups"));
  CHECK_THROWS_WITH(ConvTranspose2d(4, 0, 2), Contains("positive"));
}

TEST_CASE("convolutions of sequences are layers", "[layers]") {
  RandomState::current().set_seed(7);
  const Conv1d layer(4, 6, 3, {.stride = 2, .padding = 1, .groups = 2});
  CHECK(names_of(layer) == std::vector<std::string>{"weight", "bias"});
  CHECK(layer.state().at("weight").shape() == Shape{6, 2, 3});
  const double bound = 1 / std::sqrt(2.0 * 3);  // PyTorch's fan: C/groups · R
  double largest = 0;
  for (const double value : layer.state().at("weight").to_vector<double>())
    largest = std::max(largest, std::abs(value));
  CHECK(largest <= bound);
  CHECK(largest > 0.8 * bound);
  const Tensor x(init::normal()({1, 4, 5}, {}));
  const Tensor y = layer.forward(x);
  REQUIRE(y.shape() == Shape{1, 6, 3});
  const auto w = layer.state().at("weight").to_vector<double>(),
             b = layer.state().at("bias").to_vector<double>(), in = x.to_vector<double>(),
             out = y.to_vector<double>();
  for (int64_t k = 0; k < 6; ++k)
    for (int64_t o = 0; o < 3; ++o) {
      double sum = b[static_cast<size_t>(k)];
      for (int64_t c = 0; c < 2; ++c)
        for (int64_t r = 0; r < 3; ++r) {
          const int64_t place = 2 * o - 1 + r;
          if (place < 0 || place >= 5) continue;
          sum += in[static_cast<size_t>((k / 3 * 2 + c) * 5 + place)] *
                 w[static_cast<size_t>((k * 2 + c) * 3 + r)];
        }
      CHECK(out[static_cast<size_t>(k * 3 + o)] == Approx(sum).margin(1e-6));
    }

  const ConvTranspose1d back(6, 4, 3, {.stride = 2, .padding = 1, .groups = 2}, false);
  CHECK(names_of(back) == std::vector<std::string>{"weight"});
  CHECK(back.state().at("weight").shape() == Shape{6, 2, 3});
  // The gradient of the convolution by its input, with the same weight.
  Conv1d forward(4, 6, 3, {.stride = 2, .padding = 1, .groups = 2}, false);
  forward.load_state(back.state());
  Tensor leaf = x.detach();
  leaf.set_requires_grad(true);
  const Tensor seed(init::normal()({1, 6, 3}, {}));
  const Tensor gradient = grad({forward.forward(leaf)}, {leaf}, {seed})[0];
  CHECK(back.forward(seed).to_vector<float>() == gradient.to_vector<float>());

  CHECK_THROWS_WITH(Conv1d(4, 5, 2, {.groups = 2}), Contains("conv1d") && Contains("groups"));
  CHECK_THROWS_WITH(Conv1d(4, 4, 0), Contains("conv1d") && Contains("positive"));
  CHECK_THROWS_WITH(Conv1d(4, 4, 2, {.groups = 0}), Contains("groups"));
  CHECK_THROWS_WITH(ConvTranspose1d(0, 4, 2), Contains("conv_transpose1d"));
  CHECK_THROWS_WITH(layer.forward(Tensor::zeros({4, 5})), Contains("(N, C, L)"));
}

TEST_CASE("an upsampling repeats or interpolates", "[layers]") {
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4}, {1, 1, 2, 2});
  const Tensor nearest = Upsample(2).forward(x);
  REQUIRE(nearest.shape() == Shape{1, 1, 4, 4});
  CHECK(nearest.to_vector<float>() ==
        std::vector<float>{1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4});
  // Corners meet corners: thirds between them.
  const Tensor bilinear = Upsample(2, Interpolation::bilinear, true).forward(x);
  const std::vector<float> values = bilinear.to_vector<float>();
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j)
      CHECK(values[static_cast<size_t>(4 * i + j)] == Approx(1 + j / 3.0 + 2 * i / 3.0));
  CHECK_THROWS_WITH(Upsample(0), Contains("scale"));
  CHECK_THROWS_WITH(Upsample(2).forward(Tensor::zeros({2, 2})), Contains("(N, C, H, W)"));
}

TEST_CASE("a group norm is its formula, with f32 weights under half presets", "[layers]") {
  RandomState::current().set_seed(6);
  GroupNorm layer(2, 6);
  const std::vector<float> gain = {1, 2, 3, 4, 5, 6}, shift = {6, 5, 4, 3, 2, 1};
  layer.load_state({{"weight", Array::from(gain, {6})}, {"bias", Array::from(shift, {6})}});
  for (const char* preset : {"fp32", "fp16", "bf16"}) {
    amp::Preset::parse(preset).apply(layer);
    CHECK(layer.named_parameters()[0].parameter->tensor().dtype() == DType::f32);
    const DType dtype = amp::Preset::parse(preset).compute_dtype;
    const Tensor x(init::normal(2, 1)({2, 6, 5}, {}).to(dtype));
    const auto in = x.to_vector<double>(), out = layer.forward(x).to_vector<double>();
    const double unit = dtype == DType::f32 ? 0x1p-22 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
    for (size_t n = 0; n < 2; ++n)
      for (size_t g = 0; g < 2; ++g) {
        const double* group = in.data() + (n * 6 + g * 3) * 5;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < 15; ++i) mean += group[i] / 15;
        for (size_t i = 0; i < 15; ++i) variance += (group[i] - mean) * (group[i] - mean) / 15;
        for (size_t i = 0; i < 15; ++i) {
          const size_t c = g * 3 + i / 5;
          const double normed = (group[i] - mean) / std::sqrt(variance + 1e-5);
          // Rounded before the weights, and behind them.
          CHECK(std::abs(out[(n * 6 + g * 3) * 5 + i] - (normed * gain[c] + shift[c])) <=
                unit * (2 * std::abs(normed * gain[c]) + shift[c] + 1));
        }
      }
  }
  CHECK_THROWS_WITH(GroupNorm(4, 6), Contains("groups"));
}
