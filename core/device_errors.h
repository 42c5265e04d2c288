// INTERNAL. Errors that only the GPU sees (an index out of range) are noted in a word of device
// memory by the kernel and reported later, so that no step waits for the host.
#pragma once

#include <cstdint>

#include <binade/core/device.h>

namespace binade {

enum class DeviceFault : uint32_t {
  none = 0,
  index_out_of_range = 1,
  bad_tree_node = 2,
  cache_full = 3,
};

// Reads the word (a host synchronisation), clears it, and throws Error if a kernel had noted a
// fault.
void check_device_faults(Device device);

}  // namespace binade
