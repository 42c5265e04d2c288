#include <binade/nn/models/config.h>

#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include <binade/core/error.h>

#include "nn/tiny_models.h"
#include "warnings.h"

using namespace binade;
using namespace binade::nn;
using nlohmann::json;

namespace {

json llama() {
  return {{"model_type", "llama"},  {"vocab_size", 100},        {"hidden_size", 64},
          {"num_hidden_layers", 2}, {"num_attention_heads", 8}, {"num_key_value_heads", 4},
          {"intermediate_size", 96}};
}
json gpt2() {
  return {
      {"model_type", "gpt2"}, {"vocab_size", 100}, {"n_embd", 64}, {"n_layer", 2}, {"n_head", 8}};
}
CausalLmConfig parse(const json& object) {
  return CausalLmConfig::parse(object.dump(), "config.json");
}
json with(json object, const json& more) {
  object.update(more);
  return object;
}

}  // namespace

TEST_CASE("every key of a configuration is read", "[config]") {
  const CausalLmConfig a = parse(with(llama(), {{"head_dim", 16},
                                                {"max_position_embeddings", 77},
                                                {"rms_norm_eps", 1e-3},
                                                {"initializer_range", 0.5},
                                                {"tie_word_embeddings", true},
                                                {"attention_bias", true},
                                                {"mlp_bias", true},
                                                {"attention_dropout", 0.25},
                                                {"rope_theta", 5e5},
                                                {"bos_token_id", 1},
                                                {"eos_token_id", {2, 3}},
                                                {"pad_token_id", nullptr}}));
  CHECK(a.family == Family::llama);
  CHECK(a.head_size() == 16);
  CHECK(a.key_heads() == 4);
  CHECK(a.max_positions == 77);
  CHECK(a.norm_eps == 1e-3);
  CHECK(a.initializer_range == 0.5);
  CHECK(a.tie_embeddings);
  CHECK(a.attention_bias);
  CHECK(a.attention_output_bias);
  CHECK(a.mlp_bias);
  CHECK(a.attention_dropout == 0.25);
  CHECK(a.rope.theta == 5e5);
  CHECK(a.bos_ids == std::vector<int64_t>{1});
  CHECK(a.eos_ids == std::vector<int64_t>{2, 3});
  CHECK(a.pad_ids.empty());

  const CausalLmConfig b = parse(with(gpt2(), {{"n_inner", 99},
                                               {"n_positions", 33},
                                               {"activation_function", "relu"},
                                               {"embd_pdrop", 0.1},
                                               {"attn_pdrop", 0.2},
                                               {"resid_pdrop", 0.3},
                                               {"scale_attn_weights", false},
                                               {"scale_attn_by_inverse_layer_idx", true}}));
  CHECK(b.hidden_size() == 99);
  CHECK(b.max_positions == 33);
  CHECK(b.activation == Activation::relu);
  CHECK(b.embedding_dropout == 0.1);
  CHECK(b.attention_dropout == 0.2);
  CHECK(b.residual_dropout == 0.3);
  CHECK_FALSE(b.scale_attention);
  CHECK(b.scale_attention_by_inverse_layer);
  CHECK(b.tie_embeddings);
  CHECK(parse(gpt2()).hidden_size() == 256);
}

TEST_CASE("what a family has without saying so", "[config]") {
  CHECK(parse(with(llama(), {{"model_type", "qwen2"}})).attention_bias);
  CHECK_FALSE(parse(with(llama(), {{"model_type", "qwen2"}})).attention_output_bias);
  CHECK(parse(with(llama(), {{"model_type", "qwen3"}})).qk_norm);
  CHECK(parse(with(llama(), {{"model_type", "qwen3"}})).head_size() == 128);
  CHECK_FALSE(parse(llama()).attention_bias);
}

TEST_CASE("rope settings are read in the forms of every version of transformers", "[config]") {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 16}};
  json with_theta = llama3;
  with_theta["rope_theta"] = 7e4;
  for (const json& object : {with(llama(), {{"rope_scaling", llama3}, {"rope_theta", 7e4}}),
                             with(llama(), {{"rope_parameters", with_theta}})}) {
    const RopeConfig rope = parse(object).rope;
    CHECK(rope.scaling == RopeScaling::llama3);
    CHECK(rope.theta == 7e4);
    CHECK(rope.factor == 8);
    CHECK(rope.original_max_positions == 16);
  }
  const json oldest = {{"type", "linear"}, {"factor", 2}};
  CHECK(parse(with(llama(), {{"rope_scaling", oldest}})).rope.scaling == RopeScaling::linear);
  CHECK(parse(with(llama(), {{"rope_scaling", nullptr}})).rope.scaling == RopeScaling::none);
}

