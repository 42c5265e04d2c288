// Reductions over any axes (none given: all), scans, orderings. Negative axes count from the back.
// Over no elements sum is 0, mean NaN, logsumexp −∞; max, min, argmax and argmin are an Error.
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
// Equal extremes share the gradient evenly.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor min(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor argmax(const Tensor& x, int axis, bool keep_dims = false);  // i64
Tensor argmin(const Tensor& x, int axis, bool keep_dims = false);
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keep_dims = false);
Tensor cumsum(const Tensor& x, int axis);
// Stable. {values, i64 indices}; the gradient flows through the values.
std::pair<Tensor, Tensor> sort(const Tensor& x, int axis, bool descending = false);
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int axis);

Tensor softmax(const Tensor& x, int axis = -1);      // class full
Tensor log_softmax(const Tensor& x, int axis = -1);  // class full

}  // namespace binade
