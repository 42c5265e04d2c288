// Choosing positions: by mask, by several indices, by order, by chance.
#pragma once

#include <binade/core/kernels/kernels.h>
#include <binade/core/random.h>

namespace binade::kernels {

// Elements of a mask that are counted together.
inline constexpr int64_t kMaskChunk = 4096;
// ends[c] (i64) = how many of the first (c + 1)·kMaskChunk elements of mask (N), contiguous bool,
// are true.
BINADE_KERNEL(count_mask, const Array& mask, const Array& ends)
// out = the elements of x where mask is true, in order, for `ends` of count_mask. x and mask (N),
// out (ends.back()) contiguous; x and out of one dtype, any.
BINADE_KERNEL(mask_compact, const Array& x, const Array& mask, const Array& ends, const Array& out)
// The same backwards: out[i] = the next element of x where mask[i] is true, 0 elsewhere; x
// (ends.back()), mask and out (N).
BINADE_KERNEL(mask_expand, const Array& x, const Array& mask, const Array& ends, const Array& out)

// out (i64, contiguous) = beta·out + stride · index, where an index below 0 counts from the back of
// `size` positions. One that is out of range, or was so in out, makes out −1 on the GPU and notes a
// fault; on the CPU it throws Error.
BINADE_KERNEL(flat_index, const Array& index, int64_t size, int64_t stride, const Array& out,
              float beta)

// out (N, classes), contiguous, any dtype = 1 at [n, index[n]], 0 elsewhere.
BINADE_KERNEL(one_hot, const Array& index, const Array& out)

// out (i64, values' shape) = how many elements of the row of sorted are < value (right: <= value),
// for a NaN value all. sorted (R, S) and values (R, V), contiguous, of one dtype; sorted may have a
// single row for all. Found by halving, in which a NaN of sorted counts as smaller than every value
// (PyTorch's rule): it says nothing useful where the halving meets one.
BINADE_KERNEL(searchsorted, const Array& sorted, const Array& values, bool right, const Array& out)

// out (N, count) i64, contiguous = positions drawn from weights (N, K), contiguous and floating, as
// multinomial_weight() counts them. Draw s of row n takes words 2e and 2e + 1 of the key, with e =
// n · count + s. An impossible draw throws Error on the CPU, and on the GPU notes a fault and gives
// 0.
BINADE_KERNEL(multinomial, const Array& weights, const PhiloxKey& key, bool replacement,
              const Array& out)

// A weight in units of 2^-40 of the largest; the sum of 2^23 such fits into 63 bits.
BINADE_HOST_DEVICE inline uint64_t multinomial_weight(double weight, double largest) {
  // Once divided for a whole row, unless that would leave the range.
  if (largest > 0x1p-900) return static_cast<uint64_t>(std::rint(weight * (0x1p40 / largest)));
  return static_cast<uint64_t>(std::rint(weight / largest * 0x1p40));
}
inline constexpr int64_t kMostWeights = int64_t{1} << 23;

// The 64 random bits of draw `element`.
BINADE_HOST_DEVICE inline uint64_t multinomial_bits(uint64_t seed, uint64_t step, uint64_t place,
                                                    uint64_t element) {
  const PhiloxBlock block = philox(seed, step, place, element / 2);
  const bool second = element % 2 != 0;
  return (uint64_t{block.word[second ? 2 : 0]} << 32) | block.word[second ? 3 : 1];
}

}  // namespace binade::kernels