TEST_CASE("a configuration is written as it is read", "[config]") {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 16}};
  for (const json& object :
       {llama(), gpt2(), with(llama(), {{"model_type", "qwen2"}}),
        with(llama(), {{"model_type", "qwen3"}, {"eos_token_id", {2, 3}}}),
        with(llama(), {{"rope_scaling", scaling}, {"mlp_bias", true}, {"attention_bias", true}}),
        with(gpt2(), {{"activation_function", "gelu"}, {"n_inner", 99}})}) {
    const std::string once = parse(object).to_json(DType::bf16);
    CHECK(CausalLmConfig::parse(once, "again").to_json(DType::bf16) == once);
    // What was given is there unchanged.
    for (const auto& [key, value] : object.items()) {
      INFO(key);
      CHECK(json::parse(once).at(key) == value);
    }
    CHECK(json::parse(once).at("torch_dtype") == "bfloat16");
  }
}

TEST_CASE("an unknown model type is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(llama(), {{"model_type", "mamba"}})),
                    Catch::Contains("'mamba'") && Catch::Contains("qwen3"));
}

TEST_CASE("an unknown rope type is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(
      parse(with(llama(), {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}})),
      Catch::Contains("'yarn'"));
}

TEST_CASE("an unknown activation is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(gpt2(), {{"activation_function", "mish"}})),
                    Catch::Contains("'mish'"));
  CHECK_THROWS_WITH(parse(with(llama(), {{"hidden_act", "gelu"}})), Catch::Contains("\"gelu\""));
}

TEST_CASE("a sliding window in use is refused", "[config][bad-input]") {
  const json qwen = with(llama(), {{"model_type", "qwen2"}, {"sliding_window", 128}});
  CHECK_NOTHROW(parse(qwen));
  CHECK_THROWS_WITH(parse(with(qwen, {{"use_sliding_window", true}})),
                    Catch::Contains("sliding window"));
  CHECK_THROWS_WITH(parse(with(qwen, {{"layer_types", {"sliding_attention"}}})),
                    Catch::Contains("sliding_attention"));
}

TEST_CASE("what Binade does not do is refused, not ignored", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(gpt2(), {{"add_cross_attention", true}})),
                    Catch::Contains("add_cross_attention"));
  CHECK_THROWS_WITH(parse(with(llama(), {{"rope_interleaved", true}})),
                    Catch::Contains("rope_interleaved"));
  CHECK_THROWS_WITH(parse(with(llama(), {{"quantization_config", {{"bits", 4}}}})),
                    Catch::Contains("quantization_config"));
}

TEST_CASE("a configuration that is no JSON is refused with the position", "[config][bad-input]") {
  CHECK_THROWS_WITH(CausalLmConfig::parse("{\"a\": 1,\n  ]", "config.json"),
                    Catch::Contains("config.json") && Catch::Contains("line 2, column 3"));
  CHECK_THROWS_WITH(CausalLmConfig::parse("[]", "config.json"), Catch::Contains("object"));
}

TEST_CASE("values of the wrong type and missing sizes are named", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(llama(), {{"hidden_size", "64"}})), Catch::Contains("hidden_size"));
  json object = llama();
  object.erase("intermediate_size");
  CHECK_THROWS_WITH(parse(object), Catch::Contains("'intermediate_size' is missing"));
}

TEST_CASE("sizes that do not fit together are refused", "[config][bad-input]") {
  for (const json& change :
       {json{{"hidden_size", 0}}, json{{"hidden_size", -64}}, json{{"vocab_size", 1LL << 40}},
        json{{"num_key_value_heads", 3}}, json{{"num_attention_heads", 7}}, json{{"head_dim", 7}},
        json{{"attention_dropout", 1.5}}})
    CHECK_THROWS_AS(parse(with(llama(), change)), Error);
}

TEST_CASE("special token ids beyond the vocabulary are warned about and ignored", "[config]") {
  const std::pair<const char*, const char*> rows[] = {
      {"eos_token_id", "61"}, {"pad_token_id", "-1"}, {"bos_token_id", "9223372036854775807"}};
  for (const auto& [key, id] : rows) {
    json object = json::parse(test::small_config(Family::llama).to_json(DType::f32));
    object[key] = json::parse(id);
    const test::ExpectWarning expected(concat(key, " names the token ", id));
    const CausalLmConfig config = parse(object);
    CHECK(config.bos_ids.empty());
    CHECK(config.eos_ids.empty());
    CHECK(config.pad_ids.empty());
  }
  json object = json::parse(test::small_config(Family::llama).to_json(DType::f32));
  object["eos_token_id"] = {2, 100, 3};
  const test::ExpectWarning expected("eos_token_id names the token 100");
  CHECK(parse(object).eos_ids == std::vector<int64_t>{2, 3});
}

TEST_CASE("numbers beyond 64 bits are refused by name", "[config][bad-input]") {
  json object = json::parse(test::small_config(Family::llama).to_json(DType::f32));
  for (const char* key : {"eos_token_id", "vocab_size", "num_hidden_layers"}) {
    json changed = object;
    changed[key] = uint64_t{18446744073709551615u};
    CHECK_THROWS_WITH(parse(changed), Catch::Contains(key));
  }
}
