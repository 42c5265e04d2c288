#include <binade/nn/state.h>

#include <binade/core/safetensors.h>

namespace binade::nn {

StateDict copy_of(const StateDict& state) {
  StateDict copy;
  for (const auto& [name, array] : state) copy.emplace(name, array.clone());
  return copy;
}

void write_states(const std::filesystem::path& path, const States& states) {
  StateDict all;
  for (const auto& [owner, state] : states) {
    check(!owner.empty() && owner.find('/') == std::string::npos, "a state cannot be called \"",
          owner, "\": expected a name without a slash");
    for (const auto& [name, array] : state) all.emplace(owner + '/' + name, array);
  }
  write_safetensors(path, all);
}

States read_states(const std::filesystem::path& path) {
  States states;
  for (const auto& [name, array] : read_state(path)) {
    const size_t slash = name.find('/');
    check(slash != std::string::npos, path.string(), ": tensor ", name,
          " belongs to no state; expected names such as model/", name,
          " (read_state() reads the weights of one model)");
    states[name.substr(0, slash)].emplace(name.substr(slash + 1), array);
  }
  return states;
}

StateDict read_state(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  StateDict state;
  for (const std::string& name : file.names()) state.emplace(name, file.get(name).clone());
  return state;
}

}  // namespace binade::nn
