// The word of device memory in which kernels note errors that the host did not check for.
#pragma once

#include <cstdint>

#include <binade/core/device_errors.h>

namespace binade::cuda {

// The current device's word, in device memory; kernels write it with note_fault (numeric.cuh).
uint32_t* fault_word();
// Reads and clears the word of `device` (a host synchronisation); throws Error if a fault was
// noted.
void check_faults(int device);

}  // namespace binade::cuda
