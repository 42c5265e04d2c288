// Reductions over any axes (none given: all), scans, orderings. Negative axes count from the back.
// A tensor without dimensions has no axis to name: one that is named is an Error in every function
// here (PyTorch takes 0 and −1). Over no elements sum is 0, prod 1, mean NaN, logsumexp −∞, any
// false, all true, norms 0; what looks for an element (max, argmax, the ∞-norm, …) is an Error.
#pragma once

#include <utility>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

using Axes = std::vector<int>;

// Class full: half inputs give f32 sums under a policy; without one the dtype stays (f32 inside).
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
// Divides by count − correction; too few elements give ∞ or NaN.
Tensor var(const Tensor& x, const Axes& axes = {}, double correction = 1, bool keep_dims = false);
// √var; where it is 0, its gradient is, too.
Tensor stddev(const Tensor& x, const Axes& axes = {}, double correction = 1,
              bool keep_dims = false);
// The p-norm (Σ|x|ᵖ)^(1/p) of all elements along the axes for p > 0, how many are not 0 for p = 0,
// and the largest magnitude, whose gradient equal ones share, for INFINITY. Class full. Gradients
// are 0 where the norm is, and for p < 1 at elements that are 0.
Tensor norm(const Tensor& x, double p = 2, const Axes& axes = {}, bool keep_dims = false);
// x over its p-norm along `axis`, which counts as eps where it is smaller.
Tensor normalize(const Tensor& x, double p = 2, int axis = 1, double eps = 1e-12);
// The cosine between a and b, which broadcast, along `axis` of the broadcast shape. Norms count as
// eps where they are smaller. Class full.
Tensor cosine_similarity(const Tensor& a, const Tensor& b, int axis = 1, double eps = 1e-8);
// The p-norm, as of norm(), of every row of a (…, P, M) minus every row of b (…, R, M): (…, P, R).
// What stands in front broadcasts. Class full. Differences are taken as they are, so that the
// distance of equal rows is exactly 0, and its gradient, too. Needs memory for a share of the
// differences at a time; backward computes them again.
Tensor cdist(const Tensor& a, const Tensor& b, double p = 2);
// Equal extremes share the gradient evenly.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
// {the largest along `axis`, its i64 position}: the first of equal ones, which has the whole
// gradient. A NaN counts as the largest, and as the smallest.
std::pair<Tensor, Tensor> max_with_indices(const Tensor& x, int axis, bool keep_dims = false);
std::pair<Tensor, Tensor> min_with_indices(const Tensor& x, int axis, bool keep_dims = false);
Tensor argmax(const Tensor& x, int axis, bool keep_dims = false);  // i64
Tensor argmin(const Tensor& x, int axis, bool keep_dims = false);
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
// Bool: whether any element, or every one, is not 0. Without a gradient.
Tensor any(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor all(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
// Class full; integers give i64. Zeros have their gradients, too.
Tensor prod(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor cumsum(const Tensor& x, int axis);
Tensor cumprod(const Tensor& x, int axis);
// Stable. {values, i64 indices}; the gradient flows through the values.
std::pair<Tensor, Tensor> sort(const Tensor& x, int axis = -1, bool descending = false);
// The k largest, or the k smallest, in order.
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int axis = -1, bool largest = true);

Tensor softmax(const Tensor& x, int axis = -1);      // class full
Tensor log_softmax(const Tensor& x, int axis = -1);  // class full

}  // namespace binade
