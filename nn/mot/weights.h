// INTERNAL. Weights of files into modules.
#pragma once

#include <filesystem>

#include <binade/nn/hf.h>
#include <binade/nn/module.h>

namespace binade::nn {

// Throws Error that names the file for tensors that are missing, unexpected, of another shape or
// not finite.
inline void load_weights(Module& model, const StateDict& state, const std::filesystem::path& file) {
  try {
    for (const auto& [name, values] : state) check_finite(name, values);
    model.load_state(state);
  } catch (const Error& error) {
    fail(file.string(), ": ", error.what());
  }
}

}  // namespace binade::nn
