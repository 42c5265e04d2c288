// Linear: y = x·Wᵀ + b.
#pragma once

#include <cmath>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

#include <binade/autograd/ops/linear.h>
#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

// Something trained beside a frozen linear layer: see lora.h.
class LinearAdapter : public Module {
 public:
  // x (…, in), y (…, out) the layer's own output → (…, out).
  virtual Tensor forward(const Tensor& x, const Tensor& y) const = 0;
};

class Linear;

// Whether layers of one input can be one op: none has an adapter, all or none have a bias.
bool can_join(std::initializer_list<const Linear*> layers);
// Their outputs side by side: (…, ΣO). Throws Error unless they can be joined.
Tensor forward_joint(const Tensor& x, std::initializer_list<const Linear*> layers);

class Linear : public Module {
 public:
  // The default draws the weight as PyTorch does: U(−1/√in, 1/√in), the bias likewise. With another
  // initialiser the bias starts at zero.
  Linear(int64_t in_features, int64_t out_features, bool bias = true) {
    const double bound = 1 / std::sqrt(static_cast<double>(in_features));
    build(in_features, out_features, bias, init::uniform(-bound, bound),
          init::uniform(-bound, bound));
  }
  Linear(int64_t in_features, int64_t out_features, bool bias, const Initialiser& weight) {
    build(in_features, out_features, bias, weight, init::zeros());
  }

  // x (…, in) → (…, out).
  Tensor forward(const Tensor& x) const {
    const Tensor y = linear(x, weight_->tensor(), bias_tensor());
    return adapter_ ? adapter_->forward(x, y) : y;
  }

  int64_t in_features() const { return weight_->shape()[1]; }
  int64_t out_features() const { return weight_->shape()[0]; }
  const ParameterPtr& weight() const { return weight_; }  // (out, in)
  const ParameterPtr& bias() const { return bias_; }      // (out) or null

  // Null takes the adapter away.
  void set_adapter(std::shared_ptr<LinearAdapter> adapter) {
    remove_child("adapter");
    adapter_ = std::move(adapter);
    if (adapter_) add_child("adapter", adapter_);
  }
  const std::shared_ptr<LinearAdapter>& adapter() const { return adapter_; }

 private:
  void build(int64_t in, int64_t out, bool bias, const Initialiser& weight_values,
             const Initialiser& bias_values) {
    check(in > 0 && out > 0, "a linear layer needs positive sizes, got ", in, " to ", out);
    weight_ = add_parameter("weight", {out, in}, weight_values);
    if (bias) bias_ = add_parameter("bias", {out}, bias_values);
  }
  Tensor bias_tensor() const { return bias_ ? bias_->tensor() : Tensor(); }

  ParameterPtr weight_, bias_;
  std::shared_ptr<LinearAdapter> adapter_;
};

}  // namespace binade::nn
