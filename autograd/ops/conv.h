// Image ops, layout NCHW. conv2d is of class half; pooling keeps the dtype; batch norm has f32
// statistics.
#pragma once

#include <array>

#include <binade/autograd/tensor.h>

namespace binade {

struct Conv2dOptions {
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};
  int64_t groups = 1;
};
// x (N, C, H, W), weight (K, C/groups, R, S), bias (K) or undefined → (N, K, Ho, Wo). Any size may
// be 0 as long as the window fits: a sum over nothing leaves the bias.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const Conv2dOptions& options = {});

struct Pool2dOptions {
  std::array<int64_t, 2> kernel = {2, 2};
  std::array<int64_t, 2> stride = {0, 0};  // 0: the kernel's size
  std::array<int64_t, 2> padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};  // max_pool2d only: between a window's elements
  // A last window may begin inside x (or the padding in front) and end beyond it.
  bool ceil_mode = false;
  bool count_include_pad = true;  // avg_pool2d: divides by the window's elements, padding too
};
// Images of no elements (H or W 0) are an Error. A maximum of padding alone is −∞.
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options = {});
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options = {});
// Windows that share H and W evenly: those of output i span [⌊i·H/h⌋, ⌈(i + 1)·H/h⌉). `size` is (h,
// w).
Tensor adaptive_max_pool2d(const Tensor& x, const std::array<int64_t, 2>& size);
Tensor adaptive_avg_pool2d(const Tensor& x, const std::array<int64_t, 2>& size);

enum class Interpolation : uint8_t { nearest, bilinear };
// Images of another size (h, w). nearest takes element ⌊i·H/h⌋; bilinear samples at pixel centres,
// (i + ½)·H/h − ½, or with `align_corners` at i·(H − 1)/(h − 1), and repeats the edge.
Tensor interpolate(const Tensor& x, const std::array<int64_t, 2>& size,
                   Interpolation mode = Interpolation::nearest, bool align_corners = false);

struct BatchNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;
  bool training =
      true;  // batch statistics, moving the running ones; otherwise uses the running ones
};
// x (N, C, …). weight, bias, running_mean, running_var (C) f32; the running ones are updated in
// place. In training x must have at least two values a channel (N·H·W); otherwise Error.
Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const Tensor& running_mean, const Tensor& running_var,
                  const BatchNormOptions& options = {});

}  // namespace binade
