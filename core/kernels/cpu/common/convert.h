// Conversion between dtypes, a run of elements at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include <binade/core/dtype.h>

namespace binade::kernels::cpu {

// to[i] = from[i] for contiguous runs that do not overlap. Floating to integer truncates, anything
// to bool tests != 0, everything else rounds once to nearest even.
void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count);

// Calls visitor(zero) with an unsigned integer of `item` bytes: elements that are only moved.
template <class Visitor>
void visit_item(int64_t item, Visitor&& visitor) {
  switch (item) {
    case 1:
      return visitor(uint8_t{});
    case 2:
      return visitor(uint16_t{});
    case 4:
      return visitor(uint32_t{});
    default:
      return visitor(uint64_t{});
  }
}

// Packs `count` elements of `item` bytes, `stride` bytes apart, into a contiguous run, and back.
void gather_run(const std::byte* from, int64_t stride, int64_t item, std::byte* to, int64_t count);
void scatter_run(const std::byte* from, std::byte* to, int64_t stride, int64_t item, int64_t count);

}  // namespace binade::kernels::cpu
