#include "tiny_models.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include <catch2/catch.hpp>

#include <binade/core/random.h>

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
