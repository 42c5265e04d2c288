// Products. Class half.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

// (…, M, K) · (…, K, N) → (…, M, N) with broadcast leading dimensions; vectors as in NumPy.
Tensor matmul(const Tensor& a, const Tensor& b);

}  // namespace binade
