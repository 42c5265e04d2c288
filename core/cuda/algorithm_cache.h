// The table of matmul algorithms on disk, so that a second process need not time them again.
#pragma once

#include <binade/core/device.h>

namespace binade::cuda {

// The file is matmul-<name of the GPU>-<version of cuBLASLt>.json in the cache folder
// ($BINADE_CACHE, or ~/.cache/binade; without either nothing is kept): one for all GPUs of a kind.
// A file that cannot be read or written costs a log line, never the run. In deterministic mode
// neither does anything: choices do not depend on timings then.

// Reads the file of the device's kind, once per process.
void load_algorithm_cache(Device device);
// Writes that table if it has changed since.
void save_algorithm_cache(Device device);

}  // namespace binade::cuda
