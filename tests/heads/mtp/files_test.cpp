// Files of multi-token prediction: names and shapes, what comes back, what is refused.
#include <binade/heads/mtp/files.h>

#include <fstream>

#include <catch2/catch.hpp>

#include <binade/core/safetensors.h>
#include <nlohmann/json.hpp>

#include "heads/mtp/heads.h"
#include "parsed_json.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace mtp = heads::mtp;

namespace {

using Shapes = std::map<std::string, Shape>;

Shapes shapes_of(const std::filesystem::path& folder) {
  const SafetensorsFile file(folder / "model.safetensors");
  Shapes shapes;
  for (const std::string& name : file.names()) shapes.emplace(name, file.get(name).shape());
  return shapes;
}

// The tensors of a decoder layer as vLLM's Llama, Qwen2 and GLM-4.5 classes take them from a
// checkpoint (q, k and v, and gate and up, are joined in memory), for small_config().
Shapes layer_shapes(const std::string& prefix, bool biases) {
  Shapes shapes = {{prefix + "input_layernorm.weight", {32}},
                   {prefix + "post_attention_layernorm.weight", {32}},
                   {prefix + "self_attn.q_proj.weight", {32, 32}},
                   {prefix + "self_attn.k_proj.weight", {16, 32}},
                   {prefix + "self_attn.v_proj.weight", {16, 32}},
                   {prefix + "self_attn.o_proj.weight", {32, 32}},
                   {prefix + "mlp.gate_proj.weight", {48, 32}},
                   {prefix + "mlp.up_proj.weight", {48, 32}},
                   {prefix + "mlp.down_proj.weight", {32, 48}}};
  if (biases)
    shapes.insert({{prefix + "self_attn.q_proj.bias", {32}},
                   {prefix + "self_attn.k_proj.bias", {16}},
                   {prefix + "self_attn.v_proj.bias", {16}}});
  return shapes;
}

mtp::MtpConfig config_for(mtp::Format format, mtp::Kind kind, int64_t depth) {
  return {.kind = kind, .depth = depth, .conventions = mtp::conventions_of(format)};
}

nlohmann::json config_of(const std::filesystem::path& folder) {
  std::ifstream in(folder / "config.json");
  return test::parsed(in);
}

}  // namespace

TEST_CASE("multi-token prediction comes back from its files", "[heads][mtp][files]") {
  struct Case {
    mtp::Format format;
    nn::Family family;
    mtp::MtpConfig config;
  };
  std::vector<Case> cases;
  for (const mtp::Format format :
       {mtp::Format::plain, mtp::Format::deepseek, mtp::Format::qwen3_next, mtp::Format::mimo})
    for (const nn::Family family : {nn::Family::llama, nn::Family::qwen2, nn::Family::qwen3}) {
      if (format == mtp::Format::mimo && family == nn::Family::qwen3) continue;
      cases.push_back({format, family, config_for(format, mtp::Kind::recursive, 3)});
      cases.push_back(
          {format, family,
           config_for(format, mtp::Kind::sequential, format == mtp::Format::qwen3_next ? 1 : 2)});
    }
  for (const mtp::MtpConfig& config : kMtpConfigs) {
    for (const nn::Family family : kFamilies) cases.push_back({mtp::Format::plain, family, config});
  }
  for (const Case& now : cases) {
    INFO(mtp::name_of(now.format) << ", " << mtp::name_of(now.config.kind) << ", "
                                  << nn::name_of(now.family));
    const TemporaryFolder folder;
    const auto base = mtp_base(now.family, 64);  // padded rows stay out of files
    const auto heads = mtp_heads(base, now.config);
    mtp::save_mtp(*heads, folder.path(), {.format = now.format, .dtype = DType::f32});
    const auto again = mtp::load_mtp(folder.path(), base);
    again->eval();
    CHECK(again->config().kind == now.config.kind);
    CHECK(again->config().depth == now.config.depth);
    CHECK(again->config().conventions == now.config.conventions);
    const NoGrad off;
    const Tensor ids = random_ids(1, 7, 61);
    const auto before = heads->outputs(heads->trunk(ids, {}), ids, {}, {}),
               after = again->outputs(again->trunk(ids, {}), ids, {}, {});
    // (w − 1) + 1 is not w to the last bit.
    const double tolerance = now.format == mtp::Format::qwen3_next ? 1e-5 : 0;
    for (size_t k = 0; k < before.size(); ++k)
      CHECK(relative_difference(after[k].array(), before[k].array()) <= tolerance);
  }
}

