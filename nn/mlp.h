// The two feed-forward layers of decoder-only transformers.
#pragma once

#include <memory>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/mlp.h>
#include <binade/nn/linear.h>

namespace binade::kernels {
struct FewRows;
}

namespace binade::nn {

enum class Activation : uint8_t { gelu_tanh, gelu, relu, silu };

// c_proj(activation(c_fc(x))), under the names of Hugging Face's GPT-2.
class Mlp : public Module {
 public:
  Mlp(int64_t dim, int64_t hidden, Activation activation = Activation::gelu_tanh,
      const Initialiser& weight = init::normal(0.02),
      const Initialiser& output_weight = init::normal(0.02))
      : activation_(activation),
        c_fc_(add<Linear>("c_fc", dim, hidden, true, weight)),
        c_proj_(add<Linear>("c_proj", hidden, dim, true, output_weight)) {}

  // x (…, dim) → (…, dim).
  Tensor forward(const Tensor& x) const {
    if (activation_ == Activation::gelu_tanh && !c_fc_->adapter() && !c_proj_->adapter())
      return gelu_mlp(x, c_fc_->weight()->tensor(), c_fc_->bias()->tensor(),
                      c_proj_->weight()->tensor(), c_proj_->bias()->tensor());
    return c_proj_->forward(activate(c_fc_->forward(x)));
  }

 private:
  Tensor activate(const Tensor& x) const {
    switch (activation_) {
      case Activation::gelu:
        return gelu(x);
      case Activation::relu:
        return relu(x);
      case Activation::silu:
        return silu(x);
      default:
        return gelu_tanh(x);
    }
  }

  Activation activation_;
  std::shared_ptr<Linear> c_fc_, c_proj_;
};

// down_proj(silu(gate_proj(x)) · up_proj(x)) (Shazeer 2020), under the names of Hugging Face's
// Llama.
class SwigluMlp : public Module {
 public:
  SwigluMlp(int64_t dim, int64_t hidden, bool bias = false,
            const Initialiser& weight = init::normal(0.02))
      : gate_proj_(add<Linear>("gate_proj", dim, hidden, bias, weight)),
        up_proj_(add<Linear>("up_proj", dim, hidden, bias, weight)),
        down_proj_(add<Linear>("down_proj", hidden, dim, bias, weight)) {}

  // x (…, dim) → (…, dim).
  Tensor forward(const Tensor& x) const {
    if (!can_join({gate_proj_.get(), up_proj_.get()}))
      return down_proj_->forward(swiglu(gate_proj_->forward(x), up_proj_->forward(x)));
    if (down_proj_->adapter())
      return down_proj_->forward(
          swiglu_packed(forward_joint(x, {gate_proj_.get(), up_proj_.get()})));
    TensorList biases;
    if (down_proj_->bias())
      for (const auto& layer : {gate_proj_, up_proj_, down_proj_})
        biases.push_back(layer->bias()->tensor());
    return swiglu_mlp(x, gate_proj_->weight()->tensor(), up_proj_->weight()->tensor(),
                      down_proj_->weight()->tensor(), biases);
  }

  // residual + mlp(in) for few rows (core/kernels/few_rows.h): in.x and residual (M, dim); with
  // in.sum mlp(in), in parts. Only where decodes() says so of such an `in`.
  bool decodes(const kernels::FewRows& in) const;
  Array decode(const kernels::FewRows& in, const Array& residual) const;

 private:
  std::shared_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

}  // namespace binade::nn
