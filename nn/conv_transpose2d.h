// ConvTranspose2d: the gradient of a two-dimensional convolution by its input as a layer, NCHW.
#pragma once

#include <binade/autograd/ops/conv_variants.h>
#include <binade/nn/conv_layer.h>

namespace binade::nn {

class ConvTranspose2d : public ConvLayer {
 public:
  // Kernels of `kernel` × `kernel`: weight (C, K/groups, kernel, kernel).
  ConvTranspose2d(int64_t in_channels, int64_t out_channels, int64_t kernel,
                  const ConvTranspose2dOptions& options = {}, bool bias = true)
      : ConvLayer("conv_transpose2d", {in_channels, out_channels, {kernel, kernel}, options.groups},
                  Weight::by_input, bias),
        options_(options) {}

  // x (N, C, H, W) → (N, K, H', W').
  Tensor forward(const Tensor& x) const { return conv_transpose2d(x, weight(), bias(), options_); }

 private:
  ConvTranspose2dOptions options_;
};

}  // namespace binade::nn
