// Linear layers: x·Wᵀ + b. Class half. Weight and bias gradients accumulate in place (β = 1).
#pragma once

#include <binade/autograd/tape.h>

namespace binade {

// x (…, I) · weightᵀ, weight (O, I) as in Hugging Face, plus bias (O) or undefined → (…, O).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// Several layers of one input side by side: weights (O_k, I), biases (O_k) or none at all →
// (…, ΣO_k). One matmul where the weights are contiguous, each right behind the one before, as
// neighbours in an optimizer's buffers are; otherwise one each.
Tensor linear_joint(const Tensor& x, const TensorList& weights, const TensorList& biases = {});

}  // namespace binade
