#include <binade/nn/models/config.h>

#include <algorithm>
#include <array>
#include <optional>

#include <binade/core/file.h>
#include <binade/nn/special_ids.h>

namespace binade::nn {
namespace {

using nlohmann::json;

struct FamilyNames {
  Family family;
  const char *model_type, *architecture;
};
constexpr std::array kFamilies = {
    FamilyNames{Family::gpt2, "gpt2", "GPT2LMHeadModel"},
    FamilyNames{Family::llama, "llama", "LlamaForCausalLM"},
    FamilyNames{Family::qwen2, "qwen2", "Qwen2ForCausalLM"},
    FamilyNames{Family::qwen3, "qwen3", "Qwen3ForCausalLM"},
};

struct ActivationName {
  const char* name;
  Activation activation;
};
// The first name of an activation is the one that is written.
constexpr std::array kActivations = {
    ActivationName{"gelu_new", Activation::gelu_tanh},
    ActivationName{"gelu_pytorch_tanh", Activation::gelu_tanh},
    ActivationName{"gelu_fast", Activation::gelu_tanh},
    ActivationName{"gelu", Activation::gelu},
    ActivationName{"relu", Activation::relu},
    ActivationName{"silu", Activation::silu},
    ActivationName{"swish", Activation::silu},
};

Activation parse_activation(const JsonReader& reader, const char* key, const char* otherwise) {
  const auto name = reader.get<std::string>(key, otherwise);
  for (const ActivationName& known : kActivations)
    if (name == known.name) return known.activation;
  reader.refuse("the activation '", name, "' (", key, ") is not supported");
}

RopeConfig parse_rope(const JsonReader& reader) {
  RopeConfig rope;
  rope.theta = reader.get("rope_theta", rope.theta);
  rope.partial_factor = reader.get("partial_rotary_factor", rope.partial_factor);
  // transformers 5 writes rope_parameters, which has rope_theta too; before it was rope_scaling.
  std::optional<JsonReader> scaling = reader.child("rope_parameters");
  if (!scaling) scaling = reader.child("rope_scaling");
  if (!scaling) return rope;

  rope.theta = scaling->get("rope_theta", rope.theta);
  rope.partial_factor = scaling->get("partial_rotary_factor", rope.partial_factor);
  const auto type = scaling->get(
      "rope_type", scaling->get<std::string>("type", "default"));  // "type": before 4.43
  if (type == "default") return rope;
  rope.factor = scaling->require<double>("factor");
  if (type == "linear") {
    rope.scaling = RopeScaling::linear;
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::llama3;
    rope.low_freq_factor = scaling->require<double>("low_freq_factor");
    rope.high_freq_factor = scaling->require<double>("high_freq_factor");
    rope.original_max_positions = scaling->require<int64_t>("original_max_position_embeddings");
  } else {
    reader.refuse("the rope_type '", type, "' is not supported; supported are default, linear, ",
                  "llama3");
  }
  return rope;
}

void parse_gpt2(const JsonReader& reader, CausalLmConfig& config) {
  config.dim = reader.require<int64_t>("n_embd");
  config.layers = reader.require<int64_t>("n_layer");
  config.heads = reader.require<int64_t>("n_head");
  config.hidden = reader.get<int64_t>("n_inner", 0);
  config.max_positions = reader.get<int64_t>("n_positions", 1024);
  config.norm_eps = reader.get("layer_norm_epsilon", 1e-5);
  config.activation = parse_activation(reader, "activation_function", "gelu_new");
  config.embedding_dropout = reader.get("embd_pdrop", 0.1);
  config.attention_dropout = reader.get("attn_pdrop", 0.1);
  config.residual_dropout = reader.get("resid_pdrop", 0.1);
  config.scale_attention = reader.get("scale_attn_weights", true);
  config.scale_attention_by_inverse_layer = reader.get("scale_attn_by_inverse_layer_idx", false);
  reader.supports_only("add_cross_attention", false);
}

void refuse_sliding_window(const JsonReader& reader) {
  if (reader.get("use_sliding_window", false) && reader.has("sliding_window"))
    reader.refuse("a sliding window (use_sliding_window) is not supported");
  if (!reader.has("layer_types")) return;
  for (const json& type : reader["layer_types"])
    if (type != "full_attention")
      reader.refuse("layer_types: ", type.dump(), " is not supported, only \"full_attention\"");
}

void parse_llama(const JsonReader& reader, CausalLmConfig& config) {
  config.dim = reader.require<int64_t>("hidden_size");
  config.layers = reader.require<int64_t>("num_hidden_layers");
  config.heads = reader.require<int64_t>("num_attention_heads");
  config.kv_heads = reader.get<int64_t>("num_key_value_heads", 0);
  config.head_dim = reader.get<int64_t>("head_dim", config.head_dim);
  config.hidden = reader.require<int64_t>("intermediate_size");
  config.max_positions =
      reader.get<int64_t>("max_position_embeddings", config.family == Family::llama ? 2048 : 32768);
  config.norm_eps = reader.get("rms_norm_eps", config.norm_eps);
  config.attention_dropout = reader.get("attention_dropout", 0.0);
  config.rope = parse_rope(reader);
  if (config.family != Family::qwen2) {
    config.attention_bias = reader.get("attention_bias", false);
    config.attention_output_bias = config.attention_bias;
  }
  if (config.family == Family::llama) config.mlp_bias = reader.get("mlp_bias", false);
  if (parse_activation(reader, "hidden_act", "silu") != Activation::silu)
    reader.refuse("the activation ", reader["hidden_act"].dump(),
                  " (hidden_act) is not supported, only \"silu\"");
  reader.supports_only("rope_interleaved", false);
  refuse_sliding_window(reader);
}

json write_gpt2(const CausalLmConfig& config) {
  const auto* activation =
      std::find_if(kActivations.begin(), kActivations.end(),
                   [&](const auto& known) { return known.activation == config.activation; });
  return {
      {"n_embd", config.dim},
      {"n_layer", config.layers},
      {"n_head", config.heads},
      {"n_inner", config.hidden ? json(config.hidden) : json()},
      {"n_positions", config.max_positions},
      {"layer_norm_epsilon", config.norm_eps},
      {"activation_function", activation->name},
      {"embd_pdrop", config.embedding_dropout},
      {"attn_pdrop", config.attention_dropout},
      {"resid_pdrop", config.residual_dropout},
      {"scale_attn_weights", config.scale_attention},
      {"scale_attn_by_inverse_layer_idx", config.scale_attention_by_inverse_layer},
  };
}

// rope_theta and rope_scaling are read by every version of transformers; 5 turns them into
// rope_parameters.
json write_rope_scaling(const RopeConfig& rope) {
  if (rope.scaling == RopeScaling::none) return {};
  json scaling = {{"rope_type", "linear"}, {"factor", rope.factor}};
  if (rope.scaling == RopeScaling::llama3)
    scaling.update({{"rope_type", "llama3"},
                    {"low_freq_factor", rope.low_freq_factor},
                    {"high_freq_factor", rope.high_freq_factor},
                    {"original_max_position_embeddings", rope.original_max_positions}});
  return scaling;
}

json write_llama(const CausalLmConfig& config) {
  json object = {
      {"hidden_size", config.dim},
      {"num_hidden_layers", config.layers},
      {"num_attention_heads", config.heads},
      {"num_key_value_heads", config.key_heads()},
      {"head_dim", config.head_size()},
      {"intermediate_size", config.hidden_size()},
      {"max_position_embeddings", config.max_positions},
      {"rms_norm_eps", config.norm_eps},
      {"attention_dropout", config.attention_dropout},
      {"hidden_act", "silu"},
      {"rope_theta", config.rope.theta},
      {"rope_scaling", write_rope_scaling(config.rope)},
  };
  if (config.rope.partial_factor != 1) object["partial_rotary_factor"] = config.rope.partial_factor;
  if (config.family != Family::qwen2) object["attention_bias"] = config.attention_bias;
  if (config.family == Family::llama) object["mlp_bias"] = config.mlp_bias;
  if (config.family == Family::qwen2 || config.family == Family::qwen3)
    object["use_sliding_window"] = false;
  return object;
}

const FamilyNames& names_of(Family family) {
  return kFamilies[static_cast<size_t>(family)];
}

const char* torch_name(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    default:
      return "float32";
  }
}

void write_ids(json& object, const CausalLmConfig& config) {
  const auto write = [&](const char* key, const std::vector<int64_t>& ids) {
    object[key] = ids.empty() ? json() : ids.size() == 1 ? json(ids[0]) : json(ids);
  };
  write("bos_token_id", config.bos_ids);
  write("eos_token_id", config.eos_ids);
  write("pad_token_id", config.pad_ids);
}

}  // namespace

