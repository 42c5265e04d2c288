#include <binade/heads/medusa/files.h>

#include <map>

#include <binade/core/text.h>
#include <binade/heads/decoding/base_config.h>
#include <binade/heads/decoding/head_files.h>

namespace binade::heads::medusa {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr const char* kOriginalFile = "medusa_lm_head.safetensors";
constexpr const char* kVllmFile = "model.safetensors";
constexpr const char* kWhat = "Medusa heads";

const char* file_of(Layout layout) {
  return layout == Layout::vllm ? kVllmFile : kOriginalFile;
}

// How a layout names the tensors of head k.
std::string block_name(Layout layout, int64_t k, int64_t j, const char* what) {
  if (layout == Layout::vllm) return concat("blocks.", k, ".layers.", j, '.', what);
  return concat(k, '.', j, ".linear.", what);
}
std::string output_name(Layout layout, int64_t k, int64_t layers) {
  if (layout == Layout::vllm) return concat("lm_heads.", k, ".weight");
  return concat(k, '.', layers, ".weight");
}

// The heads' own names of parameters, as MedusaHeads has them, and those of the files.
std::map<std::string, std::string> file_names(Layout layout, const MedusaConfig& config) {
  std::map<std::string, std::string> names;
  for (int64_t k = 0; k < config.heads; ++k) {
    for (int64_t j = 0; j < config.layers; ++j)
      for (const char* what : {"weight", "bias"})
        names[block_name(Layout::original, k, j, what)] = block_name(layout, k, j, what);
    if (config.own_output)
      names[output_name(Layout::original, k, config.layers)] =
          output_name(layout, k, config.layers);
  }
  return names;
}

bool is_output(const std::string& own_name) {
  return own_name.find(".linear.") == std::string::npos;
}

// The rows of an output layer that files hold: those that are no padding.
Array without_padding(const Array& weight, const nn::CausalLm& base) {
  return weight.slice(0, 0, base.config().vocab_size);
}

std::string config_text(const MedusaHeads& heads, const SaveMedusaOptions& options) {
  const MedusaConfig& config = heads.config();
  const nn::CausalLmConfig& base = heads.base().config();
  ordered_json json;
  if (options.layout == Layout::vllm) {
    // vLLM takes a key with "num" and "heads" or "layers" in it for its own.
    json["architectures"] = {"MedusaModel"};
    json["model_type"] = "medusa";
    json["hidden_size"] = base.dim;
    json["vocab_size"] = base.vocab_size;
    json["truncated_vocab_size"] = base.vocab_size;
    json["num_heads"] = config.heads;
    json["num_hidden_layers"] = config.layers;
    json["medusa_fc_bias"] = true;
    if (!config.own_output) json["original_lm_head"] = true;
  } else {
    // No "architectures": TGI would take the folder for a model. TensorRT-LLM's converter reads the
    // number of heads under either name.
    json["medusa_num_heads"] = config.heads;
    json["num_medusa_heads"] = config.heads;
    json["medusa_num_layers"] = config.layers;
    json["hidden_size"] = base.dim;
    json["vocab_size"] = base.vocab_size;
  }
  json["torch_dtype"] = decoding::torch_name(options.dtype);
  decoding::write_base(json, options.base_name, options.base_fingerprint, heads.base());
  return json.dump(2) + "\n";
}

}  // namespace

std::string_view name_of(Layout layout) {
  return layout == Layout::vllm ? "vllm" : "original";
}

Layout parse_layout(std::string_view name) {
  for (const Layout layout : {Layout::original, Layout::vllm})
    if (name == name_of(layout)) return layout;
  fail("there is no layout '", name, "' of Medusa heads; there are original and vllm");
}

