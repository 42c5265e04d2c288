// Files of EAGLE heads: names and shapes, what comes back, what is refused.
#include <binade/heads/eagle/files.h>

#include <cmath>
#include <fstream>

#include <catch2/catch.hpp>

#include <binade/core/safetensors.h>
#include <nlohmann/json.hpp>

#include "heads/eagle/heads.h"
#include "parsed_json.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace eagle = heads::eagle;

namespace {

using Tensors = std::map<std::string, Array>;
using Shapes = std::map<std::string, Shape>;

Tensors tensors_of(const std::filesystem::path& folder) {
  const SafetensorsFile file(folder / "model.safetensors");
  Tensors tensors;
  for (const std::string& name : file.names()) tensors[name] = file.get(name).clone();
  return tensors;
}

Shapes shapes_of(const std::filesystem::path& folder) {
  Shapes shapes;
  for (const auto& [name, values] : tensors_of(folder)) shapes.emplace(name, values.shape());
  return shapes;
}

nlohmann::json config_of(const std::filesystem::path& folder) {
  std::ifstream in(folder / "config.json");
  return test::parsed(in);
}

// The tensors of a layer whose attention reads so many numbers.
Shapes layer_shapes(const std::string& prefix, int64_t read) {
  return {{prefix + "post_attention_layernorm.weight", {32}},
          {prefix + "self_attn.q_proj.weight", {32, read}},
          {prefix + "self_attn.k_proj.weight", {16, read}},
          {prefix + "self_attn.v_proj.weight", {16, read}},
          {prefix + "self_attn.o_proj.weight", {32, 32}},
          {prefix + "mlp.gate_proj.weight", {48, 32}},
          {prefix + "mlp.up_proj.weight", {48, 32}},
          {prefix + "mlp.down_proj.weight", {32, 48}}};
}

}  // namespace

TEST_CASE("an EAGLE head comes back from its files", "[heads][eagle][files]") {
  const auto base = eagle_base(64);  // padded rows stay out of files
  for (const eagle::EagleConfig& config : eagle_configs(base->config()))
    for (const eagle::Layout layout : {eagle::Layout::vllm, eagle::Layout::sglang}) {
      eagle::EagleConfig moved = config;
      if (!moved.layers.empty() && layout == eagle::Layout::sglang) continue;  // reads layer 0
      const TemporaryFolder folder;
      const auto head = eagle_head(base, moved);
      eagle::save_eagle(*head, folder.path(), {.layout = layout, .dtype = DType::f32});
      CHECK(eagle::layout_of(folder.path()) == layout);
      const auto again = eagle::load_eagle(folder.path(), base);
      again->eval();
      CHECK(again->config().version == config.version);
      CHECK(again->config().layers == config.layers);
      CHECK(again->config().vocabulary.ids() == config.vocabulary.ids());
      const NoGrad off;
      const Tensor ids = random_ids(1, 7, 61);
      const auto before = head->unroll(head->trunk(ids, {}), ids, {}, {}, 3),
                 after = again->unroll(again->trunk(ids, {}), ids, {}, {}, 3);
      for (size_t s = 0; s < before.size(); ++s)
        CHECK(head->logits(before[s]).to_vector<float>() ==
              again->logits(after[s]).to_vector<float>());
    }
}

// From vLLM's llama_eagle.py: "embed_tokens", "fc" without a bias, "layers.0" whose input_layernorm
// is an identity; the model's own head.
TEST_CASE("files of EAGLE-1 have the names and shapes that engines read", "[heads][eagle][files]") {
  const auto base = eagle_base(64);
  const auto head = eagle_head(base, eagle::EagleConfig::eagle1());
  for (const eagle::Layout layout : {eagle::Layout::vllm, eagle::Layout::sglang}) {
    const TemporaryFolder folder;
    eagle::save_eagle(*head, folder.path(), {.layout = layout, .base_name = "a/b"});
    Shapes expected = layer_shapes("layers.0.", 32);
    expected.insert({{"fc.weight", {32, 64}}, {"embed_tokens.weight", {61, 32}}});
    // SGLang's layer has a bias, which would stay as it was drawn; vLLM's has none, and refuses it.
    if (layout == eagle::Layout::sglang) expected.insert({"fc.bias", {32}});
    CHECK(shapes_of(folder.path()) == expected);
    const nlohmann::json config = config_of(folder.path());
    CHECK(config.at("architectures") ==
          nlohmann::json(
              {layout == eagle::Layout::vllm ? "LlamaForCausalLM" : "LlamaForCausalLMEagle"}));
    CHECK(config.at("model_type") == "llama");
    CHECK(config.at("num_hidden_layers") == 1);
    CHECK(config.at("bias") == false);
    CHECK(config.at("base_model_name_or_path") == "a/b");
    CHECK(tensors_of(folder.path()).at("embed_tokens.weight").to(DType::f32).to_vector<float>() ==
          base->state()
              .at("model.embed_tokens.weight")
              .slice(0, 0, 61)
              .to(DType::f16)
              .to(DType::f32)
              .to_vector<float>());
  }
}

