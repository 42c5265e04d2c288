// INTERNAL: what models share of decoding few rows (core/kernels/few_rows.h), on a GPU and without
// gradients.
#pragma once

#include <vector>

#include <binade/core/kernels/few_rows.h>
#include <binade/nn/attention.h>
#include <binade/nn/linear.h>
#include <binade/nn/mlp.h>
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
  Tensor x;             // (…, dim)
  const RmsNorm* norm;  // or null
};
// Whether a pass over x (…, dim) is one for the kernels: few rows on a GPU, without gradients,
// which nobody observes.
bool is_few_rows(const Tensor& x);
// Room for inputs side by side (M, Σ dim); put_norms() writes their norms there. An input without a
// norm goes there as it is.
kernels::FewRows joined_rows(const std::vector<NormedInput>& inputs);
void put_norms(const std::vector<NormedInput>& inputs, const kernels::FewRows& joined);
// A Llama layer that reads something else than its residual stream: residual + attention(read), and
// that + mlp(norm of it). read (M, …) without a norm, residual (M, dim).
bool decodes_layer(const SelfAttention& attention, const GatedMlp& mlp, const RmsNorm& norm,
                   const kernels::FewRows& read, const kernels::FewRows& residual,
                   const Sequence& sequence, const RotaryTables& rotary);
kernels::FewRows decode_layer(const SelfAttention& attention, const GatedMlp& mlp,
                              const RmsNorm& norm, const kernels::FewRows& read,
                              const kernels::FewRows& residual, const Sequence& sequence,
                              const RotaryTables& rotary);

// A layer of norms side by side (…, Σ dim) → (…, N), or nothing where the kernels do not take them.
Tensor few_rows_of_norms(const std::vector<NormedInput>& inputs, const Linear& layer);

}  // namespace binade::nn
