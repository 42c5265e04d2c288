// INTERNAL. Rotary positions in config.json, in the forms of every version of transformers. For
// .cpp files of this folder.
#pragma once

#include <optional>

#include <binade/nn/models/families.h>

namespace binade::nn {

// Of layers without a window of their own. Reads config's sizes; with "dynamic" it raises
// config.max_positions to those that the factor stretches to.
RopeConfig parse_rope(const JsonReader& reader, const FamilyRow& row, CausalLmConfig& config);
// Of Gemma's windowed layers.
RopeConfig parse_window_rope(const JsonReader& reader);
// Adds "max_position_embeddings" and all keys of rotary positions.
void write_rope(const CausalLmConfig& config, nlohmann::json& object);

}  // namespace binade::nn
