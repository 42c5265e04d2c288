// The learning-to-rank data that lies beside the checkout, packed.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "shared.h"
#include "skip.h"
#include "temporary_folder.h"

namespace binade::test {

// The .txt files of shared/data/ltr/NAME.tar.xz in order of their names, unpacked into `folder`;
// none, and a skip, where the archive or tar is missing.
inline std::vector<std::filesystem::path> ranking_files(const std::string& name,
                                                        const TemporaryFolder& folder) {
  const auto archive = shared_path("data/ltr/" + name + ".tar.xz");
  if (!archive) return {};
  const std::string command =
      "tar xJf '" + *archive + "' -C '" + folder.path().string() + "' 2>/dev/null";
  if (std::system(command.c_str()) != 0) {
    note_skip("tar cannot unpack " + name + ".tar.xz");
    return {};
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder / name)) {
    const std::string file = entry.path().filename().string();
    if (entry.path().extension() == ".txt" && file.find("readme") == std::string::npos)
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace binade::test
