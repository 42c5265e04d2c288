// Layers of a decoder for few rows, 1 to 16: a step of decoding, the nodes of a draft. Such a pass
// costs what it takes to read the weights once, and to start kernels; so these do in one kernel
// what training does in several. Each begins to read its weights before the kernel in front of it
// has ended (programmatic dependent launch): a weight must not be written by the two kernels in
// front of it.
//
// On a GPU only. Sums run in f32, on tensor cores, in an order that depends on the sizes alone.
#pragma once

#include <vector>

#include <binade/core/kernels/decode.h>

namespace binade::kernels {

inline constexpr int64_t kMostFewRows = 16;

struct FewRows {
  Array x;         // (M, K)
  Array norm;      // (K) f32: the rows go through an RMS norm of this weight first; or undefined
  double eps = 0;  // of the norm
};

// weight (N, K), bias (N) or undefined.
struct FewRowsLayer {
  Array weight, bias;
};

// Whether the kernels below take these rows and layers: M ≤ kMostFewRows, f16 or bf16 all alike
// (the norm f32), K and N multiples of 8, rows contiguous and 16-byte aligned, on a GPU of compute
// capability 8.0 or newer.
bool suits_few_rows(const FewRows& in, const std::vector<FewRowsLayer>& layers);

// The three projections of attention, and where their results go.
struct FewRowsAttention {
  FewRowsLayer query, key, value;
  Array cos, sin;        // (M, D/2) f32: rotations of queries and keys
  int64_t head_dim = 0;  // D, a multiple of 16
};

namespace cuda {

// out (M, N) = x·weightᵀ + bias (+ residual (M, N), or undefined), rounded once.
void few_rows_linear(const Array& x, const FewRowsLayer& layer, const Array& residual,
                     const Array& out);
// out (M, N) = silu(in·gateᵀ)·(in·upᵀ) of what their rounding leaves. Rows with a norm.
void few_rows_swiglu(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                     const Array& out);
// Rows with a norm; row b·T + t is token t of row b of the pass. queries (M, Hq·D) contiguous; keys
// and values go to the cache as cache_write puts them (S, Hkv, capacity, D). Each is rounded before
// its rotation and behind it.
void few_rows_attention_inputs(const FewRows& in, const FewRowsAttention& layers,
                               const PassRows& rows, const Array& queries, const Array& cached_keys,
                               const Array& cached_values);

}  // namespace cuda
}  // namespace binade::kernels
