#include <binade/nn/models/families.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include <binade/nn/models/rope_keys.h>

namespace binade::nn {
namespace {

using nlohmann::json;

constexpr const char* kWindowed = "sliding_attention";
constexpr const char* kFull = "full_attention";
constexpr const char* kAct = "hidden_act";

constexpr std::array kRows = {
    FamilyRow{Family::gpt2, "gpt2", "GPT2LMHeadModel", 1024, 1e-5, 10000, 0, 0, true, false, false,
              WindowKeys::none, 0, nullptr},
    FamilyRow{Family::llama, "llama", "LlamaForCausalLM", 2048, 1e-6, 10000, 0, 0, false, true,
              true, WindowKeys::none, 0, kAct},
    FamilyRow{Family::qwen2, "qwen2", "Qwen2ForCausalLM", 32768, 1e-6, 10000, 0, 0, false, false,
              false, WindowKeys::switched, 4096, kAct},
    FamilyRow{Family::qwen3, "qwen3", "Qwen3ForCausalLM", 32768, 1e-6, 10000, 0, 128, false, true,
              false, WindowKeys::switched, 4096, kAct},
    FamilyRow{Family::mistral, "mistral", "MistralForCausalLM", 131072, 1e-6, 10000, 8, 0, false,
              false, false, WindowKeys::every, 4096, kAct},
    FamilyRow{Family::olmo2, "olmo2", "Olmo2ForCausalLM", 2048, 1e-5, 10000, 0, 0, false, true,
              false, WindowKeys::none, 0, kAct},
    FamilyRow{Family::phi3, "phi3", "Phi3ForCausalLM", 4096, 1e-5, 10000, 0, 0, false, false, false,
              WindowKeys::every, 0, kAct, Activation::silu, "silu", /*rotates_in_part=*/true},
    FamilyRow{Family::smollm3, "smollm3", "SmolLM3ForCausalLM", 32768, 1e-6, 2e6, 4, 0, true, true,
              true, WindowKeys::by_rope, 0, kAct},
    FamilyRow{Family::gemma3_text, "gemma3_text", "Gemma3ForCausalLM", 131072, 1e-6, 1e6, 4, 256,
              true, true, false, WindowKeys::by_pattern, 4096, "hidden_activation",
              Activation::gelu_tanh, "gelu_pytorch_tanh"},
};

// "layer_types", of which all must be known; undefined: it is not there.
std::optional<std::vector<bool>> parse_layer_types(const JsonReader& reader, int64_t layers) {
  if (!reader.has("layer_types")) return std::nullopt;
  std::vector<bool> windowed;
  for (const auto& type : reader.list<std::string>("layer_types")) {
    if (type != kWindowed && type != kFull)
      reader.refuse("layer_types: \"", type, "\" is not supported, only \"", kFull, "\" and \"",
                    kWindowed, "\"");
    windowed.push_back(type == kWindowed);
  }
  if (static_cast<int64_t>(windowed.size()) != layers)
    reader.refuse("layer_types names ", windowed.size(), " layers, the model has ", layers);
  return windowed;
}

bool any(const std::vector<bool>& flags) {
  return std::find(flags.begin(), flags.end(), true) != flags.end();
}

std::vector<bool> by_layer(int64_t layers, const auto& is) {
  std::vector<bool> flags;
  for (int64_t layer = 0; layer < layers; ++layer) flags.push_back(is(layer));
  return flags;
}

// Which layers have a window where layer_types does not say so.
std::vector<bool> usual_windows(const JsonReader& reader, const CausalLmConfig& config,
                                WindowKeys keys) {
  if (keys == WindowKeys::switched) {
    const auto first = reader.get<int64_t>("max_window_layers", 28);
    return by_layer(config.layers, [&](int64_t layer) { return layer >= first; });
  }
  if (keys == WindowKeys::by_rope)
    return by_layer(config.layers, [&](int64_t layer) { return !config.rotates(layer); });
  const auto pattern = reader.get<int64_t>("sliding_window_pattern", 6);
  if (pattern < 1) reader.refuse("'sliding_window_pattern' is ", pattern, ", expected 1 or more");
  return by_layer(config.layers, [&](int64_t layer) { return (layer + 1) % pattern != 0; });
}

void parse_windows(const JsonReader& reader, const FamilyRow& row, CausalLmConfig& config) {
  const std::optional<std::vector<bool>> given = parse_layer_types(reader, config.layers);
  const bool is_null = reader.object().contains("sliding_window") && !reader.has("sliding_window");
  const auto size = is_null ? 0 : reader.get<int64_t>("sliding_window", row.window);
  if (reader.has("sliding_window") && size <= 0)
    reader.refuse("'sliding_window' is ", size, ", expected 1 or more, or null");
  const bool switched = row.windows == WindowKeys::switched || row.windows == WindowKeys::by_rope;
  const bool in_use = row.windows != WindowKeys::none && size > 0 &&
                      (!switched || reader.get("use_sliding_window", false));
  if (!in_use) {
    if (!given && row.windows == WindowKeys::by_pattern)
      reader.refuse("'sliding_window': null is not supported in model_type '", row.model_type,
                    "', but where layer_types has \"", kFull, "\" alone");
    if (given && any(*given))
      reader.refuse("layer_types has \"", kWindowed, "\", but no window is in use ",
                    row.windows == WindowKeys::none ? concat("in model_type '", row.model_type, "'")
                    : switched                      ? "('use_sliding_window', 'sliding_window')"
                                                    : "('sliding_window')");
    return;
  }
  if (row.windows == WindowKeys::every) {
    if (given && *given != std::vector<bool>(given->size(), true))
      reader.refuse("layer_types other than all \"", kWindowed, "\" are not supported in ",
                    "model_type '", row.model_type, "', whose layers all have the window");
    config.window = size;
    return;
  }
  config.windowed = given ? *given : usual_windows(reader, config, row.windows);
  config.window = size;
}

// SmolLM3: every fourth layer knows no positions.
void parse_unrotated(const JsonReader& reader, CausalLmConfig& config) {
  if (reader.has("no_rope_layers")) {
    const auto rotated = reader.list<int64_t>("no_rope_layers");
    if (static_cast<int64_t>(rotated.size()) < config.layers)
      reader.refuse("no_rope_layers has ", rotated.size(), " numbers, the model ", config.layers,
                    " layers");
    config.unrotated = by_layer(
        config.layers, [&](int64_t layer) { return rotated[static_cast<size_t>(layer)] == 0; });
    return;
  }
  const auto interval = reader.get<int64_t>("no_rope_layer_interval", 4);
  if (interval < 1) reader.refuse("'no_rope_layer_interval' is ", interval, ", expected 1 or more");
  config.unrotated =
      by_layer(config.layers, [&](int64_t layer) { return (layer + 1) % interval == 0; });
}

void parse_phi3(const JsonReader& reader, CausalLmConfig& config) {
  reader.supports_only("resid_pdrop", 0.0);
  reader.supports_only("embd_pdrop", 0.0);
  if (config.rope.scaling != RopeScaling::none && config.rope.scaling != RopeScaling::longrope)
    reader.refuse("the rope_type '", name_of(config.rope.scaling),
                  "' is not supported in model_type 'phi3', only default and longrope");
}

void parse_gemma3(const JsonReader& reader, CausalLmConfig& config) {
  reader.supports_only("use_bidirectional_attention", false);
  for (const char* cap : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (reader.has(cap))
      reader.refuse("'", cap, "': ", reader[cap].dump(), " is not supported, only null");
  config.query_pre_attn_scalar = reader.get<int64_t>("query_pre_attn_scalar", 256);
  if (config.query_pre_attn_scalar <= 0)
    reader.refuse("'query_pre_attn_scalar' is ", config.query_pre_attn_scalar,
                  ", expected 1 or more");
  config.window_rope = parse_window_rope(reader);
}

json list_of(const std::vector<bool>& flags, const json& where_set, const json& otherwise) {
  json list = json::array();
  for (const bool flag : flags) list.push_back(flag ? where_set : otherwise);
  return list;
}

void write_windows(const CausalLmConfig& config, const FamilyRow& row, json& object) {
  const json size = config.window > 0 ? json(config.window) : json();
  switch (row.windows) {
    case WindowKeys::none:
      return;
    case WindowKeys::every:
      object["sliding_window"] = size;
      return;
    case WindowKeys::switched:
    case WindowKeys::by_rope:
      object["use_sliding_window"] = config.window > 0;
      if (config.window == 0) return;
      break;
    case WindowKeys::by_pattern:
      break;
  }
  object["sliding_window"] = size;
  object["layer_types"] =
      list_of(by_layer(config.layers, [&](int64_t layer) { return config.window_of(layer) > 0; }),
              kWindowed, kFull);
}

}  // namespace

const FamilyRow& row_of(Family family) {
  return kRows[static_cast<size_t>(family)];
}

const FamilyRow* find_family(std::string_view model_type) {
  const auto* row = std::find_if(kRows.begin(), kRows.end(), [&](const FamilyRow& known) {
    return model_type == known.model_type;
  });
  return row == kRows.end() ? nullptr : row;
}

std::string family_names() {
  std::string names;
  for (const FamilyRow& row : kRows)
    names += concat(names.empty() ? "" : ", ", row.model_type,
                    row.family == Family::llama ? " (SmolLM2 too)" : "");
  return names;
}

void parse_decoder(const JsonReader& reader, CausalLmConfig& config) {
  const FamilyRow& row = row_of(config.family);
  config.dim = reader.require<int64_t>("hidden_size");
  config.layers = reader.require<int64_t>("num_hidden_layers");
  config.heads = reader.require<int64_t>("num_attention_heads");
  // null: as many as heads.
  const bool no_kv_heads =
      reader.object().contains("num_key_value_heads") && !reader.has("num_key_value_heads");
  config.kv_heads = no_kv_heads ? 0 : reader.get<int64_t>("num_key_value_heads", row.kv_heads);
  config.head_dim = reader.get<int64_t>("head_dim", config.head_dim);
  config.hidden = reader.require<int64_t>("intermediate_size");
  config.max_positions = reader.get<int64_t>("max_position_embeddings", row.max_positions);
  config.norm_eps = reader.get("rms_norm_eps", config.norm_eps);
  config.attention_dropout = reader.get("attention_dropout", 0.0);
  constexpr int64_t kMostLayers = 1 << 16;  // some keys are lists of so many
  if (config.layers < 1 || config.layers > kMostLayers)
    reader.refuse("'num_hidden_layers' is ", config.layers, ", which is no possible size");
  config.rope = parse_rope(reader, row, config);
  if (row.has_attention_bias)
    config.attention_bias = config.attention_output_bias = reader.get("attention_bias", false);
  else if (config.family != Family::qwen2)
    reader.supports_only("attention_bias", false);
  if (row.has_mlp_bias)
    config.mlp_bias = reader.get("mlp_bias", false);
  else
    reader.supports_only("mlp_bias", false);
  if (const auto act = reader.get<std::string>(row.activation, row.gate_name);
      act != row.gate_name && !(row.gate == Activation::silu && act == "swish"))
    reader.refuse("the activation ", reader[row.activation].dump(), " (", row.activation,
                  ") is not supported in model_type '", row.model_type, "', only \"", row.gate_name,
                  "\"");
  reader.supports_only("rope_interleaved", false);
  if (config.family == Family::smollm3) parse_unrotated(reader, config);
  parse_windows(reader, row, config);
  if (config.family == Family::phi3) parse_phi3(reader, config);
  if (config.family == Family::gemma3_text) parse_gemma3(reader, config);
}

json write_decoder(const CausalLmConfig& config) {
  const FamilyRow& row = row_of(config.family);
  json object = {
      {"hidden_size", config.dim},           {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads}, {"num_key_value_heads", config.key_heads()},
      {"head_dim", config.head_size()},      {"intermediate_size", config.hidden_size()},
      {"rms_norm_eps", config.norm_eps},     {"attention_dropout", config.attention_dropout},
      {row.activation, row.gate_name},
  };
  write_rope(config, object);
  if (row.has_attention_bias) object["attention_bias"] = config.attention_bias;
  if (row.has_mlp_bias) object["mlp_bias"] = config.mlp_bias;
  if (config.family == Family::smollm3)
    object["no_rope_layers"] = list_of(
        by_layer(config.layers, [&](int64_t layer) { return config.rotates(layer); }), 1, 0);
  write_windows(config, row, object);
  if (config.family == Family::gemma3_text)
    object["query_pre_attn_scalar"] =
        config.query_pre_attn_scalar ? config.query_pre_attn_scalar : config.head_size();
  return object;
}

}  // namespace binade::nn
