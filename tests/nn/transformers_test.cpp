// Families and rope types against transformers. The goldens, transformers_models.json, are its own
// answers for models whose weights follow from their names: scripts/long/transformers_cases.py asks
// it. A row of logits and a gradient are compared by their part along a fixed direction, which
// sees every element. scripts/long/transformers.sh compares all of them one by one.
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <span>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/infer/generate.h>
#include <binade/nn/hf.h>
#include <nlohmann/json.hpp>

#include "nn/hashed_weights.h"
#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "skip.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::nn;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int64_t kTokens = 40;
constexpr double kTolerance = 1e-5;  // f32 on both sides
constexpr double kNothing = 1e-7;    // gradients have norms of 0.001 to 1

const json& goldens() {
  static const json all = test::parsed(
      read_text_file(fs::path(BINADE_SOURCE_DIR) / "tests/nn/transformers_models.json"));
  return all;
}

// A weight as transformers_cases.py makes it.
Array values(const std::string& name, const Shape& shape, bool from_one) {
  const double center = name.ends_with("norm.weight") && !from_one ? 1 : 0;
  const double scale = from_one && name.ends_with("embed_tokens.weight") ? 0.25 : 1;
  std::vector<float> out;
  for (const double direction : test::directions(name, shape.numel()))
    out.push_back(static_cast<float>((direction * 0.5 + center) * scale));
  return Array::from(out, shape);
}

StateDict weights(const json& golden) {
  const bool from_one = golden.at("config").at("model_type") == "gemma3_text";
  StateDict tensors;
  for (const auto& [name, parameter] : golden.at("parameters").items()) {
    std::vector<int64_t> sizes = parameter[0];
    const Shape shape{std::span<const int64_t>(sizes)};
    tensors.emplace(name, values(name, shape, from_one));
  }
  return tensors;
}

// The folder that transformers would have written.
void write_folder(const json& golden, const fs::path& folder) {
  fs::create_directories(folder);
  write_text_file(folder / "config.json", golden.at("config").dump());
  write_safetensors(folder / "model.safetensors", weights(golden), {{"format", "pt"}});
}

std::shared_ptr<CausalLm> load(const json& golden, Device device = {}) {
  const test::TemporaryFolder folder;
  write_folder(golden, folder.path());
  std::shared_ptr<CausalLm> model = load_hf(folder.path(), {.device = device});
  model->eval();
  return model;
}

std::vector<int32_t> text() {
  std::vector<int32_t> ids;
  for (const int64_t hash : test::hashes("ids", 2 * kTokens))
    ids.push_back(static_cast<int32_t>(hash % 58 + 3));
  return ids;
}

double along(const std::vector<double>& values, const std::string& name) {
  const std::vector<double> direction = test::directions(name, static_cast<int64_t>(values.size()));
  return std::inner_product(values.begin(), values.end(), direction.begin(), 0.0);
}

