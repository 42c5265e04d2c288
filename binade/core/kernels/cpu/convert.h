// Conversion between dtypes, a run of elements at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include <binade/core/dtype.h>

namespace binade::kernels::cpu {

// to[i] = from[i] for contiguous runs that do not overlap. Floating to integer truncates, anything
// to bool tests != 0, everything else rounds once to nearest even.
void convert(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t count);

// Packs `count` elements of `item` bytes, `stride` bytes apart, into a contiguous run, and back.
void gather_run(const std::byte* from, int64_t stride, int64_t item, std::byte* to, int64_t count);
void scatter_run(const std::byte* from, std::byte* to, int64_t stride, int64_t item, int64_t count);

}  // namespace binade::kernels::cpu
