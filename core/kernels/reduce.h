// Reductions and scans.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// sum_abs Σ|x|, sum_squares Σx², max_abs the largest |x|, nonzeros how many are not 0.
enum class ReduceOp : uint8_t {
  sum,
  mean,
  max,
  min,
  prod,
  sum_abs,
  sum_squares,
  max_abs,
  nonzeros,
};

// out = op over the dimensions where out has size 1 and x does not. out has x's number of
// dimensions. Floating dtypes: out may be wider than x (f16 in, f32 out). sum and prod take
// integers and bool into i64; max and min keep the dtype and propagate NaN, as max_abs does. out =
// beta·out + result for sum, mean. The last four take floating dtypes only. Products of f32 and
// half types are kept in f64 on the CPU and in f32 on the GPU, where one that leaves f32's range on
// the way stays ∞ or 0; cumprod and its gradient do the same.
BINADE_KERNEL(reduce, ReduceOp op, const Array& x, const Array& out, float beta)
// Σ a·b or Σ |a − b| over the dimensions where out has size 1 and a does not. a and b have one
// shape (expanded) and one floating dtype; out is f32, or f64 for f64.
enum class PairOp : uint8_t { product, distance };
BINADE_KERNEL(reduce_pairs, PairOp op, const Array& a, const Array& b, const Array& out)
// Σ a², Σ a·b and Σ b² in one pass; the results are contiguous.
BINADE_KERNEL(pair_products, const Array& a, const Array& b, const Array& aa, const Array& ab,
              const Array& bb)
// mean and squares = Σ (x − mean)² over the dimensions where they have size 1 and x, which is not
// empty, does not. x is of a floating dtype; the results are contiguous, f32, or f64 for f64.
BINADE_KERNEL(moments, const Array& x, const Array& mean, const Array& squares)
// out (i64, size 1 along `dim`) = position of the first largest (smallest) element along `dim`; a
// NaN counts as the largest (smallest).
BINADE_KERNEL(arg_reduce, bool largest, const Array& x, int dim, const Array& out)
// out (size 1 along `dim`, f32 or f64) = log Σ exp(x) along `dim`, shifted by the maximum.
BINADE_KERNEL(logsumexp, const Array& x, int dim, const Array& out)
// Inclusive running sum along `dim`; from the back if `reverse`. f32 (f64) accumulation.
BINADE_KERNEL(cumsum, const Array& x, int dim, bool reverse, const Array& out)
// The same of products, from the front.
BINADE_KERNEL(cumprod, const Array& x, int dim, const Array& out)
// dx[i] = Σ_{k ≥ i} dy[k] · Π_{j ≤ k, j ≠ i} x[j] along `dim`: cumprod's gradient. Nothing is
// divided, so zeros are as good as other numbers.
BINADE_KERNEL(cumprod_backward, const Array& x, const Array& dy, int dim, const Array& dx)
// dx[i] = dy · Π_{j ≠ i} x[j] along `dim`, where dy has size 1: the gradient of a product. Nothing
// is divided. dy's dtype may be another one than that of x and dx.
BINADE_KERNEL(prod_backward, const Array& x, const Array& dy, int dim, const Array& dx)

}  // namespace binade::kernels
