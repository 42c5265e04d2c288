// Conv1d: convolution of sequences, NCL.
#pragma once

#include <binade/autograd/ops/conv_variants.h>
#include <binade/nn/conv_layer.h>

namespace binade::nn {

class Conv1d : public ConvLayer {
 public:
  // Weight (K, C/groups, kernel).
  Conv1d(int64_t in_channels, int64_t out_channels, int64_t kernel,
         const Conv1dOptions& options = {}, bool bias = true)
      : ConvLayer("conv1d", {in_channels, out_channels, {kernel}, options.groups},
                  Weight::by_output, bias),
        options_(options) {}

  // x (N, C, L) → (N, K, L').
  Tensor forward(const Tensor& x) const { return conv1d(x, weight(), bias(), options_); }

 private:
  Conv1dOptions options_;
};

}  // namespace binade::nn
