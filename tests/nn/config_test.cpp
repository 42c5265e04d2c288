#include <binade/nn/models/config.h>

#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include <binade/core/error.h>

#include "nn/tiny_models.h"
#include "parsed_json.h"
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
  CHECK(parse(with(llama(), {{"model_type", "qwen3"}})).qk_norm == QkNorm::head);
  CHECK(parse(with(llama(), {{"model_type", "qwen3"}})).head_size() == 128);
  CHECK_FALSE(parse(llama()).attention_bias);
  const auto bare = [](const char* model_type) {
    json object = with(llama(), {{"model_type", model_type}, {"num_attention_heads", 16}});
    object.erase("num_key_value_heads");
    return parse(object);
  };
  // transformers' defaults.
  CHECK(bare("llama").key_heads() == 16);
  CHECK(bare("mistral").key_heads() == 8);
  CHECK(bare("mistral").max_positions == 131072);
  CHECK(bare("olmo2").norm_eps == 1e-5);
  CHECK(bare("olmo2").qk_norm == QkNorm::width);
  CHECK(bare("olmo2").norms == NormPlacement::behind);
  CHECK(bare("phi3").fused_projections);
  CHECK(bare("phi3").max_positions == 4096);
  CHECK(bare("smollm3").key_heads() == 4);
  CHECK(bare("smollm3").rope.theta == 2e6);
  CHECK(bare("smollm3").tie_embeddings);
  CHECK(parse(with(llama(), {{"model_type", "smollm3"}, {"num_hidden_layers", 4}})).unrotated ==
        std::vector<bool>{false, false, false, true});
  CHECK(bare("gemma3_text").key_heads() == 4);
  CHECK(bare("gemma3_text").head_size() == 256);
  CHECK(bare("gemma3_text").query_pre_attn_scalar == 256);
  CHECK(bare("gemma3_text").rope.theta == 1e6);
  CHECK(bare("gemma3_text").window_rope->theta == 1e4);
  CHECK(bare("gemma3_text").tie_embeddings);
  CHECK(bare("gemma3_text").norms == NormPlacement::around);
}

TEST_CASE("a layer by itself is what it is in its model", "[config]") {
  const CausalLmConfig gemma = test::small_config(Family::gemma3_text);
  CHECK(gemma.of_layer(0).window_of(0) == 5);
  CHECK(gemma.of_layer(0).rope.theta == 1e4);
  CHECK(gemma.of_layer(1).window_of(0) == 0);
  CHECK(gemma.of_layer(1).rope.theta == 1e6);
  const CausalLmConfig smollm3 = test::small_config(Family::smollm3);
  CHECK(smollm3.of_layer(0).rotates(0));
  CHECK_FALSE(smollm3.of_layer(1).rotates(0));
  CHECK_THROWS_AS(gemma.of_layer(2), Error);
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
  const json yarn = {
      {"rope_type", "yarn"},     {"factor", 4.0},    {"original_max_position_embeddings", 16},
      {"attention_factor", 1.5}, {"mscale", 1.0},    {"mscale_all_dim", 0.5},
      {"beta_fast", 16.0},       {"beta_slow", 2.0}, {"truncate", false}};
  const json longrope = {{"rope_type", "longrope"},
                         {"factor", 4.0},
                         {"original_max_position_embeddings", 512},
                         {"short_factor", {1.0, 1.5, 2.0, 2.5}},
                         {"long_factor", {2.0, 3.0, 4.0, 5.5}}};
  for (const json& object :
       {llama(), gpt2(), with(llama(), {{"model_type", "qwen2"}}),
        with(llama(), {{"rope_scaling", yarn}}),
        with(llama(), {{"rope_scaling", {{"rope_type", "dynamic"}, {"factor", 2.5}}},
                       {"max_position_embeddings", 100}}),
        with(llama(), {{"model_type", "phi3"},
                       {"rope_scaling", longrope},
                       {"original_max_position_embeddings", 512},
                       {"sliding_window", 100}}),
        with(llama(), {{"model_type", "mistral"}, {"sliding_window", 12}}),
        with(llama(), {{"model_type", "olmo2"}, {"attention_bias", true}}),
        with(llama(), {{"model_type", "smollm3"}, {"no_rope_layers", {0, 1}}}),
        with(llama(), {{"model_type", "smollm3"},
                       {"no_rope_layers", {0, 1}},
                       {"use_sliding_window", true},
                       {"sliding_window", 12},
                       {"layer_types", {"full_attention", "sliding_attention"}}}),
        with(llama(), {{"model_type", "qwen2"},
                       {"use_sliding_window", true},
                       {"sliding_window", 12},
                       {"layer_types", {"full_attention", "sliding_attention"}}}),
        with(llama(), {{"model_type", "gemma3_text"},
                       {"sliding_window", 12},
                       {"layer_types", {"full_attention", "sliding_attention"}},
                       {"query_pre_attn_scalar", 168},
                       {"rope_local_base_freq", 2e4},
                       {"rope_theta", 3e5},
                       {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}}),
        with(llama(), {{"model_type", "gemma3_text"},
                       {"sliding_window", nullptr},
                       {"layer_types", {"full_attention", "full_attention"}}}),
        with(llama(), {{"model_type", "qwen3"}, {"eos_token_id", {2, 3}}}),
        with(llama(), {{"rope_scaling", scaling}, {"mlp_bias", true}, {"attention_bias", true}}),
        with(gpt2(), {{"activation_function", "gelu"}, {"n_inner", 99}})}) {
    const std::string once = parse(object).to_json(DType::bf16);
    CHECK(CausalLmConfig::parse(once, "again").to_json(DType::bf16) == once);
    // What was given is there unchanged.
    for (const auto& [key, value] : object.items()) {
      INFO(key);
      CHECK(test::parsed(once).at(key) == value);
    }
    CHECK(test::parsed(once).at("torch_dtype") == "bfloat16");
  }
}

