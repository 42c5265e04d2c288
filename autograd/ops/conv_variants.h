// Convolutions made of conv2d: over sequences and volumes, and transposed, of class half. Pooling
// of sequences, which keeps the dtype.
#pragma once

#include <array>

#include <binade/autograd/tensor.h>

namespace binade {

struct Conv1dOptions {
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t dilation = 1;
  int64_t groups = 1;
};
// x (N, C, L), weight (K, C/groups, R), bias (K) or undefined → (N, K, Lo).
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const Conv1dOptions& options = {});

struct Conv3dOptions {
  std::array<int64_t, 3> stride = {1, 1, 1};  // of (D, H, W)
  std::array<int64_t, 3> padding = {0, 0, 0};
  std::array<int64_t, 3> dilation = {1, 1, 1};
  int64_t groups = 1;
};
// x (N, C, D, H, W), weight (K, C/groups, Q, R, S), bias (K) or undefined → (N, K, Do, Ho, Wo). The
// Q planes that meet in a place become channels of one conv2d: x is copied Q times.
Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const Conv3dOptions& options = {});

struct ConvTranspose2dOptions {
  std::array<int64_t, 2> stride = {1, 1};
  std::array<int64_t, 2> padding = {0, 0};
  // Rows and columns more behind, fewer than the stride or the dilation.
  std::array<int64_t, 2> output_padding = {0, 0};
  std::array<int64_t, 2> dilation = {1, 1};
  int64_t groups = 1;
};
// The gradient of conv2d by its input, as a layer: x (N, C, H, W), weight (C, K/groups, R, S), bias
// (K) or undefined → (N, K, Ho, Wo) with Ho = (H − 1)·stride − 2·padding + dilation·(R − 1) +
// output_padding + 1. x and weight may not be empty.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose2dOptions& options = {});

struct ConvTranspose1dOptions {
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t output_padding = 0;
  int64_t dilation = 1;
  int64_t groups = 1;
};
// The same of sequences: x (N, C, L), weight (C, K/groups, R) → (N, K, Lo).
Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose1dOptions& options = {});

struct Pool1dOptions {
  int64_t kernel = 2;
  int64_t stride = 0;  // 0: the kernel's size
  int64_t padding = 0;
  int64_t dilation = 1;           // max_pool1d only: between a window's elements
  bool ceil_mode = false;         // as Pool2dOptions say
  bool count_include_pad = true;  // avg_pool1d
};
// Pooling of sequences x (N, C, L), as that of images of one row (conv.h).
Tensor max_pool1d(const Tensor& x, const Pool1dOptions& options = {});
Tensor avg_pool1d(const Tensor& x, const Pool1dOptions& options = {});
// Windows that share L evenly → (N, C, size).
Tensor adaptive_max_pool1d(const Tensor& x, int64_t size);
Tensor adaptive_avg_pool1d(const Tensor& x, int64_t size);

}  // namespace binade
