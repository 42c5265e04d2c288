// A linear layer with ReLU behind it as one op. Class half.
#pragma once

#include <binade/autograd/tape.h>

namespace binade {

// relu(x·weightᵀ + bias) for x (…, I), weight (O, I), bias (O) or undefined → (…, O). ReLU rides on
// the matmul and is applied before the one rounding, which gives the values of linear and then
// relu. Only the result is kept for backward beside x: where it is above 0, the gradient passes; so
// it does at NaN, as relu's.
Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace binade
