// Attention and rotary position embedding. Class half.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

struct AttentionOptions {
  bool causal = false;  // query i of Tq sees keys j ≤ i + (Tk − Tq)
  // > 0, with `causal`: of those keys only the last so many, its own position among them (a sliding
  // window; Beltagy et al. 2020). Fused on a GPU where attention without it is.
  int64_t window = 0;
  double scale = 0;  // 0: 1/√D
  // Broadcast to (B, Hq, Tq, Tk): bool (true: may attend) or floating (added). Where an added mask
  // requires a gradient, attention is made of public ops and holds all its scores; packed_attention
  // refuses it.
  Tensor mask;
  // (B, T) i32 with Tq = Tk = T, in place of a mask: the document that each token belongs to; none
  // sees another's. Fused on a GPU, as without one.
  Tensor documents;
  // In place of a mask: what the query and key slots are in rows that pack texts and images, (B, 4,
  // Tq) and (B, 4, Tk) i32; core/kernels/split_rules.h says who sees whom. A spare slot gets 0. No
  // (Tq, Tk) mask is made; on a GPU, f16 and bf16 with heads of a multiple of 8 elements up to 128
  // are fused and skip tiles that see nothing, unless there is dropout or `causal` beside it.
  Tensor query_slots, key_slots;
  double dropout = 0;  // on the probabilities
  bool training = false;
  // Of packed_attention: (T, R/2) f32 each, or undefined. Queries and keys are rotated first, as
  // rope() does.
  Tensor rope_cos, rope_sin;
};

// q (B, Hq, Tq, D), k (B, Hkv, Tk, D) and v (B, Hkv, Tk, Dv) with Hq a multiple of Hkv → (B, Hq,
// Tq, Dv). Any views with a contiguous last dimension. The result's memory is laid out (B, Tq, Hq,
// Dv), so that transposing it back and merging the heads copies nothing. Where Dv is not D, what is
// shorter is padded with zeros.
Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& options = {});

// Attention where each query sees, beside the keys, one key of each column: that of its own place.
// It is how a draft layer is trained on its own output (EAGLE-3's training-time test, Li et al.
// 2025, arXiv 2503.01840): at step s the query of token t sees the keys of step 0 up to t, and of
// each step since then the key at t. q (B, Hq, T, D); k, v and every column (B, Hkv, T, D) → (B,
// Hq, T, D), laid out as above. At most 16 columns, on a GPU with D ≤ 256; no mask, window or
// dropout. The keys take the fused kernels, the columns are merged into their result: no mask of
// T·(1 + columns) keys is made, and memory grows with T.
Tensor attention_with_columns(const Tensor& q, const Tensor& k, const Tensor& v,
                              const TensorList& column_keys, const TensorList& column_values,
                              const AttentionOptions& options = {});

// scaled_dot_product_attention of packed projections: qkv (B, T, (Hq + 2·Hkv)·D), q heads first,
// then k, then v → (B, T, Hq·D). The gradient is packed too. Nothing is copied, unless heads are to
// be rotated in a qkv that somebody else still holds: a temporary is rotated where it lies.
Tensor packed_attention(Tensor qkv, int64_t query_heads, int64_t key_heads,
                        const AttentionOptions& options = {});

// x (B, H, T, D) view; cos, sin (T, R/2) f32: rotates the first R of D in the half-split layout.
Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace binade
