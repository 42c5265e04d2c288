// The feed-forward layers of GPT-2 and Llama as one op each. Class half.
#pragma once

#include <binade/autograd/tape.h>

namespace binade {

// GPT-2's feed-forward layer as one op: gelu_tanh(x·upᵀ + up_bias)·downᵀ + down_bias for x (…, I),
// up (H, I), down (O, H) and biases (H) and (O) or undefined → (…, O). GELU and its derivative ride
// on the matmuls. Kept for backward: x, the value before GELU, and the one behind it. Under
// Recompute::activations the latter is recomputed beside GELU's derivative, as GELU of the former
// after its rounding: to other bits than those that the forward pass used.
Tensor gelu_mlp(const Tensor& x, const Tensor& up, const Tensor& up_bias, const Tensor& down,
                const Tensor& down_bias);
// Llama's feed-forward layer as one op: (silu(x·gateᵀ) · x·upᵀ)·downᵀ for x (…, I), gate and up
// (H, I), down (O, H), with biases (H), (H) and (O) or none at all → (…, O). SwiGLU and its
// derivative ride on the matmuls. Kept for backward: x, the values before SwiGLU and, unless under
// Recompute::activations, the one behind it, which is recomputed to the same bits.
Tensor swiglu_mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                  const TensorList& biases = {});

}  // namespace binade
