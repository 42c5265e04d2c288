// In place of core/kernels/cuda/common/async_copy.cuh: copies into shared memory that happen as
// late as a device may leave them, when the thread waits for their group.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

namespace binade::kernels::cuda {

// Of the memory whose size the launch decides: bytes from its begin.
inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(static_cast<const char*>(shared) -
                               static_cast<const char*>(::emulated::dynamic_shared));
}
inline char* at_shared_address(uint32_t address) {
  return static_cast<char*>(::emulated::dynamic_shared) + address;
}

struct LateCopy {
  uint32_t to;
  const void* from;  // null: zeros
  uint32_t bytes;
};
struct LateCopies {
  uint64_t block;  // those that a block leaves behind, nobody waits for
  std::vector<LateCopy> open;
  std::deque<std::vector<LateCopy>> closed;
};
inline LateCopies& late_copies() {  // of the thread that runs
  static std::map<unsigned, LateCopies> of_threads;
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  LateCopies& copies = of_threads[thread];
  if (copies.block != ::emulated::block_number()) copies = {::emulated::block_number(), {}, {}};
  return copies;
}

inline void copy_beside(uint32_t to, const void* from, bool zeros) {
  late_copies().open.push_back({to, zeros ? nullptr : from, 16});
}
inline void copy_word_beside(uint32_t to, const void* from) {
  late_copies().open.push_back({to, from, 4});
}
inline void close_copies() {
  LateCopies& copies = late_copies();
  copies.closed.push_back(std::move(copies.open));
  copies.open.clear();
}
template <int kLeft>
void copies_done() {
  std::deque<std::vector<LateCopy>>& closed = late_copies().closed;
  for (; closed.size() > kLeft; closed.pop_front())
    for (const LateCopy& copy : closed.front()) {
      if (copy.to % copy.bytes != 0 || reinterpret_cast<uintptr_t>(copy.from) % copy.bytes != 0)
        ::emulated::fail_launch("a copy into shared memory is not aligned");
      if (copy.from)
        memcpy(at_shared_address(copy.to), copy.from, copy.bytes);
      else
        memset(at_shared_address(copy.to), 0, copy.bytes);
    }
}

}  // namespace binade::kernels::cuda
