// adapter_config.json as PEFT reads it. The goldens, peft_targets.json, are PEFT's own answers:
// scripts/long/peft.sh makes them again.
#include <binade/nn/lora_config.h>

#include <cstdlib>
#include <map>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora_targets.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "skip.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::nn;
using nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

const ordered_json& goldens() {
  static const ordered_json file = test::parsed_in_order(
      read_text_file(fs::path(BINADE_SOURCE_DIR) / "tests/nn/peft_targets.json"));
  return file;
}

// The model of scripts/long/peft_cases.py, as far as names and shapes go.
std::shared_ptr<CausalLm> model_of(const std::string& family) {
  CausalLmConfig config = test::small_config(family == "gpt2" ? Family::gpt2 : Family::llama);
  config.layers = 11;
  return make_causal_lm(config, {.random_weights = false});
}

LoraOptions read_config(const ordered_json& config) {
  const test::TemporaryFolder folder;
  return read_lora_config(folder.write("adapter_config.json", config.dump()));
}

// PEFT's defaults with some changes.
ordered_json changed(const ordered_json& changes = ordered_json::object()) {
  ordered_json config = goldens().at("defaults");
  config.update(changes);
  return config;
}

std::map<std::string, std::pair<int64_t, double>> adapted(CausalLm& model) {
  std::map<std::string, std::pair<int64_t, double>> found;
  for (const auto& [name, module] : model.named_modules()) {
    const auto* layer = dynamic_cast<const Linear*>(module);
    if (layer == nullptr || layer->adapter() == nullptr) continue;
    const auto& adapter = dynamic_cast<const LoraAdapter&>(*layer->adapter());
    found[name] = {adapter.a()->shape()[0], adapter.scale()};
  }
  return found;
}

// Adapters as Lora::load() attaches them from a file with `layers`, which has to fit: those layers
// and no others, {name: [rank, scale]}.
std::map<std::string, std::pair<int64_t, double>> adapters_of(const std::string& family,
                                                              const LoraOptions& options,
                                                              const ordered_json& layers) {
  const std::shared_ptr<CausalLm> model = model_of(family);
  std::map<std::string, Array> tensors;
  for (const auto& [name, module] : model->named_modules()) {
    const auto* layer = dynamic_cast<const Linear*>(module);
    if (layer == nullptr || !layers.contains(name)) continue;
    const auto rank = layers.at(name)[0].get<int64_t>();
    const std::string prefix = "base_model.model." + name;
    tensors[prefix + ".lora_A.weight"] = Array::zeros({rank, layer->in_features()}, DType::f32);
    tensors[prefix + ".lora_B.weight"] = Array::zeros({layer->out_features(), rank}, DType::f32);
  }
  const test::TemporaryFolder folder;
  write_text_file(folder / "adapter_config.json", lora_config_json(options, "", false));
  write_safetensors(folder / "adapter_model.safetensors", tensors);
  Lora::load(*model, folder.path());
  return adapted(*model);
}

}  // namespace

TEST_CASE("the layers, ranks and scales of adapters are PEFT's", "[lora][peft]") {
  int refused = 0;
  for (const ordered_json& one : goldens().at("cases")) {
    const std::string family = one.at("family");
    INFO(family << ' ' << one.at("config").dump());
    if (one.at("layers").is_null()) {
      ++refused;
      // Refused for what it says; otherwise the tensors of its layers would be missing.
      CHECK_THROWS_WITH(
          adapters_of(family, read_config(changed(one.at("config"))), ordered_json::object()),
          !Catch::Contains("do not fit the model"));
      continue;
    }
    const auto found =
        adapters_of(family, read_config(changed(one.at("config"))), one.at("layers"));
    CHECK(found.size() == one.at("layers").size());
    for (const auto& [name, rank_and_scale] : one.at("layers").items()) {
      INFO(name);
      REQUIRE(found.count(name) == 1);
      CHECK(found.at(name).first == rank_and_scale[0].get<int64_t>());
      CHECK(found.at(name).second == Approx(rank_and_scale[1].get<double>()).epsilon(1e-12));
    }
  }
  CHECK(refused > 5);
}

