// INTERNAL. The windows of convolutions and pooling along a dimension.
#pragma once

#include <cstdint>

#include <binade/autograd/ops/common.h>

namespace binade::ops {

struct Window {
  int64_t kernel, stride, padding, dilation;

  int64_t extent() const { return (kernel - 1) * dilation + 1; }  // from its first to its last
};

// Throws Error for a window that cannot be, and for one so large that places in it could not be
// counted beside those of an array: sizes of arrays stay below 2^37.
inline void check_window(const char* op, const Window& window) {
  constexpr int64_t kLargestStep = 1 << 24, kLargest = int64_t{1} << 36;
  const auto& [kernel, stride, padding, dilation] = window;
  check(kernel > 0 && stride > 0 && dilation > 0 && padding >= 0, op,
        ": kernel, stride and dilation must be above 0 and padding not below, got kernel ", kernel,
        ", stride ", stride, ", dilation ", dilation, ", padding ", padding);
  check(kernel <= kLargest && padding <= kLargest && stride <= kLargestStep &&
            dilation <= kLargestStep,
        op, ": there are no arrays for a kernel of ", kernel, ", a stride of ", stride,
        ", a dilation of ", dilation, " and a padding of ", padding);
}

// How often a window fits into `size` elements of x, padded on both sides. Throws Error as
// check_window() does, and where it never does.
inline int64_t window_positions(const char* op, const Tensor& x, int64_t size,
                                const Window& window) {
  check_window(op, window);
  const int64_t room = size + 2 * window.padding - window.extent();
  check(room >= 0, op, ": a window of ", window.extent(), " does not fit into x ", Kind{x},
        " with padding ", window.padding);
  return room / window.stride + 1;
}

}  // namespace binade::ops
