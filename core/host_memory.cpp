#include <binade/core/host_memory.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

#include <binade/core/error.h>
#include <binade/core/text.h>

namespace binade {

namespace {

namespace fs = std::filesystem;

// The whole number at the start of `text`, behind white space.
std::optional<int64_t> leading_number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

// The number behind `name`, with or without a colon, in a file of lines "name number".
std::optional<int64_t> named_number(const fs::path& path, std::string_view name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(name)) continue;
    std::string_view rest = std::string_view(line).substr(name.size());
    if (rest.starts_with(':')) rest.remove_prefix(1);
    if (rest.starts_with(' ') || rest.starts_with('\t')) return leading_number(rest);
  }
  return std::nullopt;
}

// A file of one number; nothing if it is missing or says "max".
std::optional<int64_t> number(const fs::path& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return leading_number(line);
}

// What a hierarchy of control groups calls its files.
struct GroupFiles {
  const char* limit;
  const char* used;
  std::string_view active_file, inactive_file;  // in memory.stat: file cache, which gives way
};
constexpr GroupFiles kVersion2{"memory.max", "memory.current", "active_file", "inactive_file"};
constexpr GroupFiles kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_active_file", "total_inactive_file"};

// What is left to programs' small requests and to the system, which is in trouble before all is
// gone.
int64_t reserve(int64_t total) {
  return std::min(total / 64, int64_t{256} << 20);
}

constexpr int64_t kBeyondAnyMachine = int64_t{1} << 60;

// Lowers `memory` to what the group in `folder` leaves.
void apply_limit(const fs::path& folder, const GroupFiles& files, int64_t swap,
                 HostMemory& memory) {
  const std::optional<int64_t> limit = number(folder / files.limit);
  const std::optional<int64_t> used = number(folder / files.used);
  if (!limit || !used || *limit > kBeyondAnyMachine) return;  // version 1 says "none" so
  const fs::path statistics = folder / "memory.stat";
  const int64_t cache = named_number(statistics, files.active_file).value_or(0) +
                        named_number(statistics, files.inactive_file).value_or(0);
  const int64_t available = std::max<int64_t>(0, *limit - *used + cache) + swap;
  if (available < memory.available) memory = {*limit, available, true};
}

// The group and those above it, each of which may have a limit. Inside a container the group's path
// can be the host's, of which only the end is there, or nothing: then the root is the container's.
void apply_limits(const fs::path& root, const fs::path& group, const GroupFiles& files,
                  int64_t swap, HostMemory& memory) {
  for (fs::path path = group.relative_path(); !path.empty(); path = path.parent_path())
    apply_limit(root / path, files, swap, memory);
  apply_limit(root, files, swap, memory);
}

}  // namespace

std::string HostMemory::describe() const {
  return concat(
      limited ? "the control group (container) of this process may use " : "the machine has ",
      gib(total), " of memory, of which ", gib(available), " are available");
}

std::optional<HostMemory> host_memory(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  const std::optional<int64_t> total = named_number(meminfo, "MemTotal");
  const std::optional<int64_t> available = named_number(meminfo, "MemAvailable");
  if (!total || !available) return std::nullopt;
  const int64_t swap = named_number(meminfo, "SwapFree").value_or(0) * 1024;
  HostMemory memory{*total * 1024, *available * 1024 + swap, false};

  // Lines "number:controllers:path"; version 2 has number 0 and no controllers.
  std::ifstream groups(root / "proc/self/cgroup");
  std::string hierarchy, controllers, path;
  while (std::getline(groups, hierarchy, ':') && std::getline(groups, controllers, ':') &&
         std::getline(groups, path)) {
    const fs::path mounted = root / "sys/fs/cgroup";
    if (controllers.empty()) {
      apply_limits(mounted, path, kVersion2, swap, memory);
    } else if (controllers == "memory") {
      apply_limits(mounted / "memory", path, kVersion1, swap, memory);
    }
  }
  memory.available = std::max<int64_t>(0, memory.available - reserve(memory.total));
  return memory;
}

}  // namespace binade