TEST_CASE("an unknown model type is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(llama(), {{"model_type", "mamba"}})),
                    Catch::Contains("'mamba'") && Catch::Contains("qwen3"));
}

TEST_CASE("an unknown rope type is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(
      parse(with(llama(), {{"rope_scaling", {{"rope_type", "axial"}, {"factor", 4.0}}}})),
      Catch::Contains("'axial'") && Catch::Contains("longrope"));
}

TEST_CASE("rope settings that do not fit together are refused by name", "[config][bad-input]") {
  const auto refused = [](const json& scaling, const char* word, json object = llama()) {
    INFO(scaling);
    CHECK_THROWS_WITH(parse(with(std::move(object), {{"rope_scaling", scaling}})),
                      Catch::Contains(word));
  };
  const json none = json::object();
  refused({{"rope_type", "linear"}}, "'factor' is missing");
  refused({{"rope_type", "dynamic"}, {"factor", 0.5}}, "dynamic");
  refused({{"rope_type", "dynamic"}, {"factor", 1e9}}, "dynamic");
  refused({{"rope_type", "yarn"}, {"factor", 4.0}, {"attention_factor", -1.0}}, "attention_factor");
  refused({{"rope_type", "yarn"}, {"factor", 4.0}, {"beta_fast", 1.0}, {"beta_slow", 2.0}},
          "beta_fast");
  refused({{"rope_type", "longrope"}, {"factor", 4.0}}, "4 numbers each");
  refused(
      {{"rope_type", "longrope"}, {"short_factor", {1, 1, 1, 1}}, {"long_factor", {1, 1, 0, 1}}},
      "must be positive");
  refused({{"rope_type", "linear"}, {"factor", 2.0}}, "phi3",
          with(llama(), {{"model_type", "phi3"}}));
  CHECK_THROWS_WITH(parse(with(llama(), {{"partial_rotary_factor", 0.5}})),
                    Catch::Contains("partial_rotary_factor") && Catch::Contains("phi3"));
  CHECK(parse(with(llama(), {{"model_type", "phi3"}, {"partial_rotary_factor", 0.5}}))
            .rope.partial_factor == 0.5);
  CHECK_THROWS_WITH(parse(with(llama(), {{"rope_parameters", {{"full_attention", none}}}})),
                    Catch::Contains("by layer type"));
}

