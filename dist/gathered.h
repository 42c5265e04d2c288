// INTERNAL. What every rank says, in their order.
#pragma once

#include <type_traits>
#include <vector>

#include <binade/dist/communicator.h>

namespace binade::dist {

// For all ranks of a communicator on the CPU.
template <class T>
std::vector<T> gathered(Communicator& control, const T& own) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> all(static_cast<size_t>(control.size()));
  std::vector<Communicator::Block> blocks;
  for (T& one : all) blocks.push_back({&one, sizeof one});
  all[static_cast<size_t>(control.rank())] = own;
  control.all_gather(blocks);
  return all;
}

}  // namespace binade::dist
