// Where windows and samples of images lie, once for CPU and GPU. One dimension at a time.
#pragma once

#include <cstdint>

#include <binade/core/host_device.h>
#include <binade/core/kernels/conv.h>

namespace binade::kernels {

// One dimension of a pooling.
struct PoolAxis {
  int64_t kernel, stride, padding, dilation;
  bool adaptive;
  int64_t size, outputs;  // elements of the input and of the output
};
BINADE_HOST_DEVICE inline PoolAxis pool_rows(const PoolParams& p, int64_t size, int64_t outputs) {
  return {p.kernel_h, p.stride_h, p.padding_h, p.dilation_h, p.adaptive, size, outputs};
}
BINADE_HOST_DEVICE inline PoolAxis pool_columns(const PoolParams& p, int64_t size,
                                                int64_t outputs) {
  return {p.kernel_w, p.stride_w, p.padding_w, p.dilation_w, p.adaptive, size, outputs};
}

// Positions begin, begin + step, … below end: what output `o` covers, padding left out.
struct PoolWindow {
  int64_t begin, end, step;
  int64_t padded;  // how many positions there are with those of the padding
};
BINADE_HOST_DEVICE inline PoolWindow pool_window(const PoolAxis& axis, int64_t o) {
  if (axis.adaptive) {
    const int64_t begin = o * axis.size / axis.outputs;
    const int64_t end = ((o + 1) * axis.size + axis.outputs - 1) / axis.outputs;
    return {begin, end, 1, end - begin};
  }
  const int64_t start = o * axis.stride - axis.padding;
  const int64_t extent = (axis.kernel - 1) * axis.dilation + 1;
  // The first position that is inside, one of the window's own.
  const int64_t skipped = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
  const int64_t begin = start + skipped * axis.dilation;
  const int64_t stop = start + extent, end = stop < axis.size ? stop : axis.size;
  const int64_t limit = axis.size + axis.padding;  // a last window may reach beyond the padding
  return {begin, end, axis.dilation, (stop < limit ? stop : limit) - start};
}

// A window's first element in a plane of `width` columns; −1 if padding is all that it holds, which
// dilation can bring about.
BINADE_HOST_DEVICE inline int64_t pool_first(const PoolWindow& rows, const PoolWindow& columns,
                                             int64_t width) {
  if (rows.begin >= rows.end || columns.begin >= columns.end) return -1;
  return rows.begin * width + columns.begin;
}

// Outputs [begin, end): all whose window may cover input `i`.
struct PoolCover {
  int64_t begin, end;
};
BINADE_HOST_DEVICE inline PoolCover pool_cover(const PoolAxis& axis, int64_t i) {
  if (axis.adaptive)
    return {i * axis.outputs / axis.size, ((i + 1) * axis.outputs + axis.size - 1) / axis.size};
  const int64_t last = i + axis.padding;  // the window that starts here, were the stride 1
  const int64_t extent = (axis.kernel - 1) * axis.dilation + 1;
  const int64_t end = last / axis.stride + 1;
  return {last < extent ? 0 : (last - extent) / axis.stride + 1,
          end < axis.outputs ? end : axis.outputs};
}

// What a mean over two windows divides by.
BINADE_HOST_DEVICE inline int64_t pool_divisor(const PoolWindow& rows, const PoolWindow& columns,
                                               bool count_padding) {
  return count_padding ? rows.padded * columns.padded
                       : (rows.end - rows.begin) * (columns.end - columns.begin);
}

// Output `o` = near·x[at] + far·x[next] along one dimension of `size` elements, `outputs` of them.
template <class C>
struct Sample {
  int64_t at, next;
  C near, far;
  // What has no share is left out: 0·∞ would be NaN.
  BINADE_HOST_DEVICE C blend(C x_at, C x_next) const {
    if (far == C(0)) return near * x_at;
    if (near == C(0)) return far * x_next;
    return near * x_at + far * x_next;
  }
};
template <class C>
BINADE_HOST_DEVICE inline Sample<C> interpolation_sample(const InterpolateParams& params, int64_t o,
                                                         int64_t size, int64_t outputs) {
  if (!params.linear) {
    const int64_t at = o * size / outputs;
    return {at, at, C(1), C(0)};
  }
  double place = 0;
  if (params.align_corners) {
    if (outputs > 1)
      place =
          static_cast<double>(o) * static_cast<double>(size - 1) / static_cast<double>(outputs - 1);
  } else {
    place =
        (static_cast<double>(o) + 0.5) * static_cast<double>(size) / static_cast<double>(outputs) -
        0.5;
  }
  if (place < 0) place = 0;
  int64_t at = static_cast<int64_t>(place);
  if (at > size - 1) at = size - 1;
  const C far = static_cast<C>(place - static_cast<double>(at));
  return {at, at + 1 < size ? at + 1 : at, C(1) - far, far};
}

// Outputs [begin, end): all whose sample may read input `i`, and some beside them.
BINADE_HOST_DEVICE inline PoolCover interpolation_cover(const InterpolateParams& params, int64_t i,
                                                        int64_t size, int64_t outputs) {
  // Outputs an input, at least; the sample's place is (o + ½)/ratio − ½ or o/ratio or near it.
  double ratio = static_cast<double>(outputs) / static_cast<double>(size);
  if (params.linear && params.align_corners) {
    if (size == 1 || outputs == 1) return {0, outputs};
    ratio = static_cast<double>(outputs - 1) / static_cast<double>(size - 1);
  }
  const auto first = static_cast<int64_t>((static_cast<double>(i) - 1) * ratio) - 2;
  const auto last = static_cast<int64_t>((static_cast<double>(i) + 2) * ratio) + 2;
  const int64_t begin = i == 0 || first < 0 ? 0 : first;
  const int64_t end = i == size - 1 || last > outputs ? outputs : last;
  return {begin < outputs ? begin : outputs, end};
}

}  // namespace binade::kernels