TEST_CASE("a text may reach to where its rope type stretches it", "[config]") {
  const auto of = [](const json& scaling) {
    return parse(with(llama(), {{"max_position_embeddings", 100}, {"rope_scaling", scaling}}));
  };
  const CausalLmConfig dynamic = of({{"rope_type", "dynamic"}, {"factor", 2.5}});
  CHECK(dynamic.max_positions == 250);
  CHECK(dynamic.rope.original_max_positions == 100);
  CHECK(dynamic.longest_text(30) == 250);
  const CausalLmConfig longrope = of({{"rope_type", "longrope"},
                                      {"short_factor", {1, 1, 1, 1}},
                                      {"long_factor", {2, 2, 2, 2}},
                                      {"original_max_position_embeddings", 40}});
  CHECK(longrope.rope.factor == 2.5);  // 100 / 40
  CHECK(longrope.longest_text(40) == 40);
  CHECK(longrope.longest_text(41) == 100);
  // What stands beside rope_scaling counts, as in transformers.
  const CausalLmConfig outer = parse(with(
      llama(), {{"original_max_position_embeddings", 30},
                {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}, {"beta_fast", 0}}}}));
  CHECK(outer.rope.original_max_positions == 30);
  CHECK(outer.rope.beta_fast == 32);
  for (const char* old_name : {"su", "yarn"})
    CHECK(parse(with(llama(), {{"model_type", "phi3"},
                               {"rope_scaling",
                                {{"type", old_name},
                                 {"short_factor", {1, 1, 1, 1}},
                                 {"long_factor", {2, 2, 2, 2}}}}}))
              .rope.scaling == RopeScaling::longrope);
}

TEST_CASE("an unknown activation is refused by name", "[config][bad-input]") {
  CHECK_THROWS_WITH(parse(with(gpt2(), {{"activation_function", "mish"}})),
                    Catch::Contains("'mish'"));
  CHECK_THROWS_WITH(parse(with(llama(), {{"hidden_act", "gelu"}})), Catch::Contains("\"gelu\""));
}

TEST_CASE("windows are those of the family's keys", "[config]") {
  const auto windows = [](const json& object) {
    const CausalLmConfig config = parse(object);
    std::vector<int64_t> sizes;
    for (int64_t layer = 0; layer < config.layers; ++layer)
      sizes.push_back(config.window_of(layer));
    return sizes;
  };
  const auto of = [](const char* model_type, const json& more) {
    return with(with(llama(), {{"model_type", model_type}}), more);
  };
  using Sizes = std::vector<int64_t>;
  const json mixed = {"full_attention", "sliding_attention"};
  CHECK(windows(of("mistral", {{"sliding_window", 9}})) == Sizes{9, 9});
  CHECK(windows(of("mistral", json::object())) == Sizes{4096, 4096});
  CHECK(windows(of("mistral", {{"sliding_window", nullptr}})) == Sizes{0, 0});
  CHECK(windows(of("phi3", json::object())) == Sizes{0, 0});
  CHECK(windows(of("phi3", {{"sliding_window", 9}})) == Sizes{9, 9});
  const json qwen = {{"sliding_window", 9}, {"max_window_layers", 1}};
  CHECK(windows(of("qwen2", qwen)) == Sizes{0, 0});
  CHECK(windows(of("qwen2", with(qwen, {{"use_sliding_window", true}}))) == Sizes{0, 9});
  CHECK(windows(of("qwen3", {{"use_sliding_window", true},
                             {"sliding_window", 9},
                             {"layer_types", mixed}})) == Sizes{0, 9});
  CHECK(windows(of("smollm3", {{"no_rope_layers", {1, 0}},
                               {"use_sliding_window", true},
                               {"sliding_window", 9}})) == Sizes{0, 9});
  CHECK(windows(of("gemma3_text", {{"sliding_window", 9}, {"sliding_window_pattern", 2}})) ==
        Sizes{9, 0});
  CHECK(windows(of("gemma3_text", {{"sliding_window", 9}, {"layer_types", mixed}})) == Sizes{0, 9});
  CHECK(windows(llama()) == Sizes{0, 0});
}