// From vLLM's and SGLang's llama_eagle3.py: "midlayer" whose q, k and v read twice the width,
// "hidden_norm", "fc" of three widths, "norm", "lm_head" over draft_vocab_size, "d2t" added to
// places, "t2d".
TEST_CASE("files of EAGLE-3 have the names and shapes that engines read", "[heads][eagle][files]") {
  const auto base = eagle_base(64);
  const eagle::EagleConfig config =
      eagle::EagleConfig::eagle3(base->config(), some_tokens(base->config()));
  const TemporaryFolder folder;
  eagle::save_eagle(*eagle_head(base, config), folder.path(), {.dtype = DType::bf16});
  const int64_t size = std::ssize(config.vocabulary.ids());
  Shapes expected = layer_shapes("midlayer.", 64);
  expected.insert({{"fc.weight", {32, 96}},
                   {"midlayer.input_layernorm.weight", {32}},
                   {"midlayer.hidden_norm.weight", {32}},
                   {"norm.weight", {32}},
                   {"lm_head.weight", {size, 32}},
                   {"d2t", {size}},
                   {"t2d", {61}}});
  CHECK(shapes_of(folder.path()) == expected);
  const Tensors tensors = tensors_of(folder.path());
  CHECK(tensors.at("midlayer.mlp.up_proj.weight").dtype() == DType::bf16);
  CHECK(tensors.at("d2t").dtype() == DType::i64);
  CHECK(tensors.at("t2d").dtype() == DType::boolean);
  const auto offsets = tensors.at("d2t").to_vector<int64_t>();
  std::vector<int32_t> drafted;
  for (size_t i = 0; i < offsets.size(); ++i)
    drafted.push_back(static_cast<int32_t>(static_cast<int64_t>(i) + offsets[i]));
  CHECK(drafted == config.vocabulary.ids());
  int64_t among = 0;
  for (int64_t id = 0; id < 61; ++id) {
    const bool is = tensors.at("t2d").data<bool>()[id];
    CHECK(is == std::binary_search(drafted.begin(), drafted.end(), id));
    among += is ? 1 : 0;
  }
  CHECK(among == size);
  const nlohmann::json json = config_of(folder.path());
  CHECK(json.at("architectures") == nlohmann::json({"LlamaForCausalLMEagle3"}));
  CHECK(json.at("draft_vocab_size") == size);
  CHECK(json.at("target_hidden_size") == 32);
  CHECK(json.at("num_hidden_layers") == 1);
  CHECK(json.at("tie_word_embeddings") == false);
  CHECK(json.at("eagle_config").at("eagle_aux_hidden_state_layer_ids") ==
        nlohmann::json({0, 1, 2}));
}

// vLLM has no place for d2t where all tokens are drafted, and refuses what it has no place for.
TEST_CASE("files of EAGLE-3 over all tokens name none", "[heads][eagle][files]") {
  const auto base = eagle_base(64);
  const TemporaryFolder folder;
  eagle::save_eagle(*eagle_head(base, eagle::EagleConfig::eagle3(base->config())), folder.path());
  const Tensors tensors = tensors_of(folder.path());
  CHECK(tensors.count("d2t") + tensors.count("t2d") == 0);
  CHECK(tensors.at("lm_head.weight").shape() == Shape{61, 32});
  // Others write them nonetheless.
  Tensors with = tensors;
  with["d2t"] = Array::zeros({61}, DType::i64);
  with["t2d"] = Array::full({61}, 1, DType::boolean);
  write_safetensors(folder / "model.safetensors", with, {});
  CHECK(eagle::load_eagle(folder.path(), base)->config().vocabulary.whole());
}

TEST_CASE("layers that EAGLE-3 reads are counted as each engine counts them",
          "[heads][eagle][files]") {
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.layers = 8;
  const auto base = small_model(config);
  const auto ids_of = [&](const std::vector<int64_t>& layers, eagle::Layout layout) {
    eagle::EagleConfig wanted = eagle::EagleConfig::eagle3(config);
    wanted.layers = layers;
    const TemporaryFolder folder;
    eagle::save_eagle(*eagle_head(base, wanted), folder.path(), {.layout = layout});
    CHECK(eagle::load_eagle(folder.path(), base, /*check_base=*/false)->config().layers == layers);
    const nlohmann::json json = config_of(folder.path());
    if (!json.contains("eagle_config")) return nlohmann::json();
    return json.at("eagle_config").at("eagle_aux_hidden_state_layer_ids");
  };
  CHECK(ids_of({1, 3, 7}, eagle::Layout::vllm) == nlohmann::json({1, 3, 7}));
  CHECK(ids_of({1, 3, 7}, eagle::Layout::sglang) == nlohmann::json({0, 2, 6}));
  // What both take by default.
  CHECK(ids_of({2, 4, 5}, eagle::Layout::vllm).is_null());
  CHECK(ids_of({2, 4, 5}, eagle::Layout::sglang).is_null());
  CHECK_THROWS_WITH(ids_of({0, 3, 7}, eagle::Layout::sglang), Contains("entering layer 0"));
}

