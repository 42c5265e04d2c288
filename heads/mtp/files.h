// Files of multi-token prediction, under the names that serving engines read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <binade/heads/mtp/mtp.h>

namespace binade::heads::mtp {

// Names of tensors, and the conventions that those who read them evaluate modules by. All are
// written to model.safetensors, beside a config.json with the model's own keys,
// "num_nextn_predict_layers", and "binade_mtp" for what only Binade reads.
enum class Format : uint8_t {
  // MtpHeads' own names and any conventions; parallel heads and GPT-2 have no other.
  plain,
  // "model.layers.{N + k}.enorm.weight", ".hnorm", ".eh_proj", ".shared_head.norm", and the
  // layer's; the embedding and the output layer once a module, as ".embed_tokens.weight" and
  // ".shared_head.head.weight". DeepSeek-V3 and GLM-4.5 have them.
  deepseek,
  // "mtp.fc.weight", "mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.norm",
  // "mtp.layers.0.…"; norms hold w − 1. One module. With the embedding and the output layer.
  qwen3_next,
  // "model.mtp_layers.{k}.token_layernorm.weight", ".hidden_layernorm", ".input_proj",
  // ".final_layernorm", and the layer's, which is Qwen2's: query, key and value have biases, zeros
  // where the model has none. With the embedding and the output layer.
  mimo,
};
std::string_view name_of(Format format);     // "qwen3-next"
Format parse_format(std::string_view name);  // Error for another name
// deepseek where it can hold heads of this kind for this model, otherwise plain.
Format default_format(Kind kind, const nn::CausalLmConfig& base);

// DeepSeek-V3 and MiMo in vLLM hide the token at position 0; DeepSeek-V3 recurs before the output
// norm; MiMo's projection reads the hidden state first.
Conventions conventions_of(Format format);

// Throws Error, which names the field, for heads or a model that the format has no names for, and
// for conventions that are not its own.
void check_fits(Format format, const MtpConfig& config, const nn::CausalLmConfig& base);

struct SaveMtpOptions {
  Format format = Format::plain;
  std::string base_name;  // base_model_name_or_path
  DType dtype = DType::f16;
  // Of the language model's weights as its own files have them; 0: as the model has them now, which
  // in half precision may be rounded.
  uint32_t base_fingerprint = 0;
};

// Creates the folder if need be; each file is written beside its place and renamed. config.json
// also holds the fingerprint of the language model's weights. Throws Error as check_fits() does.
void save_mtp(const MtpHeads& heads, const std::filesystem::path& folder,
              const SaveMtpOptions& options = {});

// The format of a folder's heads; none if its config.json, if any, speaks of something else. Throws
// Error for a config.json that is no JSON object.
std::optional<Format> format_of(const std::filesystem::path& folder);

// Heads of any format, for this language model. Throws Error for files that are missing or damaged,
// tensors that are missing, unexpected, of the wrong shape or not finite (all named), copies of
// the embedding or output layer that are not the model's, sizes that are not the model's, and heads
// that were trained for other weights (check_base false: without the last two, for a model that is
// rounded by now).
std::shared_ptr<MtpHeads> load_mtp(const std::filesystem::path& folder,
                                   std::shared_ptr<const nn::CausalLm> base,
                                   bool check_base = true);

}  // namespace binade::heads::mtp
