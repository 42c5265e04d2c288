// INTERNAL. What of a configuration another does not have. For .cpp files of this folder.
#pragma once

#include <string>

#include <binade/nn/models/config.h>

namespace binade::nn {

// The name of the first field in which the models differ that these valid configurations describe,
// "rope.factor" for one in it; empty if there is none. Fields that say the same in other words (a
// size left to its default, windows by layer and in every layer) do not differ, nor does what
// generation_config.json says.
std::string first_difference(const CausalLmConfig& a, const CausalLmConfig& b);

}  // namespace binade::nn