// From vLLM's classes: DeepSeekMultiTokenPredictorLayer (enorm, hnorm, eh_proj, shared_head with
// norm and head; the layer's tensors directly below the number; embed_tokens once a layer).
TEST_CASE("files in DeepSeek-V3's format have the names and shapes that vLLM reads",
          "[heads][mtp][files]") {
  const TemporaryFolder folder;
  const auto base = mtp_base(nn::Family::llama, 64);
  const auto config = config_for(mtp::Format::deepseek, mtp::Kind::sequential, 2);
  mtp::save_mtp(*mtp_heads(base, config), folder.path(),
                {.format = mtp::Format::deepseek, .base_name = "a/b"});
  Shapes expected;
  for (const std::string prefix : {"model.layers.2.", "model.layers.3."}) {
    expected.merge(layer_shapes(prefix, false));
    expected.insert({{prefix + "enorm.weight", {32}},
                     {prefix + "hnorm.weight", {32}},
                     {prefix + "eh_proj.weight", {32, 64}},
                     {prefix + "embed_tokens.weight", {61, 32}},
                     {prefix + "shared_head.norm.weight", {32}},
                     {prefix + "shared_head.head.weight", {61, 32}}});
  }
  CHECK(shapes_of(folder.path()) == expected);
  CHECK(config_of(folder.path()).at("num_nextn_predict_layers") == 2);
  CHECK(config_of(folder.path()).at("num_hidden_layers") == 2);
  CHECK(config_of(folder.path()).at("base_model_name_or_path") == "a/b");
  const SafetensorsFile file(folder / "model.safetensors");
  CHECK(file.get("model.layers.2.eh_proj.weight").dtype() == DType::f16);
  CHECK(file.get("model.layers.3.embed_tokens.weight").to(DType::f32).to_vector<float>() ==
        base->state()
            .at("model.embed_tokens.weight")
            .slice(0, 0, 61)
            .to(DType::f16)
            .to_vector<float>());
}

// From vLLM's Qwen3NextMultiTokenPredictor and the mapping of "mtp." in Qwen3NextMTP.
TEST_CASE("files in Qwen3-Next's format have the names, shapes and norms that vLLM reads",
          "[heads][mtp][files]") {
  const TemporaryFolder folder;
  const auto base = mtp_base(nn::Family::qwen3);
  const auto heads = mtp_heads(base, config_for(mtp::Format::qwen3_next, mtp::Kind::recursive, 3));
  mtp::save_mtp(*heads, folder.path(), {.format = mtp::Format::qwen3_next, .dtype = DType::f32});
  Shapes expected = layer_shapes("mtp.layers.0.", false);
  expected.insert({{"mtp.layers.0.self_attn.q_norm.weight", {8}},
                   {"mtp.layers.0.self_attn.k_norm.weight", {8}},
                   {"mtp.fc.weight", {32, 64}},
                   {"mtp.pre_fc_norm_embedding.weight", {32}},
                   {"mtp.pre_fc_norm_hidden.weight", {32}},
                   {"mtp.norm.weight", {32}},
                   {"model.embed_tokens.weight", {61, 32}},
                   {"lm_head.weight", {61, 32}}});
  CHECK(shapes_of(folder.path()) == expected);
  CHECK(config_of(folder.path()).at("num_nextn_predict_layers") == 1);
  const SafetensorsFile file(folder / "model.safetensors");
  const auto state = heads->state();
  for (const auto& [own, name] : std::map<std::string, std::string>{
           {"0.embedding_norm.weight", "mtp.pre_fc_norm_embedding.weight"},
           {"0.norm.weight", "mtp.norm.weight"},
           {"0.layer.self_attn.k_norm.weight", "mtp.layers.0.self_attn.k_norm.weight"},
           {"0.layer.input_layernorm.weight", "mtp.layers.0.input_layernorm.weight"}}) {
    const auto in_file = file.get(name).to_vector<double>(), w = state.at(own).to_vector<double>();
    for (size_t i = 0; i < w.size(); ++i) CHECK(in_file[i] == Approx(w[i] - 1).margin(1e-6));
  }
  CHECK(file.get("mtp.fc.weight").to_vector<float>() ==
        state.at("0.projection.weight").to_vector<float>());
}

