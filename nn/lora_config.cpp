#include <binade/nn/lora_config.h>

#include <algorithm>

#include <binade/core/file.h>
#include <binade/nn/json_reader.h>

namespace binade::nn {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// What is done with a key of PEFT's LoraConfig (0.21; older versions know a part of them).
enum class Use {
  computed,  // read below
  ignored,   // changes no number of a saved adapter
  refused,   // unless it says nothing: null, false, an empty text, list or object
};
struct Key {
  const char* name;
  Use use;
};
constexpr Key kKeys[] = {
    {"peft_type", Use::computed},
    {"task_type", Use::computed},
    {"r", Use::computed},
    {"lora_alpha", Use::computed},
    {"lora_dropout", Use::computed},
    {"use_rslora", Use::computed},
    {"target_modules", Use::computed},
    {"exclude_modules", Use::computed},
    {"layers_to_transform", Use::computed},
    {"layers_pattern", Use::computed},
    {"rank_pattern", Use::computed},
    {"alpha_pattern", Use::computed},
    {"bias", Use::computed},
    {"init_lora_weights", Use::computed},

    {"auto_mapping", Use::ignored},  // classes of Python
    {"base_model_name_or_path", Use::ignored},
    {"revision", Use::ignored},
    {"peft_version", Use::ignored},
    {"inference_mode", Use::ignored},
    {"fan_in_fan_out", Use::ignored},  // PEFT corrects it by the layer's class
    {"megatron_core", Use::ignored},   // without megatron_config
    {"runtime_config", Use::ignored},
    {"qalora_group_size", Use::ignored},  // without use_qalora
    {"loftq_config", Use::ignored},       // of initialisations: see init_lora_weights
    {"eva_config", Use::ignored},
    {"corda_config", Use::ignored},
    {"lora_ga_config", Use::ignored},
    {"ensure_weight_tying", Use::ignored},  // of adapters on embeddings, which are refused

    {"use_dora", Use::refused},
    {"lora_bias", Use::refused},
    {"modules_to_save", Use::refused},
    {"target_parameters", Use::refused},
    {"trainable_token_indices", Use::refused},
    {"layer_replication", Use::refused},
    {"megatron_config", Use::refused},
    {"alora_invocation_tokens", Use::refused},
    {"use_qalora", Use::refused},
    {"use_bdlora", Use::refused},
    {"arrow_config", Use::refused},
    {"kasa_config", Use::refused},
    {"velora_config", Use::refused},
    {"monteclora_config", Use::refused},
};

bool says_nothing(const json& value) {
  return value.is_null() || value == false ||
         (value.is_string() && value.get_ref<const std::string&>().empty()) ||
         (value.is_structured() && value.empty());
}

void check_keys(const JsonReader& reader) {
  for (const auto& [name, value] : reader.object().items()) {
    const std::string& key = name;  // clang 14 cannot capture a structured binding
    const auto* known = std::find_if(std::begin(kKeys), std::end(kKeys),
                                     [&](const Key& entry) { return key == entry.name; });
    if (known != std::end(kKeys) && known->use != Use::refused) continue;
    if (says_nothing(value)) continue;
    if (known == std::end(kKeys))
      reader.refuse("the key '", key, "' (", value.dump().substr(0, 40),
                    ") is not known, so what it changes cannot be computed");
    reader.refuse("'", key, "' is not supported, found ", value.dump().substr(0, 40));
  }
}

// Loading an adapter runs its initialisation in PEFT. These leave the weights below it alone, and
// what they draw is replaced by the file's values.
void check_initialisation(const JsonReader& reader) {
  constexpr const char* kKey = "init_lora_weights";
  if (!reader.has(kKey) || reader[kKey].is_boolean()) return;
  const auto name = reader.get<std::string>(kKey, "");
  for (const char* harmless : {"gaussian", "eva", "orthogonal", "mica"})
    if (name == harmless) return;
  reader.refuse("'", kKey, "': \"", name,
                "\" changes the weights that the adapter was trained on; ",
                "convert it with PEFT (save_pretrained, path_initial_model_for_weight_conversion)");
}

// A text is a pattern, a list is names.
void read_modules(const JsonReader& reader, const char* key, std::vector<std::string>& names,
                  std::string& pattern) {
  if (reader.has(key) && reader[key].is_string())
    pattern = reader.get<std::string>(key, "");
  else
    names = reader.list<std::string>(key);
}

// The pairs of an object in the file's order, of which the first that matches counts.
template <class Value>
std::vector<std::pair<std::string, Value>> read_pattern(const JsonReader& reader,
                                                        const ordered_json& file, const char* key) {
  std::vector<std::pair<std::string, Value>> pairs;
  const std::optional<JsonReader> values = reader.child(key);
  if (!values) return pairs;
  for (const auto& item : file.at(key).items())
    pairs.emplace_back(item.key(), values->require<Value>(item.key().c_str()));
  return pairs;
}

template <class Value>
ordered_json object_of(const std::vector<std::pair<std::string, Value>>& pairs) {
  ordered_json object = ordered_json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}

}  // namespace

