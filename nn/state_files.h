// States in files of their own.
#pragma once

#include <filesystem>

#include <binade/nn/module.h>

namespace binade::nn {

// What write_safetensors(path, module.state()) wrote, or any other safetensors file, by name. The
// arrays are copies: the file may be written again or removed. Throws Error that names the file and
// what is wrong with it. Of a checkpoint take train::read_checkpoint(path).sections.at("model").
//
//   write_safetensors("net.safetensors", net.state());
//   net.load_state(nn::read_state("net.safetensors"));
StateDict read_state(const std::filesystem::path& path);

}  // namespace binade::nn
