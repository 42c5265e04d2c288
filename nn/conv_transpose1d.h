// ConvTranspose1d: the gradient of a convolution of sequences by its input as a layer, NCL.
#pragma once

#include <binade/autograd/ops/conv_variants.h>
#include <binade/nn/conv_layer.h>

namespace binade::nn {

class ConvTranspose1d : public ConvLayer {
 public:
  // Weight (C, K/groups, kernel).
  ConvTranspose1d(int64_t in_channels, int64_t out_channels, int64_t kernel,
                  const ConvTranspose1dOptions& options = {}, bool bias = true)
      : ConvLayer("conv_transpose1d", {in_channels, out_channels, {kernel}, options.groups},
                  Weight::by_input, bias),
        options_(options) {}

  // x (N, C, L) → (N, K, L').
  Tensor forward(const Tensor& x) const { return conv_transpose1d(x, weight(), bias(), options_); }

 private:
  ConvTranspose1dOptions options_;
};

}  // namespace binade::nn
