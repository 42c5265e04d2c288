#include "shared.h"

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include <catch2/catch.hpp>

#include "skip.h"

namespace binade::test {
namespace fs = std::filesystem;
namespace {

std::vector<fs::path> candidate_folders() {
  if (const char* folder = std::getenv("BINADE_SHARED")) return {folder};
  std::vector<fs::path> folders;
  for (fs::path path = BINADE_SOURCE_DIR; path != path.root_path(); path = path.parent_path())
    folders.push_back(path / "shared");
  return folders;
}

}  // namespace

std::optional<std::string> shared_path(const std::string& relative) {
  for (const fs::path& folder : candidate_folders())
    if (fs::exists(folder / relative)) return (folder / relative).string();

  const std::string reason = "shared/" + relative + " is not beside the checkout";
  const char* ci = std::getenv("CI");
  if (ci && std::string_view(ci) == "true") FAIL(reason);
  note_skip(reason);
  return std::nullopt;
}

}  // namespace binade::test
