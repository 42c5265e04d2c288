// INTERNAL. For what moves elements without reading what they mean.
#pragma once

#include <cstdint>

#include <binade/core/dtype.h>

namespace binade {

// Calls run(T()) with an unsigned type as wide as the dtype.
template <class Run>
void visit_bits(DType dtype, const Run& run) {
  switch (size_of(dtype)) {
    case 8:
      return run(uint64_t{});
    case 4:
      return run(uint32_t{});
    case 2:
      return run(uint16_t{});
    default:
      return run(uint8_t{});
  }
}

}  // namespace binade