LoraOptions read_lora_config(const std::filesystem::path& path) {
  constexpr int64_t kLargest = 1 << 20;  // bytes
  const std::string text = read_text_file(path, kLargest);
  const JsonReader reader = JsonReader::parse(text, path.string());
  reader.supports_only<std::string>("peft_type", "LORA");
  reader.supports_only<std::string>("task_type", "CAUSAL_LM");
  reader.supports_only<std::string>("bias", "none");
  check_keys(reader);
  check_initialisation(reader);

  LoraOptions options;
  options.rank = reader.get("r", options.rank);
  options.alpha = reader.get("lora_alpha", 8.0);  // PEFT's default, not this library's
  options.dropout = reader.get("lora_dropout", 0.0);
  options.rank_stabilised = reader.get("use_rslora", false);
  read_modules(reader, "target_modules", options.target_modules, options.target_pattern);
  if (reader.has("target_modules") && options.target_modules.empty() &&
      options.target_pattern.empty())
    reader.refuse("'target_modules' is empty");
  read_modules(reader, "exclude_modules", options.exclude_modules, options.exclude_pattern);
  options.layers_to_transform = reader.list<int64_t>("layers_to_transform");
  options.layers_pattern = reader.list<std::string>("layers_pattern");
  if (options.layers_pattern == std::vector<std::string>{""} &&
      !reader["layers_pattern"].is_array())
    options.layers_pattern.clear();  // to PEFT an empty text is none
  const auto in_order = parse_json<ordered_json>(text, path.string());
  options.rank_pattern = read_pattern<int64_t>(reader, in_order, "rank_pattern");
  options.alpha_pattern = read_pattern<double>(reader, in_order, "alpha_pattern");
  return options;
}

std::string lora_config_json(const LoraOptions& options, const std::string& base_model,
                             bool transposed) {
  const auto modules = [](const std::vector<std::string>& names, const std::string& pattern) {
    return !pattern.empty() ? ordered_json(pattern)
           : names.empty()  ? ordered_json()
                            : ordered_json(names);
  };
  const auto list = [](const auto& values) {
    return values.empty() ? ordered_json() : ordered_json(values);
  };
  const ordered_json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path",
       base_model.empty() ? ordered_json() : ordered_json(valid_utf8(base_model))},
      {"r", options.rank},
      {"lora_alpha", options.alpha},
      {"lora_dropout", options.dropout},
      {"use_rslora", options.rank_stabilised},
      {"target_modules", modules(options.target_modules, options.target_pattern)},
      {"exclude_modules", modules(options.exclude_modules, options.exclude_pattern)},
      {"layers_to_transform", list(options.layers_to_transform)},
      {"layers_pattern", list(options.layers_pattern)},
      {"rank_pattern", object_of(options.rank_pattern)},
      {"alpha_pattern", object_of(options.alpha_pattern)},
      {"bias", "none"},
      {"fan_in_fan_out", transposed},
      {"inference_mode", true},
  };
  return config.dump(2) + "\n";
}

}  // namespace binade::nn
