// Copies in another order: padded, cut, flipped, rolled, each element repeated.
#pragma once

#include <span>

#include <binade/core/host_device.h>
#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// What lies beyond an input: a number, its mirror image about the edge (which is not repeated), its
// edge, or its other side.
enum class Beyond : uint8_t { number, mirror, edge, other_side };

// Which position of x, `size` elements along one dimension, position i of out takes: i / repeats +
// offset, or offset − i / repeats if reversed. It lies less than `size` beyond x, but for `number`
// and `edge`.
struct AxisMap {
  int64_t size = 0, offset = 0, repeats = 1;
  Beyond beyond = Beyond::number;
  bool reversed = false;

  // −1: a number.
  BINADE_HOST_DEVICE int64_t source(int64_t i) const {
    if (repeats != 1) i /= repeats;
    const int64_t p = reversed ? offset - i : i + offset;
    if (p >= 0 && p < size) return p;
    switch (beyond) {
      case Beyond::mirror:
        return p < 0 ? -p : 2 * (size - 1) - p;
      case Beyond::edge:
        return p < 0 ? 0 : size - 1;
      case Beyond::other_side:
        return p < 0 ? p + size : p - size;
      default:
        return -1;
    }
  }
};

// out[i0, i1, …] = x[maps[0].source(i0), maps[1].source(i1), …], `number` where one of them says
// so. One dtype, any; out is contiguous. maps: one a dimension.
BINADE_KERNEL(rearrange, const Array& x, std::span<const AxisMap> maps, double number,
              const Array& out)

}  // namespace binade::kernels
