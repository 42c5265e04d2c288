#include <binade/heads/decoding/base_config.h>

#include <binade/heads/decoding/base_weights.h>

namespace binade::heads::decoding {

void write_base(nlohmann::ordered_json& config, const std::string& name, uint32_t fingerprint,
                const nn::CausalLm& base) {
  config["base_model_name_or_path"] = name;
  config[kBaseFingerprint] = fingerprint ? fingerprint : weights_fingerprint(base);
}

void check_same_base(const nn::JsonReader& config, const nn::CausalLm& base) {
  const auto recorded = config.find<int64_t>(kBaseFingerprint);
  if (recorded && *recorded != static_cast<int64_t>(weights_fingerprint(base)))
    config.refuse("the heads were trained for a language model with other weights ('",
                  kBaseFingerprint, "')");
}

void check_same_size(const nn::JsonReader& config, const char* key, int64_t of_model) {
  if (const auto value = config.find<int64_t>(key); value && *value != of_model)
    config.refuse("'", key, "' is ", *value, ", but the language model has ", of_model);
}

}  // namespace binade::heads::decoding
