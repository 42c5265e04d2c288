#include "tiny_models.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>

#include "gpu.h"
#include "shared.h"
#include "temporary_folder.h"

namespace binade::test {

std::optional<std::filesystem::path> tiny_model(const std::string& name) {
  static const TemporaryFolder folder;
  const std::filesystem::path unpacked = folder / "tiny_models";
  if (!std::filesystem::exists(unpacked)) {
    const std::optional<std::string> archive = shared_path("fixtures/tiny_models.tar.xz");
    if (!archive) return std::nullopt;
    const std::string command = "tar -xJf '" + *archive + "' -C '" + folder.path().string() + "'";
    REQUIRE(std::system(command.c_str()) == 0);
  }
  return unpacked / name;
}

namespace {

constexpr double kRounding = 1e-7;

double largest(const Array& array) {
  double most = 0;
  for (const double value : array.to_vector<double>()) most = std::max(most, std::abs(value));
  return most;
}

}  // namespace

Differences compare_with_transformers(const std::filesystem::path& folder, Device device) {
  const SafetensorsFile expected(folder / "expected.safetensors");
  const std::shared_ptr<nn::CausalLm> model = nn::load_hf(folder, {.device = device});
  model->eval();
  Differences worst;
  const Tensor ids(expected.get("input_ids").to(DType::i32).to(device));
  worst.logits = relative_difference(model->forward(ids).array(), expected.get("logits"));

  // The targets are those of all tokens but the last.
  const int64_t batch = ids.size(0), tokens = ids.size(1) - 1;
  const Tensor targets(expected.get("targets").to(DType::i32).view({batch, tokens}).to(device));
  const Tensor loss = model->loss(slice(ids, 1, 0, tokens), targets);
  worst.loss = relative_difference(loss.array(), expected.get("loss").view({}));
  loss.backward();
  size_t compared = 0;
  for (const nn::NamedParameter& named : model->named_parameters()) {
    const Array gradient = model->file_view(named.name, named.parameter->tensor().grad());
    const Array other = expected.get("grad." + named.name);
    ++compared;
    // The gradient of a key's bias where nothing is rotated: zero, but for rounding.
    if (largest(other) < kRounding && largest(gradient) < kRounding) continue;
    const double difference = relative_difference(gradient, other);
    if (difference >= worst.gradients) worst.worst_gradient = named.name;
    worst.gradients = std::max(worst.gradients, difference);
  }
  REQUIRE(compared + 5 == expected.names().size());  // nothing of the fixture is left out

  const std::vector<int32_t> greedy = expected.get("greedy").to_vector<int32_t>();
  const auto fresh = greedy.end() - 20;
  worst.same_greedy =
      infer::generate(*model, {{greedy.begin(), fresh}}, {.max_new_tokens = 20})[0] ==
      std::vector<int32_t>(fresh, greedy.end());
  return worst;
}

nn::CausalLmConfig small_config(nn::Family family) {
  nn::CausalLmConfig config = nn::CausalLmConfig::of(family);
  config.vocab_size = 61;
  config.dim = 32;
  config.layers = 2;
  config.heads = 4;
  config.head_dim = 8;
  config.kv_heads = family == nn::Family::gpt2 ? 4 : 2;
  config.hidden = 48;
  config.max_positions = 48;
  config.initializer_range = 0.3;
  switch (family) {
    case nn::Family::mistral:
      config.window = 5;
      break;
    case nn::Family::phi3:
      config.rope.partial_factor = 0.5;
      break;
    case nn::Family::smollm3:
      config.unrotated = {false, true};
      break;
    case nn::Family::gemma3_text:
      config.window = 5;
      config.windowed = {true, false};
      config.window_rope = nn::RopeConfig{};
      config.query_pre_attn_scalar = 12;
      break;
    default:
      break;
  }
  return config;
}

std::shared_ptr<nn::CausalLm> small_model(const nn::CausalLmConfig& config,
                                          const nn::CausalLmOptions& options) {
  RandomState::current().set_seed(7);
  std::shared_ptr<nn::CausalLm> model = nn::make_causal_lm(config, options);
  model->eval();
  return model;
}

Tensor random_ids(int64_t batch, int64_t tokens, int64_t vocab_size, Device device) {
  std::mt19937 random(11);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < batch * tokens; ++i)
    ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  return Tensor::from(ids, {batch, tokens}, device);
}

double relative_difference(const Array& a, const Array& b) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double difference = 0, largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    // A NaN must not pass: max() would drop it.
    difference = std::isnan(x[i]) ? INFINITY : std::max(difference, std::abs(x[i] - y[i]));
    largest = std::max(largest, std::abs(y[i]));
    if (std::isinf(difference)) return difference;
  }
  return difference / largest;
}

Device cuda_or_skip() {
  require_gpu();
  return test_gpu();
}

}  // namespace binade::test