void check_goldens(Device device) {
  for (const auto& [name, golden] : goldens().items()) {
    INFO(name);
    const std::shared_ptr<CausalLm> model = load(golden, device);
    const std::vector<int32_t> ids = text();
    const Tensor input = Tensor::from(ids, {2, kTokens}, device);
    const Array logits = model->forward(input).array();
    const double largest = golden.at("largest_logit");
    for (int64_t row = 0; row < 2 * kTokens; ++row) {
      INFO("row " << row);
      const double part =
          along(logits.view({2 * kTokens, -1}).select(0, row).to_vector<double>(), "logits");
      // A sum of 61 products; the golden has five places.
      CHECK(std::abs(part - golden.at("logits")[static_cast<size_t>(row)].get<double>()) <
            10 * kTolerance * largest);
    }

    std::vector<int32_t> targets;
    for (int64_t i = 0; i < 2 * kTokens; ++i)
      if (i % kTokens != 0) targets.push_back(ids[static_cast<size_t>(i)]);
    targets[3] = targets[39 + 17] = -100;
    const Tensor loss = model->loss(slice(input, 1, 0, kTokens - 1),
                                    Tensor::from(targets, {2, kTokens - 1}, device));
    CHECK(loss.item() == Approx(golden.at("loss").get<double>()).epsilon(kTolerance));
    loss.backward();
    const auto parameters = model->named_parameters();
    CHECK(parameters.size() == golden.at("parameters").size());
    for (const NamedParameter& named : parameters) {
      INFO(named.name);
      const json& expected = golden.at("parameters").at(named.name);
      const std::vector<double> gradient = named.parameter->tensor().grad().to_vector<double>();
      const double norm =
          std::sqrt(std::inner_product(gradient.begin(), gradient.end(), gradient.begin(), 0.0));
      // A key's bias has no gradient where nothing is rotated: what is there is rounding.
      CHECK(norm == Approx(expected[2].get<double>()).epsilon(2 * kTolerance).margin(kNothing));
      CHECK(std::abs(along(gradient, "grad") - expected[1].get<double>()) <
            2 * kTolerance * norm + kNothing);
    }

    const std::vector<int32_t> prompt(ids.begin(), ids.begin() + golden.at("prompt").get<int>());
    CHECK(infer::generate(*model, {prompt}, {.max_new_tokens = 20})[0] ==
          golden.at("greedy").get<std::vector<int32_t>>());
  }
}

}  // namespace

TEST_CASE("families and rope types compute what transformers does", "[models][transformers]") {
  check_goldens(Device::cpu());
}
TEST_CASE("families and rope types compute what transformers does on the GPU",
          "[models][transformers][cuda]") {
  check_goldens(test::cuda_or_skip());
}

TEST_CASE("folders of every family are written as they were read", "[hf][transformers]") {
  for (const auto& [name, golden] : goldens().items()) {
    INFO(name);
    const test::TemporaryFolder first, second;
    write_folder(golden, first.path());
    const std::shared_ptr<CausalLm> model = load_hf(first.path(), {.vocabulary_multiple = 64});
    save_hf(*model, second.path());
    const StateDict expected = weights(golden);
    const SafetensorsFile written(second / "model.safetensors");
    CHECK(written.names().size() == expected.size());
    for (const auto& [tensor, array] : expected) {
      INFO(tensor);
      REQUIRE(written.contains(tensor));
      CHECK(written.get(tensor).to_vector<float>() == array.to_vector<float>());
    }
    // The configuration says the same, in the older words that every version reads.
    const CausalLmConfig again = CausalLmConfig::read(second / "config.json");
    CHECK(again.to_json(DType::f32) == model->config().to_json(DType::f32));
    const auto same = load_hf(second.path());
    const Tensor ids = Tensor::from(text(), {2, kTokens});
    same->eval();
    model->eval();
    CHECK(same->forward(ids).to_vector<float>() == model->forward(ids).to_vector<float>());
  }
}

// Of folders that transformers wrote: scripts/long/transformers.sh.
TEST_CASE("every number of transformers' models is the same", "[.transformers]") {
  const char* models = std::getenv("BINADE_TRANSFORMERS_MODELS");
  if (models == nullptr) {
    test::note_skip("BINADE_TRANSFORMERS_MODELS names no folder");
    return;
  }
  size_t count = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(models)) {
    const std::string name = entry.path().filename().string();
    INFO(name);
    const test::Differences worst = test::compare_with_transformers(entry.path(), {});
    CHECK(worst.logits < kTolerance);
    CHECK(worst.loss < kTolerance);
    CHECK(worst.gradients < kTolerance);
    CHECK(worst.same_greedy);
    if (const char* saved = std::getenv("BINADE_TRANSFORMERS_SAVED"))
      save_hf(*load_hf(entry.path()), fs::path(saved) / name);
    WARN(name << ": logits " << worst.logits << ", loss " << worst.loss << ", gradients "
              << worst.gradients);
    ++count;
  }
  CHECK(count > 0);
}
