// Which language model decoding heads belong to, and what they may copy of it.
#pragma once

#include <cstdint>

#include <binade/nn/models/causal_lm.h>

namespace binade::heads::decoding {

// A fingerprint of a language model's weights (names, shapes, values as f32): CRC-32C. Heads are of
// use with the model they were trained for only; their config.json has it under kBaseFingerprint.
uint32_t weights_fingerprint(const nn::CausalLm& model);
inline constexpr const char* kBaseFingerprint = "binade_base_crc32c";

// The masters of the embedding and of the output layer, (V, dim), without padding. A tied output
// layer is the embedding.
Array embedding_of(const nn::CausalLm& model);
Array output_of(const nn::CausalLm& model);

}  // namespace binade::heads::decoding