// From vLLM's MiMoMultiTokenPredictorLayer, whose layer is Qwen2DecoderLayer, and its mapping of
// "model.mtp_layers.{k}.".
TEST_CASE("files in MiMo's format have the names and shapes that vLLM reads, biases among them",
          "[heads][mtp][files]") {
  for (const nn::Family family : {nn::Family::llama, nn::Family::qwen2}) {
    const TemporaryFolder folder;
    const auto base = mtp_base(family);
    const auto config = config_for(mtp::Format::mimo, mtp::Kind::sequential, 2);
    mtp::save_mtp(*mtp_heads(base, config), folder.path(), {.format = mtp::Format::mimo});
    Shapes expected = {{"model.embed_tokens.weight", {61, 32}}, {"lm_head.weight", {61, 32}}};
    for (const std::string prefix : {"model.mtp_layers.0.", "model.mtp_layers.1."}) {
      expected.merge(layer_shapes(prefix, true));
      expected.insert({{prefix + "token_layernorm.weight", {32}},
                       {prefix + "hidden_layernorm.weight", {32}},
                       {prefix + "input_proj.weight", {32, 64}},
                       {prefix + "final_layernorm.weight", {32}}});
    }
    CHECK(shapes_of(folder.path()) == expected);
    CHECK(config_of(folder.path()).at("model_type") == "mimo");
    const SafetensorsFile file(folder / "model.safetensors");
    const auto bias = file.get("model.mtp_layers.1.self_attn.q_proj.bias").to_vector<float>();
    const bool zeros = std::all_of(bias.begin(), bias.end(), [](float x) { return x == 0; });
    CHECK(zeros == (family == nn::Family::llama));
  }
}

TEST_CASE("files of multi-token prediction that do not fit are refused",
          "[heads][mtp][files][errors]") {
  const TemporaryFolder folder;
  const auto base = mtp_base();
  const auto heads = mtp_heads(base, config_for(mtp::Format::deepseek, mtp::Kind::sequential, 1));
  const auto load = [&] { mtp::load_mtp(folder.path(), base); };
  const auto save = [&] {
    mtp::save_mtp(*heads, folder.path(), {.format = mtp::Format::deepseek, .dtype = DType::f32});
  };
  const auto change = [&](const std::function<void(nlohmann::json&)>& edit) {
    save();
    nlohmann::json config = config_of(folder.path());
    edit(config);
    std::ofstream(folder / "config.json") << config;
  };
  const auto edit = [&](const std::function<void(std::map<std::string, Array>&)>& change) {
    save();
    std::map<std::string, Array> tensors;
    {
      const SafetensorsFile file(folder / "model.safetensors");
      for (const std::string& name : file.names()) tensors[name] = file.get(name).clone();
    }
    change(tensors);
    write_safetensors(folder / "model.safetensors", tensors, {});
  };
  CHECK_THROWS_WITH(load(), Contains("no config.json"));
  change([](auto& config) { config.erase("binade_mtp"); });
  CHECK_THROWS_WITH(load(), Contains("'binade_mtp'"));
  change([](auto& config) { config["binade_mtp"]["depth"] = 2; });
  CHECK_THROWS_WITH(load(), Contains("missing") && Contains("model.layers.3."));
  change([](auto& config) { config["binade_mtp"]["depth"] = 0; });
  CHECK_THROWS_WITH(load(), Contains("'depth' is 0"));
  change([](auto& config) { config["binade_mtp"]["kind"] = "serial"; });
  CHECK_THROWS_WITH(load(), Contains("serial"));
  change([](auto& config) { config["binade_mtp"]["format"] = "glm"; });
  CHECK_THROWS_WITH(load(), Contains("glm"));
  change([](auto& config) { config["binade_mtp"]["embedding_first"] = false; });
  CHECK_THROWS_WITH(load(), Contains("embedding_first"));
  change([](auto& config) { config["hidden_size"] = 33; });
  CHECK_THROWS_WITH(load(), Contains("'hidden_size' is 33"));
  change([](auto& config) { config["num_hidden_layers"] = 4; });
  CHECK_THROWS_WITH(load(), Contains("'num_hidden_layers' is 4"));
  change([](auto& config) { config["binade_base_crc32c"] = 1; });
  CHECK_THROWS_WITH(load(), Contains("other weights"));
  edit([](auto& tensors) { tensors.erase("model.layers.2.enorm.weight"); });
  CHECK_THROWS_WITH(load(), Contains("missing") && Contains("model.layers.2.enorm.weight"));
  edit([](auto& tensors) { tensors["extra"] = Array::zeros({1}, DType::f32); });
  CHECK_THROWS_WITH(load(), Contains("unexpected") && Contains("extra"));
  edit([](auto& tensors) {
    tensors["model.layers.2.eh_proj.weight"] = Array::zeros({64, 32}, DType::f32);
  });
  CHECK_THROWS_WITH(load(), Contains("model.layers.2.eh_proj.weight") && Contains("shape"));
  edit([](auto& tensors) {
    tensors["model.layers.2.hnorm.weight"] = Array::full({32}, NAN, DType::f32);
  });
  CHECK_THROWS_WITH(load(), Contains("model.layers.2.hnorm.weight"));
  edit([](auto& tensors) {
    tensors["model.layers.2.embed_tokens.weight"] = Array::full({61, 32}, 1, DType::f32);
  });
  CHECK_THROWS_WITH(load(), Contains("model.layers.2.embed_tokens.weight") &&
                                Contains("not what the language model has"));
  save();
  std::filesystem::remove(folder / "model.safetensors");
  CHECK_THROWS_WITH(load(), Contains("has no model.safetensors"));

  heads->named_parameters()[0].parameter->assign(Array::full({32}, INFINITY, DType::f32));
  CHECK_THROWS_WITH(save(), Contains("model.layers.2.enorm.weight"));
}

