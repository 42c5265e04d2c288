// What config.json of a family cannot say is refused by name instead of being lost.
#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/error.h>
#include <binade/nn/models/causal_lm.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;

namespace {

CausalLmConfig reread(const CausalLmConfig& config) {
  return CausalLmConfig::parse(config.to_json(DType::f32), "config.json");
}

// Another value of a field, that of no family.
void change(int64_t& value) {
  value += value == 0 ? 6 : value;
}
void change(double& value) {
  value = value == 0 ? 0.5 : value / 2;
}
void change(bool& value) {
  value = !value;
}
void change(std::vector<bool>& flags) {
  flags.resize(2);
  flags[0] = !flags[0];
}
void change(std::vector<int64_t>& ids) {
  ids.push_back(7);
}
template <class Enum>
requires std::is_enum_v<Enum>
void change(Enum& value) {
  value = static_cast<Enum>(value == Enum{} ? 1 : 0);
}
void change(RopeConfig& rope) {
  rope.theta *= 2;
}
void change(std::optional<RopeConfig>& rope) {
  rope = RopeConfig{.theta = 777};
}
void change(GenerationConfig&) {}

bool same(const std::optional<RopeConfig>& a, const std::optional<RopeConfig>& b) {
  return a && b && a->theta == b->theta && a->scaling == b->scaling;
}
bool same(const RopeConfig& a, const RopeConfig& b) {
  return a.theta == b.theta && a.scaling == b.scaling;
}
bool same(const GenerationConfig&, const GenerationConfig&) {
  return true;
}
bool same(const auto& a, const auto& b) {
  return a == b;
}

// All fields in the order of their declaration; a new one does not compile until it is here.
auto fields_of(CausalLmConfig& config) {
  auto& [family, vocab_size, dim, layers, heads, kv_heads, head_dim, hidden, max_positions,
         norm_eps, initializer_range, tie_embeddings, attention_dropout, activation, rope,
         window_rope, unrotated, window, windowed, attention_bias, attention_output_bias, mlp_bias,
         fused_projections, qk_norm, norms, norm_from_one, query_pre_attn_scalar, scale_embedding,
         embedding_dropout, residual_dropout, scale_attention, scale_attention_by_inverse_layer,
         bos_ids, eos_ids, pad_ids, generation] = config;
  return std::tie(vocab_size, dim, layers, heads, kv_heads, head_dim, hidden, max_positions,
                  norm_eps, initializer_range, tie_embeddings, attention_dropout, activation, rope,
                  window_rope, unrotated, window, windowed, attention_bias, attention_output_bias,
                  mlp_bias, fused_projections, qk_norm, norms, norm_from_one, query_pre_attn_scalar,
                  scale_embedding, embedding_dropout, residual_dropout, scale_attention,
                  scale_attention_by_inverse_layer, bos_ids, eos_ids, pad_ids, generation);
}
constexpr std::array kFieldNames = {"vocab_size",
                                    "dim",
                                    "layers",
                                    "heads",
                                    "kv_heads",
                                    "head_dim",
                                    "hidden",
                                    "max_positions",
                                    "norm_eps",
                                    "initializer_range",
                                    "tie_embeddings",
                                    "attention_dropout",
                                    "activation",
                                    "rope",
                                    "window_rope",
                                    "unrotated",
                                    "window",
                                    "windowed",
                                    "attention_bias",
                                    "attention_output_bias",
                                    "mlp_bias",
                                    "fused_projections",
                                    "qk_norm",
                                    "norms",
                                    "norm_from_one",
                                    "query_pre_attn_scalar",
                                    "scale_embedding",
                                    "embedding_dropout",
                                    "residual_dropout",
                                    "scale_attention",
                                    "scale_attention_by_inverse_layer",
                                    "bos_ids",
                                    "eos_ids",
                                    "pad_ids",
                                    "generation"};

// The names of the fields that a family's config.json cannot say.
template <size_t... I>
std::vector<std::string> refused_fields(Family family, std::index_sequence<I...>) {
  std::vector<std::string> refused;
  const auto one = [&]<size_t index>(std::integral_constant<size_t, index>) {
    const std::string name = kFieldNames[index];
    INFO(name_of(family) << ": " << name);
    CausalLmConfig config = reread(test::small_config(family));
    const bool by_layer = name == "windowed" || name == "window_rope";
    if (by_layer && config.window == 0) config.window = 5;  // without windows it says nothing
    if (by_layer && name == "window_rope") config.windowed.assign(2, true);
    if (name == "layers") config.windowed = config.unrotated = {};
    change(std::get<index>(fields_of(config)));
    try {
      config.validate();
    } catch (const Error& error) {
      const std::string what = error.what();
      // Sizes that do not fit together are not the question here.
      INFO(what);
      if (name == "dim" || name == "heads" || name == "kv_heads" || name == "head_dim") return;
      const std::string word = by_layer                   ? "'window"
                               : name == "attention_bias" ? "_bias'"
                                                          : "'" + name;
      CHECK(what.find(word) != std::string::npos);
      refused.push_back(name);
      return;
    }
    CausalLmConfig again = reread(config);
    if (name == "layers") again.windowed = again.unrotated = {};
    CHECK(same(std::get<index>(fields_of(again)), std::get<index>(fields_of(config))));
  };
  (one(std::integral_constant<size_t, I>{}), ...);
  return refused;
}

}  // namespace

