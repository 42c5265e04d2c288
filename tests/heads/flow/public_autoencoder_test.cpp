// FLUX's autoencoder beside BAGEL's own class of it: public_autoencoder.json has the names and
// shapes of that one's tensors, and what it makes of made-up weights (scripts/long/bagel_public.py
// autoencoder).
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <binade/amp/preset.h>
#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/core/json_view.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/nn/mot/flux_autoencoder.h>

#include "../../gpu.h"
#include "../../nn/hashed_weights.h"
#include "../../temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// As scripts/long/bagel_public.py makes it: FLUX's but for its widths.
const nn::FluxAutoencoderConfig kConfig = {.channels = 32};

json public_autoencoder() {
  return parse_json<json>(
      read_text_file(BINADE_SOURCE_DIR "/tests/heads/flow/public_autoencoder.json"),
      "public_autoencoder.json");
}

Array hashed(const std::string& name, const Shape& shape, double scale = 1, double offset = 0) {
  std::vector<float> values;
  for (const double one : directions(name, shape.numel()))
    values.push_back(static_cast<float>(offset + scale * one));
  return Array::from(values, shape);
}

nn::StateDict hashed_state(const json& tensors) {
  nn::StateDict state;
  for (const auto& [name, sizes] : tensors.items()) {
    const auto shape = sizes.get<std::vector<int64_t>>();
    const bool norm = name.find("norm") != std::string::npos && name.ends_with("weight");
    state[name] = hashed(name, Shape(shape), norm ? 0.2 : 0.1, norm ? 1 : 0);
  }
  return state;
}

void check_close(const Tensor& got, const json& want) {
  const auto values = got.to_vector<float>();
  REQUIRE(values.size() == want.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    worst = std::max(worst, std::abs(values[i] - want[i].get<double>()));
    largest = std::max(largest, std::abs(want[i].get<double>()));
  }
  CHECK(worst <= 1e-5 * largest);  // sums have other orders
}

}  // namespace

TEST_CASE("the autoencoder is that of BAGEL's code", "[flow][autoencoder]") {
  const json golden = public_autoencoder();
  nn::StateDict state = hashed_state(golden["tensors"]);
  const nn::StateDict own = nn::FluxAutoencoder(kConfig).state();
  CHECK(own.size() == state.size());
  const TemporaryFolder folder;
  write_safetensors(folder / "ae.safetensors", state);
  const auto model = nn::load_flux_autoencoder(folder / "ae.safetensors", kConfig);
  const NoGrad off;
  const Tensor picture(hashed("picture", {1, 3, 16, 24}));
  check_close(model->encode(picture, Tensor(hashed("noise", {1, 16, 2, 3}))), golden["latents"]);
  check_close(model->decode(Tensor(hashed("latents", {1, 16, 2, 3}))), golden["picture"]);
  // Without noise the latents are the scaled mean.
  const auto mean = model->posterior(picture).mean.to_vector<float>(),
             latents = model->encode(picture).to_vector<float>();
  for (size_t i = 0; i < mean.size(); ++i)
    CHECK(latents[i] == Approx(0.3611 * (mean[i] - 0.1159)).margin(1e-6));
}

TEST_CASE("autoencoders, files and pictures that do not fit are refused",
          "[flow][autoencoder][errors]") {
  nn::StateDict state = hashed_state(public_autoencoder()["tensors"]);
  const TemporaryFolder folder;
  const auto load = [&] {
    write_safetensors(folder / "ae.safetensors", state);
    return nn::load_flux_autoencoder(folder / "ae.safetensors", kConfig);
  };
  const auto model = load();
  CHECK_THROWS_WITH(model->encode(Tensor::zeros({1, 3, 16, 20})),
                    Contains("with sides that are multiples of 8, got (1, 3, 16, 20)"));
  CHECK_THROWS_WITH(model->encode(Tensor::zeros({1, 3, 0, 8})), Contains("multiples of 8"));
  CHECK_THROWS_WITH(model->encode(Tensor::zeros({1, 3, 8, 8}), Tensor::zeros({1, 16, 8, 8})),
                    Contains("has their shape, got (1, 16, 8, 8)"));
  CHECK_THROWS_WITH(model->decode(Tensor::zeros({1, 3, 8, 8})),
                    Contains("latents are (N, 16, h, w), got (1, 3, 8, 8)"));
  CHECK_THROWS_WITH(nn::FluxAutoencoder({.channels = 48}), Contains("a multiple of 32"));
  CHECK_THROWS_WITH(nn::FluxAutoencoder({.channels = 32, .multipliers = {}}),
                    Contains("0 multipliers"));
  CHECK_THROWS_WITH(nn::FluxAutoencoder({.channels = int64_t{1} << 40}),
                    Contains("no autoencoder"));
  CHECK_THROWS_WITH(nn::FluxAutoencoder({.channels = 32, .blocks = int64_t{1} << 40}),
                    Contains("no autoencoder"));
  CHECK_THROWS_WITH(
      nn::FluxAutoencoder({.channels = 32, .multipliers = std::vector<int64_t>(70, 1)}),
      Contains("at most 16 sizes"));
  for (const double scale : {0.0, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    CHECK_THROWS_WITH(nn::FluxAutoencoder({.channels = 32, .scale = scale}),
                      Contains("cannot be scaled"));
  state["decoder.conv_in.bias"].data<float>()[0] = NAN;
  CHECK_THROWS_WITH(load(), Contains("ae.safetensors") && Contains("decoder.conv_in.bias"));
  state.erase("decoder.conv_in.bias");
  CHECK_THROWS_WITH(load(), Contains("ae.safetensors") && Contains("missing"));
}

// The second has a head as wide as FLUX's, 512.
TEST_CASE("the autoencoder agrees on both devices", "[cuda][flow][autoencoder]") {
  require_gpu();
  const NoGrad off;
  const auto config = GENERATE(nn::FluxAutoencoderConfig{.channels = 32},
                               nn::FluxAutoencoderConfig{.channels = 32, .multipliers = {1, 16}});
  RandomState::current().set_seed(8);
  nn::FluxAutoencoder model(config);
  const Tensor picture(hashed("picture", {1, 3, 16, 24}));
  const auto made_on = [&](Device device) {
    model.to(device);
    const Tensor latents = model.encode(binade::to(picture, device));
    const auto values = [](const Tensor& x) {
      return binade::to(x, Device::cpu()).to_vector<float>();
    };
    return std::pair(values(latents), values(model.decode(latents)));
  };
  const auto near = [](const std::vector<float>& got, const std::vector<float>& want,
                       double tolerance) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      worst = std::max(worst, std::abs(double{got[i]} - want[i]));
      largest = std::max(largest, std::abs(double{want[i]}));
    }
    CHECK(worst <= tolerance * largest);
  };
  const auto want = made_on(Device::cpu());
  const auto check_on_gpu = [&](double tolerance) {
    const auto got = made_on(test_gpu());
    near(got.first, want.first, tolerance);
    near(got.second, want.second, tolerance);
  };
  check_on_gpu(1e-3);  // sums have other orders
  const amp::Autocast scope(amp::Preset::parse("bf16"));
  check_on_gpu(0.1);
}