std::string_view name_of(Family family) {
  return names_of(family).model_type;
}

CausalLmConfig CausalLmConfig::of(Family family) {
  CausalLmConfig config;
  config.family = family;
  switch (family) {
    case Family::gpt2:
      config.norm_eps = 1e-5;
      config.tie_embeddings = true;
      config.attention_bias = config.attention_output_bias = config.mlp_bias = true;
      break;
    case Family::qwen2:
      config.attention_bias = true;
      break;
    case Family::qwen3:
      config.qk_norm = true;
      config.head_dim = 128;
      break;
    case Family::llama:
      break;
  }
  return config;
}

CausalLmConfig CausalLmConfig::parse(std::string_view text, const std::string& source) {
  const JsonReader reader = JsonReader::parse(text, source);
  const auto model_type = reader.require<std::string>("model_type");
  const auto* names = std::find_if(kFamilies.begin(), kFamilies.end(), [&](const auto& known) {
    return model_type == known.model_type;
  });
  if (names == kFamilies.end())
    reader.refuse("the model_type '", model_type,
                  "' is not supported; supported are gpt2, llama (SmolLM2 too), qwen2, qwen3");
  if (reader.has("quantization_config"))
    reader.refuse("quantised weights (quantization_config) are not supported");

  CausalLmConfig config = of(names->family);
  config.vocab_size = reader.require<int64_t>("vocab_size");
  config.initializer_range = reader.get("initializer_range", config.initializer_range);
  config.tie_embeddings = reader.get("tie_word_embeddings", config.tie_embeddings);
  config.bos_ids = read_special_ids(reader, "bos_token_id", source, config.vocab_size);
  config.eos_ids = read_special_ids(reader, "eos_token_id", source, config.vocab_size);
  config.pad_ids = read_special_ids(reader, "pad_token_id", source, config.vocab_size);
  if (config.family == Family::gpt2)
    parse_gpt2(reader, config);
  else
    parse_llama(reader, config);
  try {
    config.validate();
  } catch (const Error& error) {
    reader.refuse(error.what());
  }
  return config;
}

