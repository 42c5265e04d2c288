#include <binade/nn/lora.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/matmul.h>
#include <binade/core/file.h>
#include <binade/core/safetensors.h>
#include <binade/core/text.h>
#include <binade/nn/hf.h>
#include <binade/nn/lora_config.h>
#include <binade/nn/lora_targets.h>

namespace binade::nn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr const char* kHead = "lm_head";

using NamedLayers = std::vector<std::pair<std::string, Linear*>>;

NamedLayers linear_layers(const Module& model) {
  NamedLayers layers;
  for (const auto& [name, module] : model.named_modules())
    if (auto* layer = dynamic_cast<Linear*>(module)) layers.emplace_back(name, layer);
  return layers;
}

bool has_target(const NamedLayers& layers, const std::string& target) {
  return std::any_of(layers.begin(), layers.end(),
                     [&](const auto& layer) { return names_module(layer.first, target); });
}

void check_every_target(const NamedLayers& layers, const std::vector<std::string>& wanted) {
  std::vector<std::string> last_parts;
  for (const auto& [name, layer] : layers) last_parts.push_back(name.substr(name.rfind('.') + 1));
  for (const std::string& target : wanted)
    check(has_target(layers, target), "LoRA: no linear layer of the model is named '", target, "'",
          did_you_mean(target, last_parts));
}

// What PEFT takes where the configuration says nothing. It has nothing for Phi-3, whose fused
// projections hold those that it takes elsewhere.
std::vector<std::string> usual_targets(const NamedLayers& layers) {
  std::vector<std::string> usual;
  for (const char* target : {"q_proj", "v_proj", "c_attn", "qkv_proj"})
    if (has_target(layers, target)) usual.push_back(target);
  check(!usual.empty(), "LoRA: name the target_modules, this model has none of the usual ones");
  return usual;
}

}  // namespace

double LoraOptions::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rank_stabilised ? std::sqrt(r) : r);
}

LoraAdapter::LoraAdapter(int64_t in_features, int64_t out_features, const LoraOptions& options)
    : scale_(options.scale()), dropout_(options.dropout) {
  const double bound = 1 / std::sqrt(static_cast<double>(in_features));
  a_ = add_parameter("lora_A.weight", {options.rank, in_features}, init::uniform(-bound, bound));
  b_ = add_parameter("lora_B.weight", {out_features, options.rank}, init::zeros());
}

Tensor LoraAdapter::forward(const Tensor& x, const Tensor& y) const {
  if (!enabled_) return y;
  const Tensor narrow = linear(dropout(x, dropout_, training()), a_->tensor());
  return y + linear(narrow, b_->tensor()) * scale_;
}

Array LoraAdapter::delta() const {
  const NoGrad no_grad;
  const Device device = a_->tensor().device();  // masters may be elsewhere (ParameterGroup::device)
  const Tensor a(a_->master().to(device).to(DType::f32)), b(b_->master().to(device).to(DType::f32));
  return (matmul(b, a) * scale_).array();
}

Lora::Lora(Module& model, const LoraOptions& options) : options_(options) {
  check_every_target(linear_layers(model), options.target_modules);
  make_adapters(model);
  attach(model);
}

void Lora::make_adapters(const Module& model) {
  const NamedLayers layers = linear_layers(model);
  if (options_.target_modules.empty() && options_.target_pattern.empty())
    options_.target_modules = usual_targets(layers);
  const LoraTargets wanted(options_);
  for (const auto& [name, module] : model.named_modules()) {
    auto* layer = dynamic_cast<Linear*>(module);
    const bool is_head = name == kHead;
    if (name.empty() || !wanted.wants(name, layer != nullptr && !is_head)) continue;
    check(!is_head, "LoRA: adapters on the head (", kHead, ") are not supported");
    check(layer != nullptr, "LoRA: adapters on ", name,
          ", which is no linear layer, are not supported");
    check(layer->adapter() == nullptr, "LoRA: ", name, " has an adapter already");
    targets_.push_back({name, layer, nullptr});
  }
  check(!targets_.empty(), "LoRA: the options match no linear layer of the model");
  for (const NamedParameter& named : model.named_parameters())
    named.parameter->require_unbound(
        "LoRA cannot freeze it; add the adapters first and make the optimizer after them");

  for (Target& target : targets_) {
    const Linear& layer = *target.layer;
    target.adapter = std::make_shared<LoraAdapter>(layer.in_features(), layer.out_features(),
                                                   wanted.options_of(target.name));
    target.adapter->train(layer.training());
    target.adapter->to(layer.weight()->tensor().device());
  }
}

void Lora::attach(Module& model) {
  model.set_trainable(false);
  for (const Target& target : targets_) target.layer->set_adapter(target.adapter);
}

void Lora::set_enabled(bool enabled) const {
  for (const Target& target : targets_) target.adapter->set_enabled(enabled);
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
  Lora lora;
  lora.options_ = read_lora_config(folder / kConfigFile);
  lora.make_adapters(model);
  const SafetensorsFile file(folder / kWeightsFile);
  StateDict given, expected;
  for (const std::string& name : file.names()) given.emplace(name, file.get(name));
  for (const auto& [name, parameter] : lora.file_parameters())
    expected.emplace(name, parameter->form());
  const StateMismatch mismatch = compare_state(expected, given);
  check(mismatch.empty(), "the adapters in ", folder.string(),
        " do not fit the model: ", mismatch.describe());
  for (const auto& [name, values] : given) check_finite(name, values);
  for (const auto& [name, parameter] : lora.file_parameters()) parameter->assign(given.at(name));
  lora.attach(model);
  return lora;
}

void Lora::save(const fs::path& folder, const std::string& base_model) const {
  create_folder(folder);
  StateDict state;
  for (const auto& [name, parameter] : file_parameters())
    state.emplace(name, parameter->master().to(DType::f32));
  write_safetensors(folder / kWeightsFile, state, {{"format", "pt"}});

  // GPT-2's layers keep (in, out) in files, which PEFT has to know.
  const bool transposed = std::any_of(targets_.begin(), targets_.end(), [](const Target& target) {
    return target.name.starts_with("transformer.h.");
  });
  write_text_file(folder / kConfigFile, lora_config_json(options_, base_model, transposed));
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