void save_medusa(const MedusaHeads& heads, const fs::path& folder,
                 const SaveMedusaOptions& options) {
  const MedusaConfig& config = heads.config();
  const Layout layout = options.layout;
  check(layout != Layout::original || config.own_output || config.layers == 1,
        "the original layout tells where the output layer of its own is missing from one block ",
        "alone: these heads have ", config.layers, " blocks; save them as vllm");
  const auto names = file_names(layout, config);
  std::map<std::string, Array> tensors;
  for (const nn::NamedParameter& named : heads.named_parameters()) {
    Array values = named.parameter->master();
    if (is_output(named.name)) values = without_padding(values, heads.base());
    tensors[names.at(named.name)] = values;
  }
  if (layout == Layout::vllm && !config.own_output)
    tensors[output_name(layout, 0, config.layers)] = decoding::output_of(heads.base());
  decoding::write_head_files(folder, kWhat,
                             {.tensor_file = file_of(layout),
                              .tensors = std::move(tensors),
                              .dtype = options.dtype,
                              .config = config_text(heads, options)});
}

std::optional<Layout> layout_of(const fs::path& folder) {
  const std::optional<nn::JsonReader> json = decoding::find_head_config(folder);
  if (!json) return std::nullopt;
  if (json->has("medusa_num_heads")) return Layout::original;
  if (json->get<std::string>("model_type", "") == "medusa") return Layout::vllm;
  return std::nullopt;
}

std::shared_ptr<MedusaHeads> load_medusa(const fs::path& folder,
                                         std::shared_ptr<const nn::CausalLm> base,
                                         bool check_base) {
  const nn::JsonReader json = decoding::read_head_config(folder, kWhat);
  const std::optional<Layout> found = layout_of(folder);
  if (!found)
    json.refuse(
        "neither 'medusa_num_heads' nor the 'model_type' medusa: these are no Medusa heads");
  const Layout layout = *found;
  constexpr int64_t kMostHeads = 64;
  const auto count = [&](const char* key, int64_t least) {
    const auto value = json.require<int64_t>(key);
    if (value < least || value > kMostHeads)
      json.refuse("'", key, "' is ", value, ", expected ", least, " to ", kMostHeads);
    return value;
  };
  const bool vllm = layout == Layout::vllm;
  MedusaConfig config{.heads = count(vllm ? "num_heads" : "medusa_num_heads", 1),
                      .layers = count(vllm ? "num_hidden_layers" : "medusa_num_layers", 0)};
  decoding::check_same_size(json, "hidden_size", base->config().dim);
  decoding::check_same_size(json, "vocab_size", base->config().vocab_size);
  if (vllm) {
    decoding::check_same_size(json, "truncated_vocab_size", base->config().vocab_size);
    json.supports_only("logit_scale", 1.0);
    if (config.layers > 0 && !json.get<bool>("medusa_fc_bias", false))
      json.refuse("'medusa_fc_bias' is not true: heads without biases are not supported");
  }
  if (check_base) decoding::check_same_base(json, *base);

  const decoding::HeadTensors tensors(folder, file_of(layout));
  const std::string first_output = output_name(layout, 0, config.layers);
  config.own_output =
      vllm ? !json.get<bool>("original_lm_head", false) : tensors.file().contains(first_output);
  auto heads = std::make_shared<MedusaHeads>(base, config);
  const nn::StateDict present = heads->form();
  nn::StateDict expected;  // by the names of the file
  const auto names = file_names(layout, config);
  for (const auto& [own, in_file] : names)
    expected[in_file] = is_output(own) ? without_padding(present.at(own), *base) : present.at(own);
  const std::set<std::string> beside =
      vllm && !config.own_output ? std::set{first_output} : std::set<std::string>{};
  const nn::StateDict given = tensors.read(expected, beside);
  nn::StateDict state;
  for (const auto& [own, in_file] : names) {
    const Array values = given.at(in_file).to(DType::f32);
    if (!is_output(own)) {
      state[own] = values;
      continue;
    }
    const Array padded = Array::zeros(present.at(own).shape(), DType::f32);
    without_padding(padded, *base).copy_from(values);
    state[own] = padded;
  }
  heads->load_state(state);
  return heads;
}

}  // namespace binade::heads::medusa
