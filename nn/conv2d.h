// Conv2d: two-dimensional convolution, NCHW.
#pragma once

#include <cmath>

#include <binade/autograd/ops/conv.h>
#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

class Conv2d : public Module {
 public:
  // Kernels of `kernel` × `kernel`. Weight and bias are drawn as PyTorch does, from U(−1/√fan_in,
  // 1/√fan_in).
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel,
         const Conv2dOptions& options = {}, bool bias = true)
      : options_(options) {
    check(options.groups > 0 && in_channels % options.groups == 0 &&
              out_channels % options.groups == 0,
          "conv2d: ", in_channels, " and ", out_channels, " channels do not split into ",
          options.groups, " groups");
    const int64_t group_channels = in_channels / options.groups;
    const double bound = 1 / std::sqrt(static_cast<double>(group_channels * kernel * kernel));
    const Initialiser values = init::uniform(-bound, bound);
    weight_ = add_parameter("weight",
                            values({out_channels, group_channels, kernel, kernel}, Device::cpu()));
    if (bias) bias_ = add_parameter("bias", values({out_channels}, Device::cpu()));
  }

  // x (N, C, H, W) → (N, K, H', W').
  Tensor forward(const Tensor& x) const {
    return conv2d(x, weight_->tensor(), bias_ ? bias_->tensor() : Tensor(), options_);
  }

 private:
  Conv2dOptions options_;
  ParameterPtr weight_, bias_;
};

}  // namespace binade::nn
