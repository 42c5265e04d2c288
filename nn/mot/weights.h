// INTERNAL. Weights of files into modules.
#pragma once

#include <filesystem>

#include <binade/nn/hf.h>
#include <binade/nn/module.h>

namespace binade::nn {

// Throws Error that names the file for tensors that are missing, unexpected or of another shape,
// and one that names the tensor for values that are not finite.
inline void load_weights(Module& model, const StateDict& state, const std::filesystem::path& file) {
  for (const auto& [name, values] : state) check_finite(name, values);
  try {
    model.load_state(state);
  } catch (const Error& error) {
    fail(file.string(), ": ", error.what());
  }
}

}  // namespace binade::nn
