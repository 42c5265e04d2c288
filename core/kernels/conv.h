// Convolution and pooling on images, layout NCHW (contiguous).
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

struct ConvParams {
  int64_t stride_h = 1, stride_w = 1;
  int64_t padding_h = 0, padding_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  int64_t groups = 1;
};

// x (N, C, H, W), weight (K, C/groups, R, S), bias (K) or undefined, y (N, K, Ho, Wo).
BINADE_KERNEL(conv2d, const Array& x, const Array& weight, const Array& bias,
              const ConvParams& params, const Array& y)
// Any of dx, dweight, dbias may be undefined. Gradients are β·old + new.
BINADE_KERNEL(conv2d_backward, const Array& x, const Array& weight, const Array& dy,
              const ConvParams& params, const Array& dx, float dx_beta, const Array& dweight,
              float dweight_beta, const Array& dbias, float dbias_beta)

struct PoolParams {
  int64_t kernel_h = 2, kernel_w = 2;
  int64_t stride_h = 2, stride_w = 2;
  int64_t padding_h = 0, padding_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;
  bool count_padding = false;  // avg_pool2d divides by the window's elements, padding too
  bool adaptive = false;       // windows share the input evenly; the sizes above say nothing
};
// Largest of each window; `indices` (i32, y's shape) keeps its position in the H·W plane. A window
// that holds padding alone, which dilation can bring about, has −∞ and position −1: no gradient.
BINADE_KERNEL(max_pool2d, const Array& x, const PoolParams& params, const Array& y,
              const Array& indices)
BINADE_KERNEL(max_pool2d_backward, const Array& dy, const Array& indices, const PoolParams& params,
              const Array& dx)
// Mean of each window. No dilation.
BINADE_KERNEL(avg_pool2d, const Array& x, const PoolParams& params, const Array& y)
BINADE_KERNEL(avg_pool2d_backward, const Array& dy, const PoolParams& params, const Array& dx)

struct InterpolateParams {
  bool linear = false;
  bool align_corners = false;
};
// x (N, C, H, W) and y (N, C, h, w), contiguous; each element of dx sums in a fixed order.
BINADE_KERNEL(interpolate, const Array& x, const InterpolateParams& params, const Array& y)
BINADE_KERNEL(interpolate_backward, const Array& dy, const InterpolateParams& params,
              const Array& dx)

}  // namespace binade::kernels
