// Conv2d: two-dimensional convolution, NCHW.
#pragma once

#include <binade/autograd/ops/conv.h>
#include <binade/nn/conv_layer.h>

namespace binade::nn {

class Conv2d : public ConvLayer {
 public:
  // Kernels of `kernel` × `kernel`: weight (K, C/groups, kernel, kernel).
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel,
         const Conv2dOptions& options = {}, bool bias = true)
      : ConvLayer("conv2d", {in_channels, out_channels, {kernel, kernel}, options.groups},
                  Weight::by_output, bias),
        options_(options) {}

  // x (N, C, H, W) → (N, K, H', W').
  Tensor forward(const Tensor& x) const { return conv2d(x, weight(), bias(), options_); }

 private:
  Conv2dOptions options_;
};

}  // namespace binade::nn
