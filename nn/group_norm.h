// GroupNorm (Wu & He 2018): statistics of groups of channels, f32 under every preset.
#pragma once

#include <binade/autograd/ops/norm.h>
#include <binade/nn/module.h>

namespace binade::nn {

class GroupNorm : public Module {
 public:
  GroupNorm(int64_t groups, int64_t channels, double eps = 1e-5) : groups_(groups), eps_(eps) {
    check(groups > 0 && channels > 0 && channels % groups == 0, "a group norm's ", channels,
          " channels do not split into ", groups, " groups");
    weight_ = add_parameter("weight", {channels}, init::ones(), true);
    bias_ = add_parameter("bias", {channels}, init::zeros(), true);
  }

  // x (N, C, …) → the same.
  Tensor forward(const Tensor& x) const {
    return group_norm(x, groups_, weight_->tensor(), bias_->tensor(), eps_);
  }

 private:
  int64_t groups_;
  double eps_;
  ParameterPtr weight_, bias_;
};

}  // namespace binade::nn
