// BatchNorm2d and 1d (Ioffe & Szegedy 2015): statistics a channel over (N, H, W), f32 under every
// preset.
#pragma once

#include <binade/autograd/ops/conv.h>
#include <binade/nn/module.h>

namespace binade::nn {

class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(int64_t channels, double eps = 1e-5, double momentum = 0.1)
      : eps_(eps), momentum_(momentum) {
    weight_ = add_parameter("weight", {channels}, init::ones(), true);
    bias_ = add_parameter("bias", {channels}, init::zeros(), true);
    running_mean_ = add_buffer("running_mean", Array::zeros({channels}, DType::f32));
    running_var_ = add_buffer("running_var", Array::full({channels}, 1, DType::f32));
  }

  // x (N, C, H, W). While training, normalises with the batch's statistics and moves the running
  // ones.
  Tensor forward(const Tensor& x) const {
    return batch_norm(x, weight_->tensor(), bias_->tensor(), *running_mean_, *running_var_,
                      {eps_, momentum_, training()});
  }

 private:
  double eps_, momentum_;
  ParameterPtr weight_, bias_;
  BufferPtr running_mean_, running_var_;
};

// The same over (N, L) of x (N, C, L), or over N of x (N, C).
class BatchNorm1d : public BatchNorm2d {
 public:
  using BatchNorm2d::BatchNorm2d;
};

}  // namespace binade::nn
