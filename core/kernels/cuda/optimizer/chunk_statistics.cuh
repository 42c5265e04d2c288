// The statistics of a chunk of gradients (core/kernels/optimizer.h), which one block makes.
#pragma once

#include <climits>

#include <math_constants.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

// What a thread has of it. The bits depend on which kWidth neighbours come together and on their
// order: threads take them in turn, thread t those from t·kWidth on, then those from
// (t + kBlock)·kWidth on.
template <class C, int kWidth>
class ChunkStatistics {
 public:
  explicit __device__ ChunkStatistics(C inv_scale) : inv_scale_(inv_scale) {}

  // Elements i … i + kWidth − 1 of the chunk; zeros behind its end.
  __device__ __forceinline__ void add(const C (&values)[kWidth], int i) {
    C squares = 0;  // of a few elements: rounds no more than the squares themselves
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const C unscaled = values[j] * inv_scale_;
      if (isfinite(values[j])) {
        squares += unscaled * unscaled;
      } else {
        bad_ = min(bad_, 2 * (i + j) + (isnan(values[j]) ? 1 : 0));
      }
    }
    sum_ += static_cast<double>(squares);
  }

  // Of all threads' elements; for all of them to call.
  __device__ void store(double2* chunk) {
    const double sum = block_reduce<kBlock>(sum_, Sum(), 0.0);
    int bad = bad_;
    if (__syncthreads_or(bad != kNone)) bad = block_reduce<kBlock>(bad, Min(), int{kNone});
    if (threadIdx.x == 0) *chunk = {sum, bad == kNone ? CUDART_INF : static_cast<double>(bad)};
  }

 private:
  static constexpr int kNone = INT_MAX;

  C inv_scale_;
  double sum_ = 0;
  int bad_ = kNone;
};

}  // namespace binade::kernels::cuda
