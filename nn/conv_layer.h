// What layers of convolutions share: their weight and bias.
#pragma once

#include <cmath>

#include <binade/nn/init.h>
#include <binade/nn/module.h>

namespace binade::nn {

class ConvLayer : public Module {
 protected:
  struct Sizes {
    int64_t in_channels, out_channels;
    Shape kernel;
    int64_t groups;
  };
  // Which of the channels the weight's first dimension has.
  enum class Weight : uint8_t { by_output, by_input };

  // Weight (K, C/groups, kernel…), or by input (C, K/groups, kernel…), and bias (K) are drawn as
  // PyTorch does, from U(−1/√f, 1/√f), where f is the numbers of the weight over its first size.
  // `op` is the convolution's name in errors.
  ConvLayer(const char* op, const Sizes& sizes, Weight order, bool bias) {
    const auto [in, out, kernel, groups] = sizes;
    check(in > 0 && out > 0 && kernel.numel() > 0, op, " needs positive sizes, got ", in, " to ",
          out, " channels with kernels of ", kernel);
    check(groups > 0 && in % groups == 0 && out % groups == 0, op, ": ", in, " and ", out,
          " channels do not split into ", groups, " groups");
    const bool by_output = order == Weight::by_output;
    Shape shape{by_output ? out : in, (by_output ? in : out) / groups};
    for (const int64_t size : kernel) shape.push_back(size);
    const double bound = 1 / std::sqrt(static_cast<double>(shape.numel() / shape[0]));
    const Initialiser values = init::uniform(-bound, bound);
    weight_ = add_parameter("weight", shape, values);
    if (bias) bias_ = add_parameter("bias", {out}, values);
  }

  Tensor weight() const { return weight_->tensor(); }
  Tensor bias() const { return bias_ ? bias_->tensor() : Tensor(); }

 private:
  ParameterPtr weight_, bias_;
};

}  // namespace binade::nn