TEST_CASE("a format says which heads it cannot hold, and why", "[heads][mtp][files][errors]") {
  const auto check_fits = [](mtp::Format format, nn::Family family, mtp::Kind kind, int64_t depth) {
    mtp::check_fits(format, config_for(format, kind, depth), small_config(family));
  };
  const auto kSequential = mtp::Kind::sequential;
  for (const mtp::Format format :
       {mtp::Format::deepseek, mtp::Format::qwen3_next, mtp::Format::mimo}) {
    CHECK_THROWS_WITH(check_fits(format, nn::Family::llama, mtp::Kind::parallel, 1),
                      Contains("parallel"));
    CHECK_THROWS_WITH(check_fits(format, nn::Family::gpt2, kSequential, 1), Contains("gpt2"));
    CHECK_NOTHROW(check_fits(format, nn::Family::llama, kSequential, 1));
    // Layers that the engines behind these formats do not build.
    for (const nn::Family family : {nn::Family::mistral, nn::Family::olmo2, nn::Family::phi3,
                                    nn::Family::smollm3, nn::Family::gemma3_text}) {
      CHECK_THROWS_WITH(check_fits(format, family, kSequential, 1),
                        Contains(std::string(nn::name_of(family))) && Contains("use plain"));
      CHECK(mtp::default_format(kSequential, small_config(family)) == mtp::Format::plain);
    }
    nn::CausalLmConfig mistral = small_config(nn::Family::mistral);
    mistral.window = 0;  // a Llama layer then
    CHECK_NOTHROW(mtp::check_fits(format, config_for(format, kSequential, 1), mistral));
  }
  CHECK_THROWS_WITH(check_fits(mtp::Format::qwen3_next, nn::Family::llama, kSequential, 2),
                    Contains("one projection"));
  CHECK_THROWS_WITH(check_fits(mtp::Format::mimo, nn::Family::qwen3, kSequential, 1),
                    Contains("qk_norm"));
  nn::CausalLmConfig config = small_config(nn::Family::llama);
  config.mlp_bias = true;
  CHECK_THROWS_WITH(
      mtp::check_fits(mtp::Format::mimo, config_for(mtp::Format::mimo, kSequential, 1), config),
      Contains("mlp_bias"));
  config = small_config(nn::Family::llama);
  config.attention_output_bias = true;
  CHECK_THROWS_WITH(
      mtp::check_fits(mtp::Format::mimo, config_for(mtp::Format::mimo, kSequential, 1), config),
      Contains("o_proj"));
  CHECK_THROWS_WITH(mtp::parse_format("glm"), Contains("qwen3-next"));
  CHECK(mtp::default_format(mtp::Kind::parallel, small_config(nn::Family::llama)) ==
        mtp::Format::plain);
  CHECK(mtp::default_format(kSequential, small_config(nn::Family::llama)) == mtp::Format::deepseek);
}
