// Threads for kernels. Work is cut into blocks by its size alone, never by the number of threads,
// so that whatever a block computes is the same on any machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

namespace binade::kernels::cpu {

// Calls body(index) for index in [0, count) on all threads, in no particular order: `count` is the
// number of tasks, each worth some ten microseconds or more. The first exception is rethrown.
template <class Body>
void parallel_tasks(int64_t count, const Body& body) {
  if (count <= 1) {
    if (count == 1) body(int64_t{0});
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (int64_t index = 0; index < count; ++index) {
    try {
      body(index);
    } catch (...) {
#pragma omp critical(binade_parallel_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

// Calls body(begin, end) for blocks of `grain` elements that tile [0, count).
template <class Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  grain = std::max<int64_t>(grain, 1);
  parallel_tasks((count + grain - 1) / grain,
                 [&](int64_t block) { body(block * grain, std::min(count, (block + 1) * grain)); });
}

}  // namespace binade::kernels::cpu
