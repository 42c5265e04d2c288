// States (of a Module, an Optimizer, a GradScaler) as copies and in files.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <binade/nn/module.h>

namespace binade::nn {

// The same values in memory of their own, as Module::snapshot() gives them of a module. What
// state() gives is the memory that training goes on to write: copy it to keep a model as it is now.
StateDict copy_of(const StateDict& state);

// Several states under names of their own: "model", "optimizer", "scaler".
using States = std::map<std::string, StateDict>;

// One safetensors file whose tensors are called "model/hidden.weight" and so on. It is written
// beside its place and renamed, so that a crash leaves the old one. Throws Error when it cannot be
// written, and for a name of a state that is empty or has a slash in it.
void write_states(const std::filesystem::path& path, const States& states);
// Reads what write_states wrote: copies, on the CPU. Throws Error for a file that is no safetensors
// file, and for a tensor whose name has no slash.
States read_states(const std::filesystem::path& path);

// What write_safetensors(path, module.state()) wrote, or any other safetensors file, by name, on
// the CPU. The arrays are copies: the file may be written again or removed. Throws Error that names
// the file and what is wrong with it. Of a checkpoint of train::Trainer take
// train::read_checkpoint(path).sections.at("model").
StateDict read_state(const std::filesystem::path& path);

}  // namespace binade::nn
