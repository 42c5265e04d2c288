#include <binade/nn/lora.h>

#include <cmath>
#include <functional>
#include <map>

#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/nn/hf.h>
#include <nlohmann/json.hpp>

#include "nn/tiny_models.h"
#include "parsed_json.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::nn;
using nlohmann::json;

namespace {

const LoraOptions kOptions{.rank = 3, .alpha = 6, .target_modules = {"q_proj", "down_proj"}};

std::shared_ptr<CausalLm> llama() {
  return test::small_model(test::small_config(Family::llama));
}

// B is zero at the start; this gives it values.
void fill_b(CausalLm& model) {
  RandomState::current().set_seed(9);
  for (const NamedParameter& named : model.named_parameters())
    if (named.name.ends_with("lora_B.weight"))
      named.parameter->assign(init::normal(0.2)(named.parameter->shape(), Device::cpu()));
}

}  // namespace

TEST_CASE("fresh adapters change nothing and are all that is trained", "[lora]") {
  const std::shared_ptr<CausalLm> model = llama();
  const Tensor ids = test::random_ids(2, 7, 61);
  const std::vector<float> before = model->forward(ids).to_vector<float>();
  const Lora lora(*model, kOptions);
  CHECK(lora.names() == std::vector<std::string>{
                            "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj",
                            "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"});
  CHECK(model->forward(ids).to_vector<float>() == before);

  for (const Recompute level : {Recompute::nothing, Recompute::norms, Recompute::activations,
                                Recompute::norms_activations, Recompute::blocks}) {
    model->set_recompute(level);
    for (const NamedParameter& named : model->named_parameters())
      named.parameter->tensor().zero_grad();
    model->loss(ids, ids).backward();
    for (const NamedParameter& named : model->named_parameters()) {
      INFO(named.name << ", level " << static_cast<int>(level));
      const bool adapter = named.name.find("lora_") != std::string::npos;
      CHECK(named.parameter->trainable() == adapter);
      CHECK(named.parameter->tensor().grad().defined() == adapter);
    }
  }
}

TEST_CASE("an adapter adds alpha / rank times B·A", "[lora]") {
  LoraAdapter adapter(2, 2, {.rank = 1, .alpha = 3, .target_modules = {"x"}});
  adapter.a()->assign(Array::from(std::vector<float>{1, 2}, {1, 2}));
  adapter.b()->assign(Array::from(std::vector<float>{10, 20}, {2, 1}));
  const Tensor x = Tensor::from(std::vector<float>{1, -1}, {1, 2});
  CHECK(adapter.forward(x, Tensor::zeros({1, 2})).to_vector<float>() ==
        std::vector<float>{-30, -60});
  CHECK(adapter.delta().to_vector<float>() == std::vector<float>{30, 60, 60, 120});
  CHECK(LoraOptions{.rank = 4, .alpha = 8, .rank_stabilised = true}.scale() == 4);
}

TEST_CASE("merging gives what the adapters gave", "[lora]") {
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
    LoraOptions options = kOptions;
    // c_fc goes through the fused GELU without an adapter, and past it with one.
    if (family == Family::gpt2) options.target_modules = {"c_attn", "c_fc"};
    if (family == Family::phi3) options.target_modules = {"qkv_proj", "gate_up_proj"};
    Lora lora(*model, options);
    const Tensor ids = test::random_ids(2, 7, 61);
    const Array plain = model->forward(ids).array();
    fill_b(*model);
    const Array adapted = model->forward(ids).array();
    CHECK(test::relative_difference(adapted, plain) > 0.01);
    lora.merge();
    CHECK(test::relative_difference(model->forward(ids).array(), adapted) < 1e-5);
    for (const NamedParameter& named : model->named_parameters())
      CHECK(named.name.find("lora_") == std::string::npos);
  }
}

TEST_CASE("a half weight without a master takes the merged values rounded once", "[lora]") {
  for (const DType half : {DType::f16, DType::bf16}) {
    const std::shared_ptr<CausalLm> model = llama();
    for (const NamedParameter& named : model->named_parameters())
      named.parameter->set_compute_dtype(half, /*with_master=*/false);
    Lora lora(*model, kOptions);
    fill_b(*model);

    std::vector<std::pair<ParameterPtr, std::vector<float>>> expected;
    for (const auto& [name, module] : model->named_modules()) {
      const auto* layer = dynamic_cast<const Linear*>(module);
      const auto* adapter =
          layer == nullptr ? nullptr : dynamic_cast<const LoraAdapter*>(layer->adapter().get());
      if (adapter == nullptr) continue;
      std::vector<float> sums = layer->weight()->master().to_vector<float>();
      const std::vector<float> delta = adapter->delta().to_vector<float>();
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += delta[i];
      const Array rounded = Array::from(sums, layer->weight()->shape()).to(half);
      expected.emplace_back(layer->weight(), rounded.to_vector<float>());
    }
    REQUIRE(expected.size() == 4);
    lora.merge();
    for (const auto& [weight, values] : expected) {
      REQUIRE(weight->master().dtype() == half);
      CHECK(weight->master().to_vector<float>() == values);
    }
  }
}

