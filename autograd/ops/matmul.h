// Products. Class half.
#pragma once

#include <string>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

// (…, M, K) · (…, K, N) → (…, M, N) with broadcast leading dimensions; vectors as in NumPy.
Tensor matmul(const Tensor& a, const Tensor& b);

// Sums of products of elements in Einstein's notation: "bij,bjk->bik" is a batched matmul. A letter
// names a dimension of every operand that has it (of one size, or 1, which broadcasts); letters
// that are not behind the arrow are summed over; one that an operand has twice takes its diagonal.
// "..." stands for further dimensions in front, which broadcast. Without "->" the result has the
// letters that occur once, in alphabetical order. Operands meet from left to right, two at a time,
// by matmul.
Tensor einsum(const std::string& equation, const std::vector<Tensor>& operands);

}  // namespace binade
