// Files that a program writes must be none of those that it reads, nor one another.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <binade/core/error.h>

namespace binade::examples {

struct OutputFile {
  std::string option;  // that names it
  std::filesystem::path path;
};

// Before anything is written. Paths may be empty, or of files that are not there.
inline void check_outputs(const std::vector<OutputFile>& outputs,
                          const std::vector<std::filesystem::path>& inputs) {
  namespace fs = std::filesystem;
  const auto same = [](const fs::path& a, const fs::path& b) {
    std::error_code error;
    return !a.empty() && !b.empty() &&
           (fs::equivalent(a, b, error) ||
            fs::weakly_canonical(a, error) == fs::weakly_canonical(b, error));
  };
  for (size_t i = 0; i < outputs.size(); ++i) {
    for (const fs::path& input : inputs)
      check(!same(outputs[i].path, input), outputs[i].option, " would overwrite ", input.string());
    for (size_t j = 0; j < i; ++j)
      check(!same(outputs[i].path, outputs[j].path), outputs[j].option, " and ", outputs[i].option,
            " are one file, ", outputs[i].path.string());
  }
}

}  // namespace binade::examples