TEST_CASE("adapters are saved and loaded under PEFT's names", "[lora]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = llama();
  const Lora lora(*model, kOptions);
  fill_b(*model);
  const Tensor ids = test::random_ids(2, 7, 61);
  lora.save(folder.path(), "some/base");

  const SafetensorsFile file(folder / "adapter_model.safetensors");
  CHECK(file.names().size() == 8);
  const std::string prefix = "base_model.model.model.layers.1.self_attn.q_proj.";
  CHECK(file.get(prefix + "lora_A.weight").shape() == Shape{3, 32});
  CHECK(file.get(prefix + "lora_B.weight").shape() == Shape{32, 3});
  const json config = test::parsed(read_text_file(folder / "adapter_config.json"));
  CHECK(config.at("peft_type") == "LORA");
  CHECK(config.at("task_type") == "CAUSAL_LM");
  CHECK(config.at("r") == 3);
  CHECK(config.at("lora_alpha") == 6);
  CHECK(config.at("target_modules") == json{"q_proj", "down_proj"});
  CHECK(config.at("base_model_name_or_path") == "some/base");
  CHECK(config.at("fan_in_fan_out") == false);

  const std::shared_ptr<CausalLm> other = llama();
  const Lora loaded = Lora::load(*other, folder.path());
  CHECK(loaded.options().alpha == 6);
  CHECK(other->forward(ids).to_vector<float>() == model->forward(ids).to_vector<float>());
}

TEST_CASE("GPT-2's adapters tell PEFT about the transposed weights", "[lora]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(Family::gpt2));
  Lora(*model, {.rank = 2, .target_modules = {"c_attn"}}).save(folder.path());
  CHECK(test::parsed(read_text_file(folder / "adapter_config.json")).at("fan_in_fan_out") == true);
  const SafetensorsFile file(folder / "adapter_model.safetensors");
  CHECK(file.get("base_model.model.transformer.h.0.attn.c_attn.lora_B.weight").shape() ==
        Shape{96, 2});
}

TEST_CASE("a target that no layer has is refused with the nearest name", "[lora][bad-input]") {
  const std::shared_ptr<CausalLm> model = llama();
  CHECK_THROWS_WITH(Lora(*model, {.target_modules = {"q_prj"}}),
                    Catch::Contains("'q_prj'") && Catch::Contains("did you mean q_proj"));
  CHECK_THROWS_AS(Lora(*model, {.rank = 0, .target_modules = {"q_proj"}}), Error);
  // Refused before anything was changed.
  for (const NamedParameter& named : model->named_parameters()) CHECK(named.parameter->trainable());
}

