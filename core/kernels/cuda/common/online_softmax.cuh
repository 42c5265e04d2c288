// The running maximum of a row and the sum of exp(x - maximum), in one pass (Milakov & Gimelshein
// 2018).
#pragma once

#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

template <class C>
struct MaxSum {
  C max, sum;
  __device__ static MaxSum nothing() { return {-static_cast<C>(INFINITY), C(0)}; }
  __device__ static MaxSum of(C x) { return {x, C(1)}; }
  __device__ C logsumexp() const { return max + log(sum); }
};

struct MaxSumFold {
  template <class C>
  __device__ __forceinline__ MaxSum<C> operator()(const MaxSum<C>& a, const MaxSum<C>& b) const {
    const C max = Max()(a.max, b.max);
    return {max, rescaled(a, max) + rescaled(b, max)};
  }
  // Equal maxima are left alone: infinities have no difference.
  template <class C>
  __device__ __forceinline__ static C rescaled(const MaxSum<C>& part, C max) {
    return part.max == max ? part.sum : part.sum * exp(part.max - max);
  }
};

}  // namespace binade::kernels::cuda
