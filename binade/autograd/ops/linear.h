// Linear layers: x·Wᵀ + b. Class half. Weight and bias gradients accumulate in place (β = 1).
#pragma once

#include <binade/autograd/tape.h>

namespace binade {

// x (…, I) · weightᵀ, weight (O, I) as in Hugging Face, plus bias (O) or undefined → (…, O).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// Several layers of one input side by side: weights (O_k, I), biases (O_k) or none at all →
// (…, ΣO_k). One product where the weights lie end to end in memory, as neighbours in an
// optimizer's buffers do; otherwise one each.
Tensor linear_joint(const Tensor& x, const TensorList& weights, const TensorList& biases = {});
// GPT-2's feed-forward layer as one op: gelu_tanh(x·upᵀ + up_bias)·downᵀ + down_bias for x (…, I),
// up (H, I), down (O, H) and biases (H) and (O) or undefined → (…, O). GELU and its derivative ride
// on the products. Kept for backward: x, the value before GELU, and the one behind it. Under
// Recompute::activations the latter is made again beside GELU's derivative, as GELU of the former
// after its rounding: to other bits than those that the forward pass used.
Tensor gelu_mlp(const Tensor& x, const Tensor& up, const Tensor& up_bias, const Tensor& down,
                const Tensor& down_bias);
// The second half of Llama's feed-forward layer as one op: h = silu(gate)·up for gate_up (…, 2H),
// gate beside up as linear_joint leaves them, then h·weightᵀ + bias for weight (O, H) and bias (O)
// or undefined → (…, O). SwiGLU's derivative rides on the product for dh. Kept for backward:
// gate_up and, unless under Recompute::activations, h.
Tensor swiglu_linear(const Tensor& gate_up, const Tensor& weight, const Tensor& bias = {});

}  // namespace binade
