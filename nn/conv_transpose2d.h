// ConvTranspose2d: the gradient of a two-dimensional convolution by its input as a layer, NCHW.
#pragma once

#include <cmath>

#include <binade/autograd/ops/conv_variants.h>
#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

class ConvTranspose2d : public Module {
 public:
  // Kernels of `kernel` × `kernel`. Weight (C, K/groups, R, R) and bias (K) are drawn as PyTorch
  // does, from U(−1/√f, 1/√f) with f = K/groups · R².
  ConvTranspose2d(int64_t in_channels, int64_t out_channels, int64_t kernel,
                  const ConvTranspose2dOptions& options = {}, bool bias = true)
      : options_(options) {
    check(in_channels > 0 && out_channels > 0 && kernel > 0,
          "conv_transpose2d needs positive sizes, got ", in_channels, " to ", out_channels,
          " channels with kernels of ", kernel);
    check(options.groups > 0 && in_channels % options.groups == 0 &&
              out_channels % options.groups == 0,
          "conv_transpose2d: ", in_channels, " and ", out_channels, " channels do not split into ",
          options.groups, " groups");
    const int64_t group_channels = out_channels / options.groups;
    const double bound = 1 / std::sqrt(static_cast<double>(group_channels * kernel * kernel));
    const Initialiser values = init::uniform(-bound, bound);
    weight_ = add_parameter("weight", values({in_channels, group_channels, kernel, kernel}, {}));
    if (bias) bias_ = add_parameter("bias", values({out_channels}, {}));
  }

  // x (N, C, H, W) → (N, K, H', W').
  Tensor forward(const Tensor& x) const {
    return conv_transpose2d(x, weight_->tensor(), bias_ ? bias_->tensor() : Tensor(), options_);
  }

 private:
  ConvTranspose2dOptions options_;
  ParameterPtr weight_, bias_;
};

}  // namespace binade::nn
