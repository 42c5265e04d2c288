// adapter_config.json, the options of LoRA as PEFT writes and reads them.
#pragma once

#include <filesystem>
#include <string>

#include <binade/nn/lora.h>

namespace binade::nn {

// Computes what PEFT 0.21 computes from the file. Throws Error that names the key for everything
// that Binade's LoRA is not (DoRA, trained biases, …), for initialisations that change the weights
// below the adapters, and for keys that are not known but say something.
LoraOptions read_lora_config(const std::filesystem::path& path);

// The text of the file. `transposed`: the layers keep (in, out) in files, as GPT-2's do.
std::string lora_config_json(const LoraOptions& options, const std::string& base_model,
                             bool transposed);

}  // namespace binade::nn