TEST_CASE("files of EAGLE heads that do not fit are refused", "[heads][eagle][files][errors]") {
  const TemporaryFolder folder;
  const auto base = eagle_base();
  const auto three =
      eagle_head(base, eagle::EagleConfig::eagle3(base->config(), some_tokens(base->config())));
  const auto one = eagle_head(base, eagle::EagleConfig::eagle1());
  auto head = three;
  const auto load = [&] { eagle::load_eagle(folder.path(), base); };
  const auto save = [&] { eagle::save_eagle(*head, folder.path(), {.dtype = DType::f32}); };
  const auto change = [&](const std::function<void(nlohmann::json&)>& edit) {
    save();
    nlohmann::json config = config_of(folder.path());
    edit(config);
    std::ofstream(folder / "config.json") << config;
  };
  const auto edit = [&](const std::function<void(Tensors&)>& change) {
    save();
    Tensors tensors = tensors_of(folder.path());
    change(tensors);
    write_safetensors(folder / "model.safetensors", tensors, {});
  };
  CHECK_THROWS_WITH(load(), Contains("no config.json"));
  change([](auto& config) { config.erase("binade_eagle"); });
  CHECK_THROWS_WITH(load(), Contains("'binade_eagle'"));
  CHECK(!eagle::layout_of(folder.path()));
  change([](auto& config) { config["binade_eagle"]["version"] = "eagle2"; });
  CHECK_THROWS_WITH(load(), Contains("eagle2"));
  change([](auto& config) { config["binade_eagle"]["layout"] = "tgi"; });
  CHECK_THROWS_WITH(load(), Contains("tgi"));
  change([](auto& config) { config["binade_eagle"]["layers"] = {0, 1, 7}; });
  CHECK_THROWS_WITH(load(), Contains("of the model's 3"));
  change([](auto& config) { config["hidden_size"] = 33; });
  CHECK_THROWS_WITH(load(), Contains("'hidden_size' is 33"));
  change([](auto& config) { config["target_hidden_size"] = 64; });
  CHECK_THROWS_WITH(load(), Contains("'target_hidden_size' is 64"));
  change([](auto& config) { config["binade_base_crc32c"] = 1; });
  CHECK_THROWS_WITH(load(), Contains("other weights"));
  edit([](auto& tensors) { tensors.erase("midlayer.hidden_norm.weight"); });
  CHECK_THROWS_WITH(load(), Contains("missing") && Contains("midlayer.hidden_norm.weight"));
  edit([](auto& tensors) {
    tensors["layers.0.hidden_norm.weight"] = Array::zeros({32}, DType::f32);
  });
  CHECK_THROWS_WITH(load(), Contains("unexpected") && Contains("layers.0.hidden_norm.weight"));
  edit([](auto& tensors) { tensors["fc.weight"] = Array::zeros({32, 64}, DType::f32); });
  CHECK_THROWS_WITH(load(), Contains("fc.weight") && Contains("shape"));
  edit([](auto& tensors) { tensors["norm.weight"] = Array::full({32}, NAN, DType::f32); });
  CHECK_THROWS_WITH(load(), Contains("norm.weight"));
  for (const char* name : {"d2t", "t2d"}) {
    edit([&](auto& tensors) { tensors.erase(name); });
    CHECK_THROWS_WITH(load(), Contains(std::string("no tensor '") + name));
  }
  edit([](auto& tensors) { tensors["d2t"] = tensors["d2t"].to(DType::i32); });
  CHECK_THROWS_WITH(load(), Contains("'d2t' is"));
  edit([](auto& tensors) { tensors["d2t"].template data<int64_t>()[1] = -5; });
  CHECK_THROWS_WITH(load(), Contains("'d2t' has -5 at 1"));
  edit([](auto& tensors) { tensors["d2t"].template data<int64_t>()[1] = INT64_MAX; });
  CHECK_THROWS_WITH(load(), Contains("'d2t' has"));
  edit([](auto& tensors) { tensors["t2d"].template data<bool>()[1] = true; });
  CHECK_THROWS_WITH(load(), Contains("speak of different tokens"));
  edit([](auto& tensors) { tensors["t2d"] = Array::zeros({60}, DType::boolean); });
  CHECK_THROWS_WITH(load(), Contains("'t2d' is"));
  edit([](auto& tensors) {
    tensors.erase("d2t");
    tensors.erase("t2d");
  });
  CHECK_THROWS_WITH(load(), Contains("no tensor 'd2t'"));
  head = one;
  edit([](auto& tensors) { tensors["embed_tokens.weight"] = Array::zeros({61, 32}, DType::f32); });
  CHECK_THROWS_WITH(load(), Contains("not what the language model has"));
  edit([](auto& tensors) {
    tensors["layers.0.input_layernorm.weight"] = Array::zeros({32}, DType::f32);
  });
  CHECK_THROWS_WITH(load(), Contains("unexpected") && Contains("input_layernorm"));
  save();
  std::filesystem::remove(folder / "model.safetensors");
  CHECK_THROWS_WITH(load(), Contains("has no model.safetensors"));

  head->named_parameters()[0].parameter->assign(Array::full({32, 64}, INFINITY, DType::f32));
  CHECK_THROWS_WITH(save(), Contains("fc.weight"));
}
