// INTERNAL. How much memory the machine has left for this process. Linux promises more than there
// is and ends the process that touches it, so large requests are checked before they are made.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace binade {

struct HostMemory {
  int64_t total = 0;  // bytes: the machine's, or the limit of the process's control group
  // Of them, what could still be had, less a small reserve; free swap space counts, too.
  int64_t available = 0;
  bool limited = false;  // by a control group, as in a container

  // "the machine has 15.50 GiB of memory, of which 9.25 GiB are available"
  std::string describe() const;
};

// From /proc/meminfo and the memory limits of control groups (v2 and v1) below `root`, whichever
// leaves least; nothing where the system does not say. Some 0.1 ms.
std::optional<HostMemory> host_memory(const std::filesystem::path& root = "/");

}  // namespace binade
