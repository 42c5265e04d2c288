// INTERNAL. What config.json of decoding heads says of their language model.
#pragma once

#include <string>

#include <binade/core/dtype.h>
#include <binade/nn/json_reader.h>
#include <binade/nn/models/causal_lm.h>

namespace binade::heads::decoding {

// base_model_name_or_path, and kBaseFingerprint: `fingerprint`, or where that is 0 the one of the
// weights as the model has them.
void write_base(nlohmann::ordered_json& config, const std::string& name, uint32_t fingerprint,
                const nn::CausalLm& base);

// Throws Error, which names the key, where config.json records other weights than the model's.
void check_same_base(const nn::JsonReader& config, const nn::CausalLm& base);
// … or under `key` another number than the model's.
void check_same_size(const nn::JsonReader& config, const char* key, int64_t of_model);

}  // namespace binade::heads::decoding