TEST_CASE("every key that PEFT writes is known, and what changes numbers is computed or refused",
          "[lora][peft][bad-input]") {
  CHECK_NOTHROW(read_config(changed()));
  // A value of each key that says something else than the default. Null: harmless, any is taken.
  const ordered_json other = {
      {"alora_invocation_tokens", {1, 2}},
      {"arrow_config", {{"top_k", 3}}},
      {"bias", "all"},
      {"init_lora_weights", "pissa"},
      {"kasa_config", {{"beta", 1e-4}}},
      {"layer_replication", {{0, 1}, {0, 1}}},
      {"lora_bias", true},
      {"megatron_config", {{"x", 1}}},
      {"modules_to_save", {"lm_head"}},
      {"monteclora_config", {{"num_samples", 8}}},
      {"peft_type", "IA3"},
      {"target_parameters", {"mlp.weight"}},
      {"task_type", "SEQ_CLS"},
      {"trainable_token_indices", {1}},
      {"use_bdlora", {{"nblocks", 2}}},
      {"use_dora", true},
      {"use_qalora", true},
      {"velora_config", {{"scale", 1.0}}},
  };
  const std::vector<std::string> computed = {"alpha_pattern",
                                             "exclude_modules",
                                             "layers_pattern",
                                             "layers_to_transform",
                                             "lora_alpha",
                                             "lora_dropout",
                                             "r",
                                             "rank_pattern",
                                             "target_modules",
                                             "use_rslora"};
  const ordered_json harmless = {
      {"auto_mapping", {{"base_model_class", "X"}}},
      {"base_model_name_or_path", "some/model"},
      {"corda_config", {{"corda_method", "ipm"}}},
      {"ensure_weight_tying", true},
      {"eva_config", {{"rho", 2.0}}},
      {"fan_in_fan_out", true},
      {"inference_mode", true},
      {"loftq_config", {{"loftq_bits", 4}}},
      {"lora_ga_config", {{"scale", "stable"}}},
      {"megatron_core", "other.core"},
      {"qalora_group_size", 32},
      {"revision", "main"},
  };
  for (const auto& [key, value] : goldens().at("defaults").items()) {
    INFO(key);
    const bool is_computed = std::find(computed.begin(), computed.end(), key) != computed.end();
    CHECK(other.contains(key) + is_computed + harmless.contains(key) == 1);
    if (other.contains(key))
      CHECK_THROWS_WITH(read_config(changed({{key, other.at(key)}})), Catch::Contains(key));
    if (harmless.contains(key)) CHECK_NOTHROW(read_config(changed({{key, harmless.at(key)}})));
  }
  for (const char* changing :
       {"pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "new"})
    CHECK_THROWS_WITH(read_config(changed({{"init_lora_weights", changing}})),
                      Catch::Contains("init_lora_weights"));
  for (const char* plain : {"gaussian", "eva", "orthogonal", "mica"})
    CHECK_NOTHROW(read_config(changed({{"init_lora_weights", plain}})));
}

TEST_CASE("keys that are not known are refused by name if they say something",
          "[lora][peft][bad-input]") {
  CHECK_THROWS_WITH(read_config(changed({{"use_nora", true}})), Catch::Contains("'use_nora'"));
  CHECK_THROWS_WITH(read_config(changed({{"nora_size", 16}})), Catch::Contains("'nora_size'"));
  CHECK_NOTHROW(read_config(changed({{"use_nora", false}, {"nora", nullptr}, {"list", {}}})));
}

TEST_CASE("values of the wrong type in adapter_config.json are refused by name",
          "[lora][peft][bad-input]") {
  const std::pair<const char*, ordered_json> wrong[] = {
      {"r", 2.5},
      {"r", "8"},
      {"r", true},
      {"lora_alpha", "16"},
      {"lora_dropout", {0.1}},
      {"use_rslora", "yes"},
      {"target_modules", 3},
      {"target_modules", {"q_proj", 3}},
      {"exclude_modules", {{"a", 1}}},
      {"layers_to_transform", {1.5}},
      {"layers_pattern", 1},
      {"rank_pattern", {1, 2}},
      {"rank_pattern", "q_proj"},
      {"init_lora_weights", 3},
      {"bias", true},
  };
  for (const auto& [key, value] : wrong) {
    INFO(key << ": " << value.dump());
    const ordered_json config = changed({{key, value}});
    CHECK_THROWS_WITH(read_config(config), Catch::Contains(key));
  }
  CHECK_THROWS_WITH(read_config(changed({{"rank_pattern", {{"q_proj", "8"}}}})),
                    Catch::Contains("q_proj"));
  CHECK_THROWS_WITH(read_config(changed({{"alpha_pattern", {{"q_proj", nullptr}}}})),
                    Catch::Contains("q_proj"));
}

TEST_CASE("adapters on what is no linear layer of the body are refused", "[lora][bad-input]") {
  for (const ordered_json& targets :
       {ordered_json({"embed_tokens", "q_proj"}), ordered_json({"q_proj", "lm_head"}),
        ordered_json(".*(q_proj|embed_tokens)"), ordered_json(".*norm"), ordered_json({"mlp"})}) {
    INFO(targets.dump());
    const std::shared_ptr<CausalLm> model = model_of("llama");
    const test::TemporaryFolder folder;
    write_safetensors(folder / "adapter_model.safetensors", {});
    folder.write("adapter_config.json", changed({{"target_modules", targets}}).dump());
    CHECK_THROWS_WITH(Lora::load(*model, folder.path()), Catch::Contains("not supported"));
    CHECK(adapted(*model).empty());
    for (const NamedParameter& named : model->named_parameters())
      REQUIRE(named.parameter->trainable());
  }
}

TEST_CASE("the options of adapters are written as they were read", "[lora][peft]") {
  for (const ordered_json& changes : {
           ordered_json{{"target_modules", R"(.*\.q_proj)"}, {"exclude_modules", "x.*"}},
           ordered_json{{"target_modules", {"q_proj"}},
                        {"exclude_modules", {"a", "b"}},
                        {"layers_to_transform", {1, 2}},
                        {"layers_pattern", {"layers"}},
                        {"rank_pattern", {{"z", 3}, {"a", 4}}},
                        {"alpha_pattern", {{"z", 3.5}, {"a", 4.0}}}},
       }) {
    const ordered_json written =
        test::parsed_in_order(lora_config_json(read_config(changed(changes)), "base", false));
    for (const auto& [key, value] : changes.items()) CHECK(written.at(key).dump() == value.dump());
  }
  // A path that is not UTF-8 is written as text that is.
  CHECK(
      test::parsed_in_order(lora_config_json({}, "caf\xE9", false)).at("base_model_name_or_path") ==
      "caf\\xE9");
}

TEST_CASE("a file that fits gives per-layer ranks their places", "[lora][peft]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const LoraOptions options{.rank = 3,
                            .target_pattern = R"(.*\.(q_proj|up_proj))",
                            .rank_pattern = {{R"(layers\.1\..*)", 5}},
                            .alpha_pattern = {{"up_proj", 1}}};
  Lora lora(*model, options);
  for (const NamedParameter& named : model->named_parameters())
    if (named.name.ends_with("lora_B.weight"))
      named.parameter->assign(init::normal(0.2)(named.parameter->shape(), Device::cpu()));
  lora.save(folder.path());
  const std::shared_ptr<CausalLm> other = test::small_model(test::small_config(Family::llama));
  Lora loaded = Lora::load(*other, folder.path());
  const Tensor ids = test::random_ids(2, 7, 61);
  const Array adapted_logits = other->forward(ids).array();
  CHECK(adapted_logits.to_vector<float>() == model->forward(ids).to_vector<float>());
  loaded.merge();
  CHECK(test::relative_difference(other->forward(ids).array(), adapted_logits) < 1e-5);
}

TEST_CASE("adapters with a NaN are refused by name", "[lora][bad-input]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::llama));
  const Lora lora(*model, {.rank = 1, .target_modules = {"k_proj"}});
  for (const NamedParameter& named : model->named_parameters())
    if (named.name.ends_with("layers.1.self_attn.k_proj.adapter.lora_A.weight"))
      named.parameter->assign(Array::full(named.parameter->shape(), NAN, DType::f32));
  lora.save(folder.path());
  const std::shared_ptr<CausalLm> other = test::small_model(test::small_config(Family::llama));
  CHECK_THROWS_WITH(Lora::load(*other, folder.path()),
                    Catch::Contains("layers.1.self_attn.k_proj.lora_A") && Catch::Contains("NaN"));
}

// Models, adapters and logits that scripts/long/peft.sh had PEFT make.
TEST_CASE("logits with adapters are PEFT's", "[.peft]") {
  const char* given = std::getenv("BINADE_PEFT_MODELS");
  if (given == nullptr) test::skip("run scripts/long/peft.sh");
  int models = 0, refused = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(given)) {
    INFO(read_text_file(entry.path() / "config.txt"));
    const std::shared_ptr<CausalLm> model = load_hf(entry.path() / "base");
    model->eval();
    const fs::path logits_file = entry.path() / "logits.safetensors";
    if (!fs::exists(logits_file)) {  // the shapes do not fit the configuration, PEFT says
      CHECK_THROWS_WITH(Lora::load(*model, entry.path() / "adapter"),
                        Catch::Contains("do not fit the model"));
      ++refused;
      continue;
    }
    const SafetensorsFile expected(logits_file);
    Lora lora = Lora::load(*model, entry.path() / "adapter");
    const Tensor ids(expected.get("ids"));
    const Array logits = expected.get("logits");
    CHECK(test::relative_difference(model->forward(ids).array(), logits) < 1e-5);
    lora.merge();
    CHECK(test::relative_difference(model->forward(ids).array(), logits) < 1e-5);
    ++models;
  }
  CHECK(models > 40);
  CHECK(refused <= 1);
}
