#include <binade/nn/mot/files.h>

#include <array>
#include <cmath>
#include <string>

#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/nn/json_reader.h>
#include <binade/nn/mot/weights.h>
#include <binade/nn/state.h>

namespace binade::nn {
namespace {

using nlohmann::json;

constexpr const char* kLlmConfig = "llm_config.json";
constexpr const char* kVitConfig = "vit_config.json";
constexpr const char* kWeights = "ema.safetensors";
// By ExpertChoice: the classes of layers in BAGEL's code.
constexpr std::array<const char*, 3> kLayerModules = {"Qwen2DecoderLayer", "Qwen2MoEDecoderLayer",
                                                      "Qwen2MoTDecoderLayer"};

JsonReader read_json(const std::filesystem::path& path) {
  return JsonReader::parse(read_text_file(path), path.string());
}

ExpertChoice experts_of(const JsonReader& reader) {
  const auto name = reader.get<std::string>("layer_module", kLayerModules[2]);
  for (size_t i = 0; i < kLayerModules.size(); ++i)
    if (name == kLayerModules[i]) return static_cast<ExpertChoice>(i);
  reader.refuse("'layer_module': '", name, "' is not supported; there are ", kLayerModules[0], ", ",
                kLayerModules[1], " and ", kLayerModules[2]);
}

// Not looked at: `tie_word_embeddings` and `qk_norm`, which BAGEL's program sets itself, and
// sliding windows, which its layers do not have. Defaults are those of its classes.
void read_llm(const JsonReader& reader, MotConfig& config) {
  reader.supports_only("hidden_act", std::string("silu"));
  if (reader.has("rope_scaling")) reader.refuse("'rope_scaling' is not supported");
  config.block.dim = reader.require<int64_t>("hidden_size");
  config.block.heads = reader.require<int64_t>("num_attention_heads");
  config.block.kv_heads = reader.require<int64_t>("num_key_value_heads");
  config.block.hidden = reader.require<int64_t>("intermediate_size");
  config.block.norm_eps = reader.get("rms_norm_eps", 1e-6);
  config.block.experts = experts_of(reader);
  config.layers = reader.require<int64_t>("num_hidden_layers");
  config.vocab_size = reader.require<int64_t>("vocab_size");
  config.max_positions = reader.get<int64_t>("max_position_embeddings", 32768);
  config.rope_theta = reader.get("rope_theta", 1e4);
  config.latents = {.channels = reader.get<int64_t>("latent_channels", 16),
                    .patch = reader.get<int64_t>("latent_patch_size", 2),
                    .side = reader.get<int64_t>("max_latent_size", 64)};
}

void read_vit(const JsonReader& reader, MotConfig& config) {
  reader.supports_only("hidden_act", std::string("gelu_pytorch_tanh"));
  config.vit.dim = reader.require<int64_t>("hidden_size");
  const auto counted = reader.require<int64_t>("num_hidden_layers");
  if (counted < 1) reader.refuse("'num_hidden_layers' is ", counted, ", which is no possible size");
  config.vit.layers = counted - 1;
  config.vit.heads = reader.require<int64_t>("num_attention_heads");
  config.vit.hidden = reader.require<int64_t>("intermediate_size");
  config.vit.norm_eps = reader.get("layer_norm_eps", 1e-6);
  const auto patch = reader.require<int64_t>("patch_size"),
             image = reader.require<int64_t>("image_size");
  if (patch <= 0 || image <= 0 || image % patch != 0)
    reader.refuse("an image of ", image, " pixels is not cut into patches of ", patch);
  config.pixels = {
      .channels = reader.get<int64_t>("num_channels", 3), .patch = patch, .side = image / patch};
}

json llm_json(const MotConfig& config) {
  return {{"architectures", json::array({"Qwen2ForCausalLM"})},
          {"model_type", "qwen2"},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false},
          {"qk_norm", true},
          {"layer_module", kLayerModules[static_cast<size_t>(config.block.experts)]},
          {"hidden_size", config.block.dim},
          {"num_attention_heads", config.block.heads},
          {"num_key_value_heads", config.block.kv_heads},
          {"intermediate_size", config.block.hidden},
          {"rms_norm_eps", config.block.norm_eps},
          {"num_hidden_layers", config.layers},
          {"vocab_size", config.vocab_size},
          {"max_position_embeddings", config.max_positions},
          {"rope_theta", config.rope_theta},
          {"latent_channels", config.latents.channels},
          {"latent_patch_size", config.latents.patch},
          {"max_latent_size", config.latents.side}};
}

json vit_json(const MotConfig& config) {
  return {{"model_type", "siglip_vision_model"},
          {"hidden_act", "gelu_pytorch_tanh"},
          {"hidden_size", config.vit.dim},
          {"num_hidden_layers", config.vit.layers + 1},
          {"num_attention_heads", config.vit.heads},
          {"intermediate_size", config.vit.hidden},
          {"layer_norm_eps", config.vit.norm_eps},
          {"num_channels", config.pixels.channels},
          {"patch_size", config.pixels.patch},
          {"image_size", config.pixels.side * config.pixels.patch}};
}

// A table of the file, which may be rounded to BF16, is the one that is computed.
void check_table(const std::string& name, const Array& given, const PositionTable2d& computed) {
  constexpr float kRounding = 0.01f;
  const Array want = computed.table().array();
  check(given.shape() == want.shape(), name, " is ", given.shape(), " and not ", want.shape());
  const Array values = given.to(DType::f32).contiguous();
  for (int64_t i = 0; i < want.numel(); ++i)
    check(std::abs(values.data<float>()[i] - want.data<float>()[i]) <= kRounding, name,
          " is not the table of sines and cosines: element ", i, " is ", values.data<float>()[i],
          " and not ", want.data<float>()[i]);
}

// Before a model is made with so many layers: the file has the last of them.
void check_last_layer(const StateDict& state, const std::filesystem::path& folder,
                      const char* layers, int64_t count) {
  if (count == 0) return;
  const std::string prefix = concat(layers, count - 1, ".");
  const auto first = state.lower_bound(prefix);
  check(first != state.end() && first->first.starts_with(prefix), (folder / kWeights).string(),
        ": tensors ", prefix, "… are missing: the configuration beside it has ", count,
        " of these layers");
}

}  // namespace

