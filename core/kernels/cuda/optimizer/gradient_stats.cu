// One pass over a group's gradients: finite check and squared norm. Each block leaves a partial
// sum, a single block adds them up in their order, so that the bits depend on the count alone.
#include <binade/core/kernels/optimizer.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int64_t kMaxPartials = 1024;

template <class T>
__global__ void __launch_bounds__(kBlock)
    gradient_partials(const T* grad, int64_t count, bool aligned, const float* inv_scale,
                      double* sums, int64_t* first_bad) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const C factor = static_cast<C>(*inv_scale);
  double sum = 0;
  constexpr int64_t kNone = kNoBadGradient;
  int64_t bad = kNone;
  const int64_t step = int64_t{gridDim.x} * kBlock * kWidth;
  for (int64_t i = (int64_t{blockIdx.x} * kBlock + threadIdx.x) * kWidth; i < count; i += step) {
    C values[kWidth] = {};
    if (aligned && i + kWidth <= count) {
      const auto vec = load_vec<kWidth>(grad + i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) values[j] = widen(vec[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        if (i + j < count) values[j] = widen(grad[i + j]);
    }
    C squares = 0;  // of a few elements: rounds no more than the squares themselves
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const C unscaled = values[j] * factor;
      if (isfinite(values[j])) {
        squares += unscaled * unscaled;
      } else {
        bad = min(bad, 2 * (i + j) + (isnan(values[j]) ? 1 : 0));
      }
    }
    sum += static_cast<double>(squares);
  }
  sum = block_reduce<kBlock>(sum, Sum(), 0.0);
  bad = block_reduce<kBlock>(bad, Min(), int64_t{kNone});
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = sum;
  first_bad[blockIdx.x] = bad;
}

__global__ void __launch_bounds__(kBlock)
    add_partials(const double* sums, const int64_t* bads, int count, double* norm_sq,
                 int64_t* first_bad) {
  constexpr int64_t kNone = kNoBadGradient;
  double sum = 0;
  int64_t bad = kNone;
  for (int i = threadIdx.x; i < count; i += kBlock) {
    sum += sums[i];
    bad = min(bad, bads[i]);
  }
  sum = block_reduce<kBlock>(sum, Sum(), 0.0);
  bad = block_reduce<kBlock>(bad, Min(), int64_t{kNone});
  if (threadIdx.x != 0) return;
  *norm_sq += sum;
  *first_bad = bad;
}

}  // namespace

void gradient_stats(const Array& grad, const Array& inv_scale, const Array& norm_sq,
                    const Array& first_bad) {
  visit_floating(grad.dtype(), "gradient_stats", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const int64_t count = grad.numel();
    const int64_t blocks = std::min(ceil_div(count, kBlock * kVecWidth<T>), kMaxPartials);
    const Workspace<double> sums(blocks);
    const Workspace<int64_t> bads(blocks);
    launch("gradient_stats", gradient_partials<T>, static_cast<unsigned>(blocks), kBlock, 0,
           device_data<T>(grad), count, rows_aligned(grad.data(), 0, sizeof(T)),
           device_data<float>(inv_scale), sums.data(), bads.data());
    launch("add_partials", add_partials, 1, kBlock, 0, sums.data(), bads.data(),
           static_cast<int>(blocks), device_data<double>(norm_sq), device_data<int64_t>(first_bad));
  });
}

}  // namespace binade::kernels::cuda
