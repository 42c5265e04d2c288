// Dropout (Srivastava et al. 2014), active while training.
#pragma once

#include <binade/autograd/ops/activation.h>
#include <binade/nn/module.h>

namespace binade::nn {

class Dropout : public Module {
 public:
  explicit Dropout(double probability) : probability_(probability) {
    check(probability >= 0 && probability < 1, "a dropout probability lies in [0, 1), got ",
          probability);
  }
  Tensor forward(const Tensor& x) const { return dropout(x, probability_, training()); }

 private:
  double probability_;
};

}  // namespace binade::nn
