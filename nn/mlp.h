// The two feed-forward layers of decoder-only transformers.
#pragma once

#include <memory>

#include <binade/autograd/ops/activation.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/mlp.h>
#include <binade/autograd/ops/shape.h>
#include <binade/nn/linear.h>
#include <binade/nn/linear_relu.h>

namespace binade::kernels {
struct FewRows;
}

namespace binade::nn {

enum class Activation : uint8_t { gelu_tanh, gelu, relu, silu };

inline Tensor activate(Activation activation, const Tensor& x) {
  switch (activation) {
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
    if (activation_ == Activation::relu) return c_proj_->forward(forward_relu(*c_fc_, x));
    return c_proj_->forward(activate(activation_, c_fc_->forward(x)));
  }

 private:
  Activation activation_;
  std::shared_ptr<Linear> c_fc_, c_proj_;
};

struct GatedMlpOptions {
  int64_t dim = 0, hidden = 0;
  bool bias = false;
  Activation activation = Activation::silu;  // of the gate
  bool fused = false;  // one layer gate_up_proj, the gate's half first, as in Phi-3
  Initialiser weight = init::normal(0.02);
};

// down_proj(activation(gate_proj(x)) · up_proj(x)) (Shazeer 2020), under the names of Hugging
// Face's Llama. With SiLU (SwiGLU) it is one op, other activations take several.
class GatedMlp : public Module {
 public:
  explicit GatedMlp(const GatedMlpOptions& options) : activation_(options.activation) {
    const auto layer = [&](const char* name, int64_t in, int64_t out) {
      return add<Linear>(name, in, out, options.bias, options.weight);
    };
    if (options.fused) {
      gate_up_proj_ = layer("gate_up_proj", options.dim, 2 * options.hidden);
    } else {
      gate_proj_ = layer("gate_proj", options.dim, options.hidden);
      up_proj_ = layer("up_proj", options.dim, options.hidden);
    }
    down_proj_ = layer("down_proj", options.hidden, options.dim);
  }

  // x (…, dim) → (…, dim).
  Tensor forward(const Tensor& x) const {
    if (activation_ != Activation::silu) return down_proj_->forward(gated(x));
    if (gate_up_proj_) return down_proj_->forward(swiglu_packed(gate_up_proj_->forward(x)));
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
  Tensor gated(const Tensor& x) const {
    if (!gate_up_proj_) return activate(activation_, gate_proj_->forward(x)) * up_proj_->forward(x);
    const TensorList halves = split(gate_up_proj_->forward(x), down_proj_->in_features(), -1);
    return activate(activation_, halves[0]) * halves[1];
  }

  Activation activation_;
  std::shared_ptr<Linear> gate_proj_, up_proj_, gate_up_proj_, down_proj_;
};

}  // namespace binade::nn
