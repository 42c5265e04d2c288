// What stretches of a row do to each other in the gradients of products. With u[p] = x[p] · (dy[p]
// + u[p + 1]) the gradient of running products is dx[p] = Π_{j < p} x[j] · (dy[p] + u[p + 1]): a
// scan of products from the front, and one of affine maps from the back.
#pragma once

#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

// u -> slope · u + offset: what a stretch makes of the u behind it.
template <class C>
struct Affine {
  C slope, offset;
  static constexpr bool kTakesGradients = true;
  static __device__ __forceinline__ Affine identity() { return {C(1), C(0)}; }
  __device__ __forceinline__ C operator()(C u) const { return slope * u + offset; }
  // The same behind an element with this x and dy.
  __device__ __forceinline__ Affine behind(C x, C dy) const {
    return {x * slope, x * (dy + offset)};
  }
};
// u -> slope · u: where dy is 0.
template <class C>
struct Scaling {
  C slope;
  static constexpr bool kTakesGradients = false;
  static __device__ __forceinline__ Scaling identity() { return {C(1)}; }
  __device__ __forceinline__ C operator()(C u) const { return slope * u; }
  __device__ __forceinline__ Scaling behind(C x, C) const { return {x * slope}; }
};
// Of the maps of two neighbours, `front` is applied last.
struct JoinMaps {
  template <class C>
  __device__ __forceinline__ Affine<C> operator()(const Affine<C>& front,
                                                  const Affine<C>& back) const {
    return {front.slope * back.slope, front(back.offset)};
  }
  template <class C>
  __device__ __forceinline__ Scaling<C> operator()(const Scaling<C>& front,
                                                   const Scaling<C>& back) const {
    return {front.slope * back.slope};
  }
};

// What lies around a stretch: the product before it, u behind it.
template <class C>
struct Around {
  C before, behind;
};

}  // namespace binade::kernels::cuda
