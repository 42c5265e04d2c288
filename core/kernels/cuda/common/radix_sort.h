// Stable radix sorts of unsigned keys with 32-bit values, for the kernels that need an order.
#pragma once

#include <cstdint>

namespace binade::kernels::cuda {

// Sorts each of `segments` runs of `length` pairs by the low `bits` bits of their keys, ascending.
// Key is uint32_t or uint64_t. Can be captured: nothing depends on the contents.
template <class Key>
void sort_pairs(const Key* keys, Key* sorted_keys, const uint32_t* values, uint32_t* sorted_values,
                int64_t segments, int64_t length, int bits);

}  // namespace binade::kernels::cuda