MotConfig read_mot_config(const std::filesystem::path& folder) {
  MotConfig config;
  read_llm(read_json(folder / kLlmConfig), config);
  read_vit(read_json(folder / kVitConfig), config);
  try {
    config.validate();
  } catch (const Error& error) {
    fail(folder.string(), ": ", error.what());
  }
  return config;
}

std::shared_ptr<MotModel> load_mot(const std::filesystem::path& folder) {
  const MotConfig config = read_mot_config(folder);
  StateDict state = read_state(folder / kWeights);
  check_last_layer(state, folder, "language_model.model.layers.", config.layers);
  check_last_layer(state, folder, "vit_model.vision_model.encoder.layers.", config.vit.layers);
  const auto model = std::make_shared<MotModel>(config);
  for (const auto& [name, table] : model->tables()) {
    const auto found = state.find(name);
    if (found == state.end()) continue;
    check_table(name, found->second, *table);
    state.erase(found);
  }
  load_weights(*model, state, folder / kWeights);
  return model;
}

void save_mot(const MotModel& model, const std::filesystem::path& folder) {
  create_folder(folder);
  write_text_file(folder / kLlmConfig, llm_json(model.config()).dump(2) + "\n");
  write_text_file(folder / kVitConfig, vit_json(model.config()).dump(2) + "\n");
  std::map<std::string, Array> tensors = model.state();
  for (const auto& [name, table] : model.tables()) tensors[name] = table->table().array();
  write_safetensors(folder / kWeights, tensors);
}

}  // namespace binade::nn
