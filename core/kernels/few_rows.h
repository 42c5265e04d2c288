// Layers of a decoder for few rows, 1 to 64: a step of decoding, the nodes of a draft. Such a pass
// costs what it takes to read the weights once, and to start kernels; so these do in one kernel
// what training does in several. Each begins to read its weights before the kernel in front of it
// has ended (programmatic dependent launch): a weight must not be written by the kernels in front
// of it that do so, nor by the one in front of those.
//
// On a GPU only. Sums run in f32, on tensor cores, in an order that depends on the sizes alone.
#pragma once

#include <vector>

#include <binade/core/kernels/decode.h>

namespace binade::kernels {

inline constexpr int64_t kMostFewRows = 64;
// With more, only few_rows_linear() and the kernels for blocks are worth their while.
inline constexpr int64_t kFewRowsApart = 32;
// With more, the block that attends has no room, and an output layer is faster by the library.
inline constexpr int64_t kVeryFewRows = 16;

struct FewRows {
  Array x;         // (M, K)
  Array norm;      // (K) f32: the rows go through an RMS norm of this weight first; or undefined
  double eps = 0;  // of the norm
  // For blocks. A residual stream may come in parts (P, M, K) f32 that are still to be added to x,
  // in their order; undefined: x is all of it. The whole of it, rounded once, goes to `sum` (M, K),
  // which may be x where there are no parts.
  Array parts = {}, sum = {};
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
  Array cos, sin;            // (M, D/2) f32: rotations of queries and keys
  int64_t head_dim = 0;      // D, a multiple of 16
  FewRowsLayer output = {};  // for blocks: what follows attention
};

// Whether the kernels for blocks below, halves of a Llama layer, take these. Beside what
// suits_few_rows() asks of every layer: in.norm and in.sum, a compute capability of 9.0, D = 64 or
// (without attention) 128, and weights so small that an eighth of those of a key head (of an MLP,
// the share of one of up to 128 blocks) fits into shared memory. They are for what takes longer to
// start than to read. The first is for the projections of attention alone; attention is part of
// their block, with layers.output, up to kVeryFewRows and where it has so little to read that more
// blocks would not be faster; the cache has `slots` rows of `capacity` places.
bool suits_attention_inputs_block(const FewRows& in, const FewRowsAttention& layers);
bool suits_attention_block(const FewRows& in, const FewRowsAttention& layers, const PassRows& rows,
                           int64_t slots, int64_t capacity);
bool suits_mlp_block(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                     const FewRowsLayer& down);

namespace cuda {

// out (M, N) = x·weightᵀ + bias (+ residual (M, N), or undefined), rounded once.
void few_rows_linear(const Array& x, const FewRowsLayer& layer, const Array& residual,
                     const Array& out);
// out (M, N) = silu(in·gateᵀ)·(in·upᵀ) of what their rounding leaves. Rows with a norm, up to
// kFewRowsApart.
void few_rows_swiglu(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                     const Array& out);
// Row b·T + t is token t of row b of the pass; up to kFewRowsApart rows. queries (M, Hq·D)
// contiguous; keys and values go to the cache as cache_write puts them (S, Hkv, capacity, D). Each
// is rounded before its rotation and behind it.
void few_rows_attention_inputs(const FewRows& in, const FewRowsAttention& layers,
                               const PassRows& rows, const Array& queries, const Array& cached_keys,
                               const Array& cached_values);

// Halves of a layer, norm to output, in one kernel. A cluster of eight blocks takes a share of the
// layer's columns in between; what it adds to each output is a part, f32.

// parts (Hkv, M, N): of the attention of the queries that read each key head, output.bias in the
// first. visible and scale as for cached_attention().
void few_rows_attention_block(const FewRows& in, const FewRowsAttention& layers,
                              const PassRows& rows, const Array& visible, float scale,
                              const Array& cached_keys, const Array& cached_values,
                              const Array& parts);
// few_rows_attention_inputs() for rows that may come in parts; layers.output is not read.
void few_rows_attention_inputs_block(const FewRows& in, const FewRowsAttention& layers,
                                     const PassRows& rows, const Array& queries,
                                     const Array& cached_keys, const Array& cached_values);
// How many parts an MLP with so many columns in between comes in.
int64_t mlp_block_parts(int64_t hidden);
// parts (mlp_block_parts(), M, N).
void few_rows_mlp_block(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& up,
                        const FewRowsLayer& down, const Array& parts);
// out (M, K), of any row stride: the norm of rows that may come in parts. in.sum may be undefined.
void few_rows_norm(const FewRows& in, const Array& out);

// Whether a block's shared memory holds its weights, and its cluster is enough for attention: what
// the functions that say what suits them ask on a GPU.
bool attention_inputs_block_fits(const FewRows& in, const FewRowsAttention& layers);
bool attention_block_fits(const FewRows& in, const FewRowsAttention& layers, const PassRows& rows,
                          int64_t slots, int64_t capacity);
bool mlp_block_fits(const FewRows& in, const FewRowsLayer& gate, const FewRowsLayer& down);

}  // namespace cuda
}  // namespace binade::kernels
