// One pass over a group's gradients: finite check and squared norm. A block takes a chunk, so that
// its row depends on nothing else; one block adds the rows up in their order.
#include <binade/core/kernels/optimizer.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/optimizer/chunk_statistics.cuh>

namespace binade::kernels::cuda {

namespace {

// Of the block that adds up.
constexpr int kAdders = 512;

template <class T>
__global__ void __launch_bounds__(kBlock) chunk_stats(const T* grad, int64_t count, bool aligned,
                                                      const float* inv_scale, double2* chunks) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const int64_t begin = int64_t{blockIdx.x} * kGradientChunk;
  const int length = static_cast<int>(min(kGradientChunk, count - begin));
  const T* chunk = grad + begin;
  ChunkStatistics<C, kWidth> statistics(static_cast<C>(*inv_scale));
#pragma unroll 4
  for (int i = threadIdx.x * kWidth; i < length; i += kBlock * kWidth) {
    C values[kWidth] = {};
    if (aligned && i + kWidth <= length) {
      const auto vec = load_vec<kWidth>(chunk + i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) values[j] = widen(vec[j]);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j)
        if (i + j < length) values[j] = widen(chunk[i + j]);
    }
    statistics.add(values, i);
  }
  statistics.store(&chunks[blockIdx.x]);
}

__global__ void __launch_bounds__(kAdders)
    add_chunks(const double2* chunks, int64_t count, double* norm_sq, int64_t* first_bad) {
  constexpr int64_t kNone = kNoBadGradient;
  double sum = 0;
  int64_t bad = kNone;
  for (int64_t i = threadIdx.x; i < count; i += kAdders) {
    const double2 chunk = chunks[i];
    sum += chunk.x;
    if (!isinf(chunk.y)) bad = min(bad, 2 * kGradientChunk * i + static_cast<int64_t>(chunk.y));
  }
  sum = block_reduce<kAdders>(sum, Sum(), 0.0);
  bad = block_reduce<kAdders>(bad, Min(), int64_t{kNone});
  if (threadIdx.x != 0) return;
  *norm_sq += sum;
  *first_bad = bad;
}

}  // namespace

void gradient_stats(const Array& grad, const Array& inv_scale, const Array& statistics) {
  visit_floating(grad.dtype(), "gradient_stats", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("gradient_stats", chunk_stats<T>, static_cast<unsigned>(statistics.size(0)), kBlock, 0,
           device_data<T>(grad), grad.numel(), rows_aligned(grad.data(), 0, sizeof(T)),
           device_data<float>(inv_scale),
           reinterpret_cast<double2*>(device_data<double>(statistics)));
  });
}

void add_gradient_stats(const Array& statistics, const Array& norm_sq, const Array& first_bad) {
  launch("add_gradient_stats", add_chunks, 1, kAdders, 0,
         reinterpret_cast<const double2*>(device_data<double>(statistics)), statistics.size(0),
         device_data<double>(norm_sq), device_data<int64_t>(first_bad));
}

}  // namespace binade::kernels::cuda
