#include <binade/nn/models/config.h>

#include <algorithm>
#include <array>

#include <binade/core/file.h>
#include <binade/nn/models/config_difference.h>
#include <binade/nn/models/families.h>
#include <binade/nn/special_ids.h>

namespace binade::nn {
namespace {

using nlohmann::json;

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

CausalLmConfig parse_unchecked(const JsonReader& reader, const std::string& source) {
  const auto model_type = reader.require<std::string>("model_type");
  const FamilyRow* row = find_family(model_type);
  if (row == nullptr)
    reader.refuse("the model_type '", model_type, "' is not supported; supported are ",
                  family_names());
  if (reader.has("quantization_config"))
    reader.refuse("quantised weights (quantization_config) are not supported");

  CausalLmConfig config = CausalLmConfig::of(row->family);
  config.vocab_size = reader.require<int64_t>("vocab_size");
  config.initializer_range = reader.get("initializer_range", config.initializer_range);
  config.tie_embeddings = reader.get("tie_word_embeddings", config.tie_embeddings);
  config.bos_ids = read_special_ids(reader, "bos_token_id", source, config.vocab_size);
  config.eos_ids = read_special_ids(reader, "eos_token_id", source, config.vocab_size);
  config.pad_ids = read_special_ids(reader, "pad_token_id", source, config.vocab_size);
  if (config.family == Family::gpt2)
    parse_gpt2(reader, config);
  else
    parse_decoder(reader, config);
  return config;
}

// A model is saved with what its family's config.json can say, so it must not be built with more.
void check_writable(const CausalLmConfig& config) {
  const std::string source =
      concat("the config.json of this ", name_of(config.family), " model would be wrong");
  const JsonReader reader = JsonReader::parse(config.to_json(DType::f32), source);
  const std::string lost = first_difference(config, parse_unchecked(reader, source));
  check(lost.empty(), "the config.json of model_type '", name_of(config.family),
        "' cannot say what '", lost,
        "' is here, so a saved model would be read as another; leave it as "
        "CausalLmConfig::of() gives it, or take another family");
}

}  // namespace

std::string_view name_of(Family family) {
  return row_of(family).model_type;
}

CausalLmConfig CausalLmConfig::of(Family family) {
  const FamilyRow& row = row_of(family);
  CausalLmConfig config;
  config.family = family;
  config.norm_eps = row.norm_eps;
  config.rope.theta = row.theta;
  config.head_dim = row.head_dim;
  config.tie_embeddings = row.tied;
  config.activation = row.gate;
  switch (family) {
    case Family::gpt2:
      config.activation = Activation::gelu_tanh;
      config.attention_bias = config.attention_output_bias = config.mlp_bias = true;
      break;
    case Family::qwen2:
      config.attention_bias = true;
      break;
    case Family::qwen3:
      config.qk_norm = QkNorm::head;
      break;
    case Family::olmo2:
      config.norms = NormPlacement::behind;
      config.qk_norm = QkNorm::width;
      break;
    case Family::phi3:
      config.fused_projections = true;
      break;
    case Family::gemma3_text:
      config.norms = NormPlacement::around;
      config.norm_from_one = true;
      config.qk_norm = QkNorm::head;
      config.scale_embedding = true;
      break;
    case Family::llama:
    case Family::mistral:
    case Family::smollm3:
      break;
  }
  return config;
}

CausalLmConfig CausalLmConfig::parse(std::string_view text, const std::string& source) {
  const JsonReader reader = JsonReader::parse(text, source);
  CausalLmConfig config = parse_unchecked(reader, source);
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
  json object = family == Family::gpt2 ? write_gpt2(*this) : write_decoder(*this);
  object["model_type"] = row_of(family).model_type;
  object["architectures"] = {row_of(family).architecture};
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

CausalLmConfig CausalLmConfig::of_layer(int64_t layer) const {
  check(layer >= 0 && layer < layers, "the model has no layer ", layer, " among ", layers);
  CausalLmConfig one = *this;
  one.layers = 1;
  one.rope = rope_of(layer);
  one.window = window_of(layer);
  one.window_rope.reset();
  one.windowed.clear();
  one.unrotated = {!rotates(layer)};
  return one;
}

int64_t CausalLmConfig::longest_text(int64_t prompt) const {
  const bool ends_there =
      rope.scaling == RopeScaling::longrope && prompt <= rope.original_max_positions;
  return ends_there ? std::min(max_positions, rope.original_max_positions) : max_positions;
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
  if (window_rope) rope_frequencies(head_size(), *window_rope);
  check(window >= 0, "a sliding window of ", window, " tokens cannot be");
  check(query_pre_attn_scalar >= 0, "query_pre_attn_scalar must be positive, got ",
        query_pre_attn_scalar);
  for (const std::vector<bool>* flags : {&windowed, &unrotated})
    check(flags->empty() || static_cast<int64_t>(flags->size()) == layers, "a list by layer has ",
          flags->size(), " entries, the model ", layers, " layers");
  for (const std::vector<int64_t>* ids : {&bos_ids, &eos_ids, &pad_ids})
    for (const int64_t id : *ids)
      check(id >= 0 && id < vocab_size, "the special token id ", id,
            " is beyond the vocabulary of ", vocab_size);
  check_writable(*this);
}

}  // namespace binade::nn
