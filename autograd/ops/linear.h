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
// Recompute::activations the latter is recomputed beside GELU's derivative, as GELU of the former
// after its rounding: to other bits than those that the forward pass used.
Tensor gelu_mlp(const Tensor& x, const Tensor& up, const Tensor& up_bias, const Tensor& down,
                const Tensor& down_bias);
// Llama's feed-forward layer as one op: (silu(x·gateᵀ) · x·upᵀ)·downᵀ for x (…, I), gate and up
// (H, I), down (O, H), with biases (H), (H) and (O) or none at all → (…, O). SwiGLU and its
// derivative ride on the products. Kept for backward: x, the values before SwiGLU and, unless under
// Recompute::activations, the one behind it, which is recomputed to the same bits.
Tensor swiglu_mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                  const TensorList& biases = {});

}  // namespace binade