TEST_CASE("windows and layer types that do not go together are refused by name",
          "[config][bad-input]") {
  const auto refused = [](const char* model_type, const json& more, const char* word) {
    INFO(model_type << ' ' << more);
    CHECK_THROWS_WITH(parse(with(with(llama(), {{"model_type", model_type}}), more)),
                      Catch::Contains(word));
  };
  const json sliding = {"sliding_attention", "sliding_attention"};
  const json mixed = {"full_attention", "sliding_attention"};
  refused("llama", {{"layer_types", sliding}}, "sliding_attention");
  refused("olmo2", {{"layer_types", mixed}}, "olmo2");
  refused("qwen2", {{"layer_types", sliding}, {"sliding_window", 9}}, "use_sliding_window");
  refused("qwen3", {{"layer_types", {"chunked_attention", "full_attention"}}}, "chunked_attention");
  refused("qwen3", {{"layer_types", {"sliding_attention"}}, {"use_sliding_window", true}},
          "names 1 layers");
  refused("mistral", {{"layer_types", mixed}}, "layer_types");
  refused("mistral", {{"sliding_window", 0}}, "sliding_window");
  refused("smollm3", {{"no_rope_layers", {1}}}, "no_rope_layers");
  refused("smollm3", {{"no_rope_layer_interval", 0}}, "no_rope_layer_interval");
  refused("gemma3_text", {{"sliding_window", nullptr}}, "sliding_window");
  refused("gemma3_text", {{"sliding_window_pattern", 0}}, "sliding_window_pattern");
}

TEST_CASE("each family refuses by name what it does not compute", "[config][bad-input]") {
  const auto refused = [](const char* model_type, const json& more, const char* word) {
    INFO(model_type << ' ' << more);
    CHECK_THROWS_WITH(parse(with(with(llama(), {{"model_type", model_type}}), more)),
                      Catch::Contains(word));
  };
  refused("mistral", {{"attention_bias", true}}, "attention_bias");
  refused("mistral", {{"mlp_bias", true}}, "mlp_bias");
  refused("phi3", {{"attention_bias", true}}, "attention_bias");
  refused("phi3", {{"resid_pdrop", 0.1}}, "resid_pdrop");
  refused("phi3", {{"embd_pdrop", 0.1}}, "embd_pdrop");
  refused("olmo2", {{"hidden_act", "gelu"}}, "hidden_act");
  refused("gemma3_text", {{"hidden_activation", "silu"}}, "gelu_pytorch_tanh");
  refused("gemma3_text", {{"final_logit_softcapping", 30.0}}, "final_logit_softcapping");
  refused("gemma3_text", {{"attn_logit_softcapping", 50.0}}, "attn_logit_softcapping");
  refused("gemma3_text", {{"use_bidirectional_attention", true}}, "use_bidirectional_attention");
  refused("gemma3_text", {{"query_pre_attn_scalar", 0}}, "query_pre_attn_scalar");
  refused("gemma3_text", {{"rope_parameters", {{"rope_theta", 1e4}}}}, "full_attention");
  refused(
      "gemma3_text",
      {{"rope_parameters", {{"sliding_attention", {{"rope_type", "linear"}, {"factor", 2.0}}}}}},
      "rope_type");
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
    json object = test::parsed(test::small_config(Family::llama).to_json(DType::f32));
    object[key] = test::parsed(id);
    const test::ExpectWarning expected(concat(key, " names the token ", id));
    const CausalLmConfig config = parse(object);
    CHECK(config.bos_ids.empty());
    CHECK(config.eos_ids.empty());
    CHECK(config.pad_ids.empty());
  }
  json object = test::parsed(test::small_config(Family::llama).to_json(DType::f32));
  object["eos_token_id"] = {2, 100, 3};
  const test::ExpectWarning expected("eos_token_id names the token 100");
  CHECK(parse(object).eos_ids == std::vector<int64_t>{2, 3});
}

TEST_CASE("numbers beyond 64 bits are refused by name", "[config][bad-input]") {
  json object = test::parsed(test::small_config(Family::llama).to_json(DType::f32));
  for (const char* key : {"eos_token_id", "vocab_size", "num_hidden_layers"}) {
    json changed = object;
    changed[key] = uint64_t{18446744073709551615u};
    CHECK_THROWS_WITH(parse(changed), Catch::Contains(key));
  }
}
