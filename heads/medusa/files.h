// Files of Medusa heads, as the serving engines read them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <binade/heads/medusa/medusa.h>

namespace binade::heads::medusa {

enum class Layout {
  // medusa_lm_head.safetensors: "{k}.{j}.linear.weight", "….bias", "{k}.{L}.weight"; config.json
  // with medusa_num_heads, medusa_num_layers, base_model_name_or_path. What TGI and TensorRT-LLM
  // read, and FasterDecoding's program after a conversion to its .pt file. Heads that use the
  // model's own output layer leave their "{k}.{L}.weight" out (L is 1 then).
  original,
  // model.safetensors: "blocks.{k}.layers.{j}.weight", "….bias", "lm_heads.{k}.weight"; config.json
  // with model_type "medusa". What vLLM reads. Heads that use the model's own output layer have
  // "original_lm_head" and that layer once, as lm_heads.0.weight.
  vllm,
};
std::string_view name_of(Layout layout);
Layout parse_layout(std::string_view name);  // Error for another name

struct SaveMedusaOptions {
  Layout layout = Layout::original;
  std::string base_name;  // base_model_name_or_path
  DType dtype = DType::f16;
  // Of the language model's weights as its own files have them; 0: as the model has them now, which
  // in half precision may be rounded.
  uint32_t base_fingerprint = 0;
};

// Creates the folder if need be; each file is written beside its place and renamed. config.json
// also holds the fingerprint of the language model's weights, "binade_base_crc32c". Throws Error
// for heads that the layout cannot hold.
void save_medusa(const MedusaHeads& heads, const std::filesystem::path& folder,
                 const SaveMedusaOptions& options = {});

// The layout of a folder's Medusa heads; none if its config.json, if any, speaks of something else.
// Throws Error for a config.json that is no JSON object.
std::optional<Layout> layout_of(const std::filesystem::path& folder);

// Heads of any layout, for this language model. Throws Error for files that are missing or damaged,
// tensors that are missing, unexpected, of the wrong shape or not finite (all named), sizes that
// are not the model's, and heads that were trained for other weights, where the file says so
// (check_base false: without that, for a model that is rounded by now).
std::shared_ptr<MedusaHeads> load_medusa(const std::filesystem::path& folder,
                                         std::shared_ptr<const nn::CausalLm> base,
                                         bool check_base = true);

}  // namespace binade::heads::medusa
