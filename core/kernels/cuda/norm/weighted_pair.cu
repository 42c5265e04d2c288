// The gradients of two arrays that are sums of both, and the factors of these that a cosine has.
#include <tuple>

#include <binade/core/kernels/gradient_rules.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// Operands of the layout: a gradient, a, b, and the three statistics.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    weighted_pair_kernel(const __grid_constant__ Layout vectors,
                         const __grid_constant__ Layout statistics, const T* a, const T* b,
                         const ComputeOf<T>* across, const ComputeOf<T>* along_a,
                         const ComputeOf<T>* along_b, T* da, T* db) {
  using C = ComputeOf<T>;
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < vectors.items;
       item += step) {
    int64_t offset[3], scales[4];
    locate(vectors, item, offset);
    locate(statistics, item, scales);
    const int count = elements_of<kVec>(vectors, item);
    const Vec<T, kVec> x = load_item<kVec>(vectors, 1, a, offset[1], count);
    const Vec<T, kVec> y = load_item<kVec>(vectors, 2, b, offset[2], count);
    const C cross = across[scales[1]], own_a = along_a[scales[2]], own_b = along_b[scales[3]];
    Vec<T, kVec> dx, dy;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      dx[i] = narrow<T>(widen(y[i]) * cross + widen(x[i]) * own_a);
      dy[i] = narrow<T>(widen(x[i]) * cross + widen(y[i]) * own_b);
    }
    if (da != nullptr) store_item(da, offset[0], count, dx);
    if (db != nullptr) store_item(db, offset[0], count, dy);
  }
}

template <class C>
__global__ void __launch_bounds__(kBlock)
    cosine_scales_kernel(int64_t count, const C* dy, const C* a_length, const C* b_length,
                         const C* cosine, C eps, C* across, C* along_a, C* along_b) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= count) return;
  const CosineScales<C> scales(dy[i], a_length[i], b_length[i], cosine[i], eps);
  across[i] = scales.across;
  along_a[i] = scales.along_a;
  along_b[i] = scales.along_b;
}

}  // namespace

void weighted_pair(const Array& a, const Array& b, const Array& across, const Array& along_a,
                   const Array& along_b, const Array& da, const Array& db) {
  const Array& out = da.defined() ? da : db;
  if (out.numel() == 0) return;
  visit_floating(out.dtype(), "weighted_pair", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    constexpr int kVec = kVecWidth<T>;
    // Both layouts have the items of `out` in memory's order.
    const auto layouts = [&](int vec) {
      return std::pair(make_layout({&out, &a, &b}, vec, Order::row_major),
                       make_layout({&out, &across, &along_a, &along_b}, vec, Order::row_major));
    };
    const auto statistics_stand = [](const Layout& layout) {
      return layout.splat[1] && layout.splat[2] && layout.splat[3];
    };
    const bool aligned = !db.defined() || rows_aligned(db.data(), 0, 1);
    auto [vectors, statistics] = layouts(kVec);
    const bool fits = aligned && vectors.vec == kVec && statistics.vec == kVec &&
                      !vectors.splat[1] && !vectors.splat[2] && statistics_stand(statistics);
    if (!fits) std::tie(vectors, statistics) = layouts(1);
    launch("weighted_pair", fits ? weighted_pair_kernel<kVec, T> : weighted_pair_kernel<1, T>,
           grid_for(vectors.items), kBlock, 0, vectors, statistics, device_data<const T>(a),
           device_data<const T>(b), device_data<const C>(across), device_data<const C>(along_a),
           device_data<const C>(along_b), da.defined() ? device_data<T>(da) : nullptr,
           db.defined() ? device_data<T>(db) : nullptr);
  });
}

void cosine_scales(const Array& dy, const Array& a_length, const Array& b_length,
                   const Array& cosine, double eps, const Array& across, const Array& along_a,
                   const Array& along_b) {
  const auto run = [&](auto zero) {
    using C = decltype(zero);
    launch("cosine_scales", cosine_scales_kernel<C>,
           one_block_each(ceil_div(across.numel(), kBlock)), kBlock, 0, across.numel(),
           device_data<const C>(dy), device_data<const C>(a_length), device_data<const C>(b_length),
           device_data<const C>(cosine), static_cast<C>(eps), device_data<C>(across),
           device_data<C>(along_a), device_data<C>(along_b));
  };
  across.dtype() == DType::f64 ? run(double{}) : run(float{});
}

}  // namespace binade::kernels::cuda
