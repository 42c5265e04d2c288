#include <binade/nn/lora.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/nn/json_reader.h>

namespace binade::nn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";

bool matches(const std::string& name, const std::string& target) {
  return name == target || name.ends_with("." + target);
}

void check_options(const LoraOptions& options) {
  check(options.rank > 0, "LoRA needs a positive rank, got ", options.rank);
  check(options.dropout >= 0 && options.dropout < 1, "a dropout probability lies in [0, 1), got ",
        options.dropout);
}

using NamedLayers = std::vector<std::pair<std::string, Linear*>>;

bool has_target(const NamedLayers& layers, const std::string& target) {
  return std::any_of(layers.begin(), layers.end(),
                     [&](const auto& layer) { return matches(layer.first, target); });
}

// The targets that are wanted, each of which some layer has.
std::vector<std::string> find_targets(const NamedLayers& layers,
                                      const std::vector<std::string>& wanted) {
  std::vector<std::string> last_parts;
  for (const auto& [name, layer] : layers) last_parts.push_back(name.substr(name.rfind('.') + 1));
  for (const std::string& target : wanted)
    check(has_target(layers, target), "LoRA: no linear layer of the model is named '", target, "'",
          did_you_mean(target, last_parts));
  if (!wanted.empty()) return wanted;
  std::vector<std::string> usual;
  for (const char* target : {"q_proj", "v_proj", "c_attn"})
    if (has_target(layers, target)) usual.push_back(target);
  check(!usual.empty(), "LoRA: name the target_modules, this model has none of the usual ones");
  return usual;
}

LoraOptions read_options(const fs::path& path) {
  constexpr int64_t kLargest = 1 << 20;  // bytes
  const JsonReader reader = JsonReader::parse(read_text_file(path, kLargest), path.string());
  reader.supports_only<std::string>("peft_type", "LORA");
  reader.supports_only<std::string>("bias", "none");
  reader.supports_only("use_dora", false);
  reader.supports_only("lora_bias", false);
  for (const char* key : {"rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform",
                          "layer_replication", "trainable_token_indices", "exclude_modules"})
    if (reader.has(key) && !reader[key].empty()) reader.refuse("'", key, "' is not supported");
  LoraOptions options;
  options.rank = reader.require<int64_t>("r");
  options.alpha = reader.require<double>("lora_alpha");
  options.dropout = reader.get("lora_dropout", 0.0);
  options.rank_stabilised = reader.get("use_rslora", false);
  options.target_modules = reader.list<std::string>("target_modules");
  return options;
}

}  // namespace

double LoraOptions::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rank_stabilised ? std::sqrt(r) : r);
}

LoraAdapter::LoraAdapter(int64_t in_features, int64_t out_features, const LoraOptions& options)
    : scale_(options.scale()), dropout_(options.dropout) {
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  a_ = add_parameter("lora_A.weight",
                     init::uniform(-bound, bound)({options.rank, in_features}, Device::cpu()));
  b_ = add_parameter("lora_B.weight", Array::zeros({out_features, options.rank}, DType::f32));
}

Tensor LoraAdapter::forward(const Tensor& x, const Tensor& y) const {
  const Tensor narrow = linear(dropout(x, dropout_, training()), a_->tensor());
  return y + linear(narrow, b_->tensor()) * scale_;
}

Array LoraAdapter::delta() const {
  const NoGrad no_grad;
  const Tensor a(a_->master().to(DType::f32)), b(b_->master().to(DType::f32));
  return (matmul(b, a) * scale_).array();
}

Lora::Lora(Module& model, const LoraOptions& options) : options_(options) {
  check_options(options);
  NamedLayers layers;
  for (const auto& [name, module] : model.named_modules())
    if (auto* layer = dynamic_cast<Linear*>(module)) layers.emplace_back(name, layer);
  options_.target_modules = find_targets(layers, options.target_modules);

  for (const NamedParameter& named : model.named_parameters())
    named.parameter->require_unbound(
        "LoRA cannot freeze it; add the adapters first and make the optimizer after them");
  model.set_trainable(false);
  for (const auto& [name, layer] : layers) {
    const bool wanted = std::any_of(options_.target_modules.begin(), options_.target_modules.end(),
                                    [&](const auto& target) { return matches(name, target); });
    if (!wanted) continue;
    check(name != "lm_head", "LoRA: adapters on the head (lm_head) are not supported");
    check(layer->adapter() == nullptr, "LoRA: ", name, " has an adapter already");
    auto adapter =
        std::make_shared<LoraAdapter>(layer->in_features(), layer->out_features(), options);
    adapter->train(layer->training());
    adapter->to(layer->weight()->tensor().device());
    layer->set_adapter(adapter);
    targets_.push_back({name, layer, adapter});
  }
}

std::vector<std::string> Lora::names() const {
  std::vector<std::string> names;
  for (const Target& target : targets_) names.push_back(target.name);
  return names;
}

std::vector<std::pair<std::string, ParameterPtr>> Lora::file_parameters() const {
  std::vector<std::pair<std::string, ParameterPtr>> parameters;
  for (const Target& target : targets_) {
    const std::string prefix = "base_model.model." + target.name;
    parameters.emplace_back(prefix + ".lora_A.weight", target.adapter->a());
    parameters.emplace_back(prefix + ".lora_B.weight", target.adapter->b());
  }
  return parameters;
}

Lora Lora::load(Module& model, const fs::path& folder) {
  Lora lora(model, read_options(folder / kConfigFile));
  const SafetensorsFile file(folder / kWeightsFile);
  StateDict given, expected;
  for (const std::string& name : file.names()) given.emplace(name, file.get(name));
  for (const auto& [name, parameter] : lora.file_parameters())
    expected.emplace(name, parameter->master());
  const StateMismatch mismatch = compare_state(expected, given);
  check(mismatch.empty(), "the adapters in ", folder.string(),
        " do not fit the model: ", mismatch.describe());
  for (const auto& [name, parameter] : lora.file_parameters()) parameter->assign(given.at(name));
  return lora;
}

void Lora::save(const fs::path& folder, const std::string& base_model) const {
  create_folder(folder);
  StateDict state;
  for (const auto& [name, parameter] : file_parameters())
    state.emplace(name, parameter->master().to(DType::f32));
  write_safetensors(folder / kWeightsFile, state, {{"format", "pt"}});

  // GPT-2's layers keep (in, out) in files, which PEFT has to know.
  const bool fan_in_fan_out =
      std::any_of(targets_.begin(), targets_.end(),
                  [](const Target& target) { return target.name.starts_with("transformer.h."); });
  const json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base_model.empty() ? json() : json(base_model)},
      {"r", options_.rank},
      {"lora_alpha", options_.alpha},
      {"lora_dropout", options_.dropout},
      {"use_rslora", options_.rank_stabilised},
      {"target_modules", options_.target_modules},
      {"bias", "none"},
      {"fan_in_fan_out", fan_in_fan_out},
      {"inference_mode", true},
  };
  write_text_file(folder / kConfigFile, config.dump(2) + "\n");
}

void Lora::merge() {
  const NoGrad no_grad;
  for (const Target& target : targets_) {
    const ParameterPtr& weight = target.layer->weight();
    const Array& values = weight->master();
    const DType dtype = is_half(values.dtype()) ? DType::f32 : values.dtype();
    const Tensor merged = Tensor(values.to(dtype)) + Tensor(target.adapter->delta().to(dtype));
    weight->assign(merged.array());
    target.layer->set_adapter(nullptr);
  }
  targets_.clear();
}

}  // namespace binade::nn
