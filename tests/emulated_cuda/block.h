// Runs the threads of a block on one thread of the CPU: each is a fiber that goes on until it waits
// for others. In which order they go on follows from a number, so that a kernel whose result hangs
// on it is found out.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

namespace emulated {

// Where and what a thread waits for; two that meet must agree in `what`.
struct Place {
  const char* what;
  std::source_location where;
};

// One launch of a kernel, block after block. Throws std::runtime_error with the kernel's name, the
// block and the thread
//   - where memory is touched that no array holds, or at an address that is not aligned;
//   - where threads wait for others that never come;
//   - where shared memory beyond a variable was written;
//   - where a thread takes part in a warp's exchange without being named in its mask, or reads what
//     a thread has that takes no part.
void run_grid(const char* name, dim3 grid, dim3 block, size_t shared_bytes,
              const std::function<void()>& thread);

// Ends the running launch with this error.
[[noreturn]] void fail_launch(const std::string& problem);

// ---- for the functions of device.h --------------------------------------------------------------

// Waits for all threads of the block that have not ended; how many of them gave `vote`.
int meet_block(const Place& place, bool vote);

// What the lanes of `mask` gave.
struct Given {
  uint32_t lanes;  // that took part
  uint64_t values[32];
};
// Waits for all lanes of `mask` that have not ended. The result lasts until the thread waits again.
const Given& meet_warp(const Place& place, uint32_t mask, uint64_t value);
int lane_of_thread();

// Storage of a __shared__ variable, between guards; `variable` is one for each.
struct SharedVariable {
  static constexpr size_t kGuard = 64;
  unsigned char* memory;  // kGuard, bytes, kGuard
  size_t bytes;
  uint64_t block = 0;  // in which it was used last
};
// Of the running block, another for each that ever ran.
uint64_t block_number();
// Fills it with a pattern for the block's first thread that comes here.
void enter_shared(SharedVariable& variable);

}  // namespace emulated
