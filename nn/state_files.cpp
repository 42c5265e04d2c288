#include <binade/nn/state_files.h>

#include <binade/core/safetensors.h>

namespace binade::nn {

StateDict read_state(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  StateDict state;
  for (const std::string& name : file.names()) state.emplace(name, file.get(name).clone());
  return state;
}

}  // namespace binade::nn