CausalLmConfig CausalLmConfig::read(const std::filesystem::path& path) {
  constexpr int64_t kLargest = 1 << 20;  // bytes; a config.json has a few thousand
  CausalLmConfig config = parse(read_text_file(path, kLargest), path.string());
  const std::filesystem::path beside = path.parent_path() / "generation_config.json";
  if (std::filesystem::exists(beside))
    config.generation = GenerationConfig::parse(read_text_file(beside, kLargest), beside.string(),
                                                config.vocab_size);
  return config;
}

std::string CausalLmConfig::to_json(DType dtype) const {
  json object = family == Family::gpt2 ? write_gpt2(*this) : write_llama(*this);
  object["model_type"] = names_of(family).model_type;
  object["architectures"] = {names_of(family).architecture};
  object["vocab_size"] = vocab_size;
  object["initializer_range"] = initializer_range;
  object["tie_word_embeddings"] = tie_embeddings;
  object["torch_dtype"] = torch_name(dtype);
  write_ids(object, *this);
  return object.dump(2) + "\n";
}

std::string CausalLmConfig::generation_json() const {
  if (!generation.text.empty()) return generation.text;
  json object = json::object();
  write_ids(object, *this);
  for (auto id = object.begin(); id != object.end();) id = id->is_null() ? object.erase(id) : ++id;
  return object.dump(2) + "\n";
}

void CausalLmConfig::validate() const {
  constexpr int64_t kLargest = int64_t{1} << 31;  // no size of a real model comes near
  constexpr int64_t kLargestHead = 1 << 16;
  const auto check_size = [](const char* name, int64_t size) {
    check(size > 0 && size < kLargest, name, " is ", size, ", which is no possible size");
  };
  check_size("the vocabulary", vocab_size);
  check_size("the hidden size", dim);
  check_size("the number of layers", layers);
  check_size("the number of heads", heads);
  check_size("the number of key heads", key_heads());
  check_size("the feed-forward size", hidden_size());
  check_size("the number of positions", max_positions);
  check(head_dim > 0 || dim % heads == 0, heads, " heads do not divide the hidden size ", dim);
  check_size("the head size", head_size());
  check(head_size() <= kLargestHead, "the head size is ", head_size(), ", more than ",
        kLargestHead);
  check(heads % key_heads() == 0, key_heads(), " key heads do not divide ", heads, " heads");
  check(family != Family::gpt2 || (key_heads() == heads && head_size() * heads == dim),
        "GPT-2 has as many key heads as heads, of hidden size / heads");
  check(norm_eps > 0, "the norm's epsilon must be positive, got ", norm_eps);
  for (const double probability : {attention_dropout, embedding_dropout, residual_dropout})
    check(probability >= 0 && probability < 1, "a dropout probability lies in [0, 1), got ",
          probability);
  if (family != Family::gpt2) rope_frequencies(head_size(), rope);
  for (const std::vector<int64_t>* ids : {&bos_ids, &eos_ids, &pad_ids})
    for (const int64_t id : *ids)
      check(id < vocab_size, "the special token id ", id, " is beyond the vocabulary of ",
            vocab_size);
}

}  // namespace binade::nn
