// Layer norm and RMS norm over the last dimension. Their weights stay f32 under every preset.
#pragma once

#include <utility>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/norm.h>
#include <binade/nn/module.h>

namespace binade::nn {

// Ba et al. 2016.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t dim, double eps = 1e-5) : eps_(eps) {
    weight_ = add_parameter("weight", {dim}, init::ones(), true);
    bias_ = add_parameter("bias", {dim}, init::zeros(), true);
  }

  Tensor forward(const Tensor& x) const {
    return layer_norm(x, weight_->tensor(), bias_->tensor(), eps_);
  }
  // {x + residual, norm(x + residual)}.
  std::pair<Tensor, Tensor> forward_add(const Tensor& x, const Tensor& residual) const {
    return add_layer_norm(x, residual, weight_->tensor(), bias_->tensor(), eps_);
  }

 private:
  double eps_;
  ParameterPtr weight_, bias_;
};

// Zhang & Sennrich 2019.
class RmsNorm : public Module {
 public:
  // from_one: what is kept, and saved, is the weight minus 1, as Gemma does; it starts at 0.
  explicit RmsNorm(int64_t dim, double eps = 1e-6, bool from_one = false)
      : eps_(eps), from_one_(from_one) {
    weight_ = add_parameter("weight", {dim}, init::constant(from_one ? 0 : 1), true);
  }

  double eps() const { return eps_; }
  bool from_one() const { return from_one_; }
  const ParameterPtr& weight() const { return weight_; }

  Tensor forward(const Tensor& x) const { return rms_norm(x, factors(), eps_); }
  // {x + residual, norm(x + residual)}.
  std::pair<Tensor, Tensor> forward_add(const Tensor& x, const Tensor& residual) const {
    return add_rms_norm(x, residual, factors(), eps_);
  }

 private:
  Tensor factors() const { return from_one_ ? weight_->tensor() + 1.0 : weight_->tensor(); }

  double eps_;
  bool from_one_;
  ParameterPtr weight_;
};

}  // namespace binade::nn