TEST_CASE("without targets the adapters go where PEFT puts them", "[lora]") {
  const auto targets = [](Family family) {
    return Lora(*test::small_model(test::small_config(family)), {}).options().target_modules;
  };
  CHECK(targets(Family::qwen2) == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(targets(Family::gpt2) == std::vector<std::string>{"c_attn"});
  CHECK(targets(Family::mistral) == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(targets(Family::gemma3_text) == std::vector<std::string>{"q_proj", "v_proj"});
  for (const Family family : test::kFamilies) {
    INFO(name_of(family));
    CHECK(!targets(family).empty());
    // What finetune_medusa takes: a layer has four to seven matrices, by how many are fused.
    const std::shared_ptr<CausalLm> model = test::small_model(test::small_config(family));
    const bool is_fused = family == Family::gpt2 || family == Family::phi3;
    CHECK(Lora(*model, {.target_pattern = "all-linear"}).names().size() == (is_fused ? 8 : 14));
  }
  // PEFT has none for Phi-3.
  CHECK(targets(Family::phi3) == std::vector<std::string>{"qkv_proj"});
  Linear lone(2, 2);
  CHECK_THROWS_WITH(Lora(lone, {}), Catch::Contains("target_modules"));
}

TEST_CASE("what Binade's LoRA is not is refused", "[lora][bad-input]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = llama();
  Lora(*model, kOptions).save(folder.path());
  const json good = test::parsed(read_text_file(folder / "adapter_config.json"));
  for (const json& change :
       {json{{"use_dora", true}}, json{{"bias", "all"}}, json{{"peft_type", "IA3"}},
        json{{"modules_to_save", {"lm_head"}}}, json{{"lora_bias", true}}}) {
    json config = good;
    config.update(change);
    write_text_file(folder / "adapter_config.json", config.dump());
    CHECK_THROWS_WITH(Lora::load(*llama(), folder.path()), Catch::Contains(change.begin().key()));
  }
}

TEST_CASE("adapters of another shape are refused by name", "[lora][bad-input]") {
  const test::TemporaryFolder folder;
  const std::shared_ptr<CausalLm> model = llama();
  Lora(*model, kOptions).save(folder.path());
  json config = test::parsed(read_text_file(folder / "adapter_config.json"));
  config["r"] = 4;
  write_text_file(folder / "adapter_config.json", config.dump());
  CHECK_THROWS_WITH(Lora::load(*llama(), folder.path()),
                    Catch::Contains("q_proj.lora_A.weight: (3, 32) instead of (4, 32)"));
}

TEST_CASE("adapters that cannot be loaded leave the model as it was", "[lora][bad-input]") {
  const test::TemporaryFolder good;
  {
    const std::shared_ptr<CausalLm> model = llama();
    Lora(*model, kOptions).save(good.path());
  }
  const json config = test::parsed(read_text_file(good / "adapter_config.json"));
  std::map<std::string, Array> tensors;
  const SafetensorsFile file(good / "adapter_model.safetensors");
  for (const std::string& name : file.names()) tensors[name] = file.get(name);
  const std::string key = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";

  // Each writes a folder that is good but for one thing.
  struct Fault {
    const char* what;
    std::function<void(json& config, std::map<std::string, Array>& tensors)> make;
    const char* message;
  };
  const Fault faults[] = {
      {"no adapter_config.json", [](json& c, auto&) { c = nullptr; }, "adapter_config.json"},
      {"no adapter_model.safetensors", [](json&, auto& t) { t.clear(); },
       "adapter_model.safetensors"},
      {"a key of the configuration that is refused", [](json& c, auto&) { c["use_dora"] = true; },
       "use_dora"},
      {"a configuration that means no layer",
       [](json& c, auto&) { c["target_modules"] = "none_of_them"; }, "no linear layer"},
      {"a configuration that means the head",
       [](json& c, auto&) {
         c["target_modules"] = {"q_proj", "lm_head"};
       },
       "not supported"},
      {"a rank that no memory holds", [](json& c, auto&) { c["r"] = int64_t{1} << 60; }, ""},
      {"a missing tensor", [&](json&, auto& t) { t.erase(key); }, "missing"},
      {"an unexpected tensor", [](json&, auto& t) { t["more"] = Array::zeros({1}, DType::f32); },
       "more"},
      {"a tensor of another shape",
       [&](json&, auto& t) {
         t[key] = Array::zeros({3, 31}, DType::f32);
       },
       "(3, 31)"},
      {"a tensor with a NaN",
       [&](json&, auto& t) {
         t[key] = Array::full({3, 32}, NAN, DType::f32);
       },
       "NaN"},
  };
  const Tensor ids = test::random_ids(2, 7, 61);
  for (const Fault& fault : faults) {
    INFO(fault.what);
    json changed = config;
    std::map<std::string, Array> values = tensors;
    fault.make(changed, values);
    const test::TemporaryFolder folder;
    if (!changed.is_null()) write_text_file(folder / "adapter_config.json", changed.dump());
    if (!values.empty()) write_safetensors(folder / "adapter_model.safetensors", values);

    const std::shared_ptr<CausalLm> model = llama();
    model->eval();
    std::vector<bool> trainable;
    for (const NamedParameter& named : model->named_parameters()) {
      named.parameter->set_trainable(trainable.size() % 2 == 0);
      trainable.push_back(named.parameter->trainable());
    }
    const std::vector<float> before = model->forward(ids).to_vector<float>();
    CHECK_THROWS_WITH(Lora::load(*model, folder.path()), Catch::Contains(fault.message));
    std::vector<bool> after;
    for (const NamedParameter& named : model->named_parameters()) {
      CHECK(named.name.find("lora_") == std::string::npos);
      after.push_back(named.parameter->trainable());
    }
    CHECK(after == trainable);
    CHECK(model->forward(ids).to_vector<float>() == before);
    // What was refused is in nobody's way.
    CHECK_NOTHROW(Lora::load(*model, good.path()));
  }
}
