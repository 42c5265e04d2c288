#include <binade/nn/models/config_difference.h>

#include <algorithm>
#include <tuple>
#include <utility>

namespace binade::nn {
namespace {

template <class Owner, class Value>
struct Field {
  const char* name;
  Value Owner::*member;
};
template <class Owner, class Value>
Field(const char*, Value Owner::*) -> Field<Owner, Value>;

using Config = CausalLmConfig;

constexpr std::tuple kRopeFields = {
    Field{"scaling", &RopeConfig::scaling},
    Field{"theta", &RopeConfig::theta},
    Field{"partial_factor", &RopeConfig::partial_factor},
    Field{"factor", &RopeConfig::factor},
    Field{"low_freq_factor", &RopeConfig::low_freq_factor},
    Field{"high_freq_factor", &RopeConfig::high_freq_factor},
    Field{"beta_fast", &RopeConfig::beta_fast},
    Field{"beta_slow", &RopeConfig::beta_slow},
    Field{"truncate", &RopeConfig::truncate},
    Field{"mscale", &RopeConfig::mscale},
    Field{"mscale_all_dim", &RopeConfig::mscale_all_dim},
    Field{"attention_factor", &RopeConfig::attention_factor},
    Field{"short_factor", &RopeConfig::short_factor},
    Field{"long_factor", &RopeConfig::long_factor},
    Field{"original_max_positions", &RopeConfig::original_max_positions},
};

constexpr std::tuple kFields = {
    Field{"family", &Config::family},
    Field{"vocab_size", &Config::vocab_size},
    Field{"dim", &Config::dim},
    Field{"layers", &Config::layers},
    Field{"heads", &Config::heads},
    Field{"kv_heads", &Config::kv_heads},
    Field{"head_dim", &Config::head_dim},
    Field{"hidden", &Config::hidden},
    Field{"norm_eps", &Config::norm_eps},
    Field{"initializer_range", &Config::initializer_range},
    Field{"tie_embeddings", &Config::tie_embeddings},
    Field{"attention_dropout", &Config::attention_dropout},
    Field{"activation", &Config::activation},
    Field{"rope", &Config::rope},
    Field{"max_positions", &Config::max_positions},
    Field{"window", &Config::window},
    Field{"windowed", &Config::windowed},
    Field{"window_rope", &Config::window_rope},
    Field{"unrotated", &Config::unrotated},
    Field{"attention_bias", &Config::attention_bias},
    Field{"attention_output_bias", &Config::attention_output_bias},
    Field{"mlp_bias", &Config::mlp_bias},
    Field{"fused_projections", &Config::fused_projections},
    Field{"qk_norm", &Config::qk_norm},
    Field{"norms", &Config::norms},
    Field{"norm_from_one", &Config::norm_from_one},
    Field{"query_pre_attn_scalar", &Config::query_pre_attn_scalar},
    Field{"scale_embedding", &Config::scale_embedding},
    Field{"embedding_dropout", &Config::embedding_dropout},
    Field{"residual_dropout", &Config::residual_dropout},
    Field{"scale_attention", &Config::scale_attention},
    Field{"scale_attention_by_inverse_layer", &Config::scale_attention_by_inverse_layer},
    Field{"bos_ids", &Config::bos_ids},
    Field{"eos_ids", &Config::eos_ids},
    Field{"pad_ids", &Config::pad_ids},
};

// A new field does not compile until it is counted here, and then only with a row above.
[[maybe_unused]] void every_field_has_a_row(const Config& config, const RopeConfig& rope) {
  [[maybe_unused]] const auto& [c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15,
                                c16, c17, c18, c19, c20, c21, c22, c23, c24, c25, c26, c27, c28,
                                c29, c30, c31, c32, c33, c34, c35, generation] = config;
  static_assert(std::tuple_size_v<decltype(kFields)> == 35);
  [[maybe_unused]] const auto& [r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15] =
      rope;
  static_assert(std::tuple_size_v<decltype(kRopeFields)> == 15);
}

template <class Value>
std::string difference(const char* name, const Value& a, const Value& b) {
  return a == b ? "" : name;
}
std::string difference(const char* name, const RopeConfig& a, const RopeConfig& b);
std::string difference(const char* name, const std::optional<RopeConfig>& a,
                       const std::optional<RopeConfig>& b) {
  if (a && b) return difference(name, *a, *b);
  return a || b ? name : "";
}

template <class Owner, class Fields>
std::string first_of(const Owner& a, const Owner& b, const Fields& fields) {
  std::string first;
  std::apply(
      [&](const auto&... field) {
        ((first.empty() ? void(first = difference(field.name, a.*field.member, b.*field.member))
                        : void()),
         ...);
      },
      fields);
  return first;
}

std::string difference(const char* name, const RopeConfig& a, const RopeConfig& b) {
  const std::string inner = first_of(a, b, kRopeFields);
  return inner.empty() ? "" : concat(name, '.', inner);
}

// The same model with nothing left to a default.
Config in_full(Config config) {
  config.kv_heads = config.key_heads();
  config.head_dim = config.head_size();
  config.hidden = config.hidden_size();
  if (config.query_pre_attn_scalar == 0) config.query_pre_attn_scalar = config.head_dim;
  std::vector<bool> windowed, unrotated;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    windowed.push_back(config.window_of(layer) > 0);
    unrotated.push_back(!config.rotates(layer));
  }
  const bool has_windows = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
  if (!has_windows) {
    config.window = 0;
    config.window_rope.reset();
  } else if (!config.window_rope) {
    config.window_rope = config.rope;
  }
  config.windowed = std::move(windowed);
  config.unrotated = std::move(unrotated);
  return config;
}

}  // namespace

std::string first_difference(const CausalLmConfig& a, const CausalLmConfig& b) {
  return first_of(in_full(a), in_full(b), kFields);
}

}  // namespace binade::nn
