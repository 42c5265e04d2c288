// INTERNAL. Reading a saved state back, for whoever has arrays by name.
#pragma once

#include <string>

#include <binade/nn/module.h>

namespace binade::optim {

// Copies the saved arrays into those of `own` (handles on the memory to fill), converting dtype and
// device. Throws Error that begins with `who` and writes nothing when a name is missing or unknown,
// a shape differs, an integer is where a float belongs (or the reverse), or a value is not finite.
void load_arrays(const std::string& who, const nn::StateDict& saved, const nn::StateDict& own);

}  // namespace binade::optim
