// INTERNAL: what models share of decoding few rows (core/kernels/few_rows.h), on a GPU and without
// gradients.
#pragma once

#include <vector>

#include <binade/core/kernels/few_rows.h>
#include <binade/nn/linear.h>
#include <binade/nn/norm.h>

namespace binade::nn {

// x (…, dim) as rows (M, dim).
kernels::FewRows few_rows(const Tensor& x);

struct DecodedStream {
  Array whole, normed;  // (M, dim)
};
// A stream in one piece, and its norm.
DecodedStream decoded_norm(const kernels::FewRows& stream, const RmsNorm& norm);

// linear(hidden (…, dim), weight (N, dim)) → (…, N): an output layer, by the kernels where they
// take it.
Tensor output_logits(const Tensor& hidden, const Tensor& weight);

struct NormedInput {
  Tensor x;  // (…, dim)
  const RmsNorm* norm;
};
// A layer of norms side by side (…, Σ dim) → (…, N), or nothing where the kernels do not take them.
Tensor few_rows_of_norms(const std::vector<NormedInput>& inputs, const Linear& layer);

}  // namespace binade::nn
