// Products. Class half.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

// (…, M, K) · (…, K, N) → (…, M, N) with broadcast leading dimensions; vectors as in NumPy.
Tensor matmul(const Tensor& a, const Tensor& b);
// x (…, I) · weightᵀ, weight (O, I) as in Hugging Face, plus bias (O) or undefined → (…, O). Weight
// and bias gradients accumulate in place (β = 1).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// gelu_tanh(linear(x, weight, bias)), fused: the pre-activation is kept, nothing else.
Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace binade
