// Copies in another order: padded, cut, flipped, rolled, each element repeated.
#pragma once

#include <span>

#include <binade/core/host_device.h>
#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// What lies beyond an input: a number, its mirror image about the edge (which is not repeated), its
// edge, or its other side.
enum class Beyond : uint8_t { number, mirror, edge, other_side };

// Position p along a dimension of `size` elements, or what stands for it beyond them; −1: a number.
template <class Index>
BINADE_HOST_DEVICE Index position_for(Index p, Index size, Beyond beyond) {
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
    return position_for(reversed ? offset - i : i + offset, size, beyond);
  }
};

// Positions of out, `outputs` along one dimension, that take position `j` of x: runs [begin, end)
// in rising order, the one before x's first element, x's own, and the one behind its last. For maps
// that neither repeat nor reverse.
template <class Index>
struct AxisReaders {
  Index begin[3] = {}, end[3] = {};

  BINADE_HOST_DEVICE AxisReaders(const AxisMap& map, Index j, Index outputs) {
    const auto size = static_cast<Index>(map.size), front = static_cast<Index>(-map.offset);
    const Index back = front + size;  // x's own: [front, back)
    put(1, front + j, 0, outputs);
    switch (map.beyond) {
      case Beyond::mirror:
        put(0, front - j, 0, front);
        put(2, front + 2 * (size - 1) - j, back, outputs);
        break;
      case Beyond::edge:
        if (j == 0 && front > 0) end[0] = front < outputs ? front : outputs;
        if (j == size - 1 && back < outputs) {
          begin[2] = back > 0 ? back : 0;
          end[2] = outputs;
        }
        break;
      case Beyond::other_side:
        put(0, front + j - size, 0, front);
        put(2, front + j + size, back, outputs);
        break;
      default:
        break;
    }
  }
  BINADE_HOST_DEVICE Index count() const {
    return end[0] - begin[0] + end[1] - begin[1] + end[2] - begin[2];
  }
  // The kth, from 0 on.
  BINADE_HOST_DEVICE Index at(Index k) const {
    for (int part = 0; part < 2; ++part) {
      const Index here = end[part] - begin[part];
      if (k < here) return begin[part] + k;
      k -= here;
    }
    return begin[2] + k;
  }

 private:
  BINADE_HOST_DEVICE void put(int part, Index i, Index least, Index limit) {
    if (i < least || i >= limit) return;
    begin[part] = i;
    end[part] = i + 1;
  }
};

// out[i0, i1, …] = x[maps[0].source(i0), maps[1].source(i1), …], `number` where one of them says
// so. One dtype, any; out is contiguous. maps: one a dimension.
BINADE_KERNEL(rearrange, const Array& x, std::span<const AxisMap> maps, double number,
              const Array& out)
// dx[j0, j1, …] = Σ dy[i0, i1, …] over all i that rearrange() with these maps takes from j: its
// gradient, for maps that neither repeat nor reverse. One floating dtype; dx is contiguous.
BINADE_KERNEL(rearrange_backward, const Array& dy, std::span<const AxisMap> maps, const Array& dx)

}  // namespace binade::kernels
