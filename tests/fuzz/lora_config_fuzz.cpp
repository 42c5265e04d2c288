// Any text taken for an adapter_config.json: an Error, or options that can be applied to names and
// that are the same once written and read again.
#include <binade/core/error.h>
#include <binade/nn/lora_config.h>
#include <binade/nn/lora_targets.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "scratch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace binade;
  std::string once;
  try {
    const nn::LoraOptions options = nn::read_lora_config(fuzz::file_of(data, size));
    once = nn::lora_config_json(options, "base", false);
    const nn::LoraTargets targets(options);
    for (const char* name :
         {"model.layers.1.self_attn.q_proj", "transformer.h.10.attn.c_attn", "lm_head", ""})
      if (targets.wants(name, true)) targets.options_of(name);
  } catch (const Error&) {
  }
  if (once.empty() || once.find("\"target_modules\": null") != std::string::npos) return 0;
  const nn::LoraOptions again = nn::read_lora_config(
      fuzz::file_of(reinterpret_cast<const uint8_t*>(once.data()), once.size()));
  if (nn::lora_config_json(again, "base", false) != once) std::abort();
  return 0;
}
