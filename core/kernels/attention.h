// Scaled dot-product attention: out = softmax(scale · q·kᵀ + mask) · v.
// Grouped heads: query head h reads key head h / (Hq / Hkv).
#pragma once

#include <vector>

#include <binade/core/kernels/kernels.h>
#include <binade/core/random.h>

namespace binade::kernels {

// What queries and keys are in their packed rows, in place of a mask: (B, 4, Tq) and (B, 4, Tk)
// i32, contiguous along the last dimension (split_rules.h says who sees whom).
struct AttentionSplits {
  Array queries, keys;
  bool defined() const { return queries.defined(); }
};

struct AttentionParams {
  double scale = 1;
  bool causal = false;  // query i sees keys j ≤ i + (Tk − Tq): the last query sees all
  int64_t window = 0;   // > 0, with causal: of those only the last so many (a sliding window)
  Array mask;  // undefined, or broadcast to (B, Hq, Tq, Tk): bool (true: may attend) or floating
               // (added)
  // undefined, or (B, T) i32 contiguous with Tq = Tk = T, in place of a mask: a query sees keys of
  // its own document only
  Array documents;
  AttentionSplits splits;
  double dropout = 0;  // probability; the mask is drawn from `key` and never stored
  PhiloxKey key;
  // Of attention_backward, where queries see further keys beside these (attend_columns): out and
  // logsumexp are over all keys, and this is Σ out · dout of each query, (B, Hq, Tq), f32 (f64 for
  // f64), contiguous.
  Array inner;
};

// q (B, Hq, Tq, D), k and v (B, Hkv, Tk, D), out (B, Hq, Tq, D): views with a contiguous last
// dimension (for example into packed qkv). logsumexp (B, Hq, Tq) f32 contiguous is kept for
// backward. A row that may attend to nothing gives zeros.
BINADE_KERNEL(attention, const Array& q, const Array& k, const Array& v,
              const AttentionParams& params, const Array& out, const Array& logsumexp)
// dq, dk, dv are overwritten; they have the layouts of q, k, v (views into a packed gradient work).
// Where softmax is nearly one-hot, a score's gradient is a difference of nearly equal numbers. The
// CPU's and the plain GPU path take both from f32; cuDNN's kernels and the fused ones over splits
// take one from the rounded `out`, which in half types leaves an error of about eps · |dout · out|
// there.
BINADE_KERNEL(attention_backward, const Array& q, const Array& k, const Array& v, const Array& out,
              const Array& logsumexp, const Array& dout, const AttentionParams& params,
              const Array& dq, const Array& dk, const Array& dv)

// Further keys, of which each query sees one a column: that of its own place. (B, Hkv, Tq, D) each,
// views with a contiguous last dimension.
struct AttentionColumns {
  std::vector<Array> keys, values;
};
inline constexpr int64_t kMostAttentionColumns = 16;

// Takes the columns into an attention: out (B, Hq, Tq, D) and logsumexp (B, Hq, Tq), as attention()
// left them, become those over its keys and the columns (merged as blocks of keys are, Dao et al.
// 2022). D ≤ 256 on a GPU.
BINADE_KERNEL(attend_columns, const Array& q, const AttentionColumns& columns, double scale,
              const Array& out, const Array& logsumexp)
// inner (B, Hq, Tq): Σ out · dout over the last dimension.
BINADE_KERNEL(attention_inner, const Array& out, const Array& dout, const Array& inner)
// With logsumexp and inner over all keys: adds the columns' share to dq, and overwrites the
// gradients of the columns. Sums over the query heads of a key head run in f32.
BINADE_KERNEL(attend_columns_backward, const Array& q, const AttentionColumns& columns,
              double scale, const Array& logsumexp, const Array& inner, const Array& dout,
              const Array& dq, const AttentionColumns& gradients)

// Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face's Llama:
// x (B, H, T, D) view; cos and sin (T, R/2) f32 contiguous with even R ≤ D (the first R of D are
// rotated); out may be x itself. `inverse` rotates backward, which is its gradient.
BINADE_KERNEL(rope, const Array& x, const Array& cos, const Array& sin, bool inverse,
              const Array& out)

}  // namespace binade::kernels