TEST_CASE("a field is written to config.json or refused by name", "[config]") {
  using Names = std::vector<std::string>;
  constexpr size_t kCount = std::tuple_size_v<decltype(fields_of(std::declval<CausalLmConfig&>()))>;
  static_assert(kCount == kFieldNames.size());
  const auto refused = [](Family family) {
    return refused_fields(family, std::make_index_sequence<kCount>{});
  };
  for (const Family family : test::kFamilies) CHECK(!refused(family).empty());
  CHECK(refused(Family::llama) ==
        Names{"activation", "window_rope", "unrotated", "window", "windowed", "attention_bias",
              "attention_output_bias", "fused_projections", "qk_norm", "norms", "norm_from_one",
              "query_pre_attn_scalar", "scale_embedding", "embedding_dropout", "residual_dropout",
              "scale_attention", "scale_attention_by_inverse_layer"});
}

TEST_CASE("what config.json of a family cannot say is refused", "[config][bad-input]") {
  const auto refused = [](Family family, const char* word, const auto& set) {
    CausalLmConfig config = test::small_config(family);
    set(config);
    INFO(name_of(family) << ' ' << word);
    CHECK_THROWS_WITH(config.validate(), Catch::Contains(word));
    CHECK_THROWS_WITH(make_causal_lm(config), Catch::Contains(word));
  };
  for (const Family family : {Family::gpt2, Family::llama, Family::olmo2})
    refused(family, "'window'", [](CausalLmConfig& c) { c.window = 64; });
  for (const Family family : {Family::mistral, Family::phi3})
    refused(family, "'windowed'", [](CausalLmConfig& c) {
      c.window = 64;
      c.windowed = {true, false};
    });
  for (const Family family : {Family::llama, Family::gemma3_text, Family::smollm3})
    refused(family, "partial_rotary_factor",
            [](CausalLmConfig& c) { c.rope.partial_factor = 0.5; });
  refused(Family::gpt2, "'rope.scaling'",
          [](CausalLmConfig& c) { c.rope = {.scaling = RopeScaling::linear, .factor = 2}; });
  refused(Family::llama, "'rope.factor'", [](CausalLmConfig& c) { c.rope.factor = 2; });
  refused(Family::phi3, "'rope.scaling'", [](CausalLmConfig& c) {
    c.rope = {.scaling = RopeScaling::yarn, .factor = 2, .original_max_positions = 24};
  });
  // Positions of "dynamic" are the original ones and the factor.
  refused(Family::llama, "'max_positions'", [](CausalLmConfig& c) {
    c.rope = {.scaling = RopeScaling::dynamic, .factor = 4, .original_max_positions = 24};
  });
  refused(Family::gemma3_text, "'window_rope.scaling'", [](CausalLmConfig& c) {
    c.rope = {.scaling = RopeScaling::linear, .factor = 8};
    c.window_rope.reset();  // windowed layers are stretched, too
  });
}

TEST_CASE("a model of one layer is written as it is", "[config]") {
  for (const Family family : test::kFamilies)
    for (int64_t layer = 0; layer < 2; ++layer) {
      CausalLmConfig config = test::small_config(family);
      if (config.window_rope) {
        config.rope = {.theta = 3e5, .scaling = RopeScaling::linear, .factor = 8};
        config.window_rope->theta = 2e4;
      }
      INFO(name_of(family) << ", layer " << layer);
      const CausalLmConfig one = config.of_layer(layer);
      REQUIRE_NOTHROW(one.validate());
      const CausalLmConfig again = reread(one);
      CHECK(again.window_of(0) == config.window_of(layer));
      CHECK(again.rotates(0) == config.rotates(layer));
      CHECK(again.rope_of(0).theta == config.rope_of(layer).theta);
      CHECK(again.rope_of(0).scaling == config.rope_of(layer).scaling);
    }
}
