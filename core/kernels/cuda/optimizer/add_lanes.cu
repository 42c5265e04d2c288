#include <binade/core/kernels/add_lanes.h>

#include <algorithm>
#include <type_traits>

#include <binade/core/kernels/cuda/common/device_pointer.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/optimizer/chunk_statistics.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kMostLanes = 8;  // of a launch

template <class T>
struct Lanes {
  const T* data[kMostLanes];
  int count;
};

// A block has a chunk, as where gradients are measured alone; a thread kWidth neighbours of up to
// kLanes lanes at a time, which it loads before it adds any.
template <int kLanes, class T, class S>
__global__ void __launch_bounds__(kBlock)
    add_lanes_kernel(Lanes<T> lanes, S* sums, int64_t count, bool aligned, bool first,
                     const float* inv_scale, double2* chunks) {
  constexpr int kWidth = kVecWidth<S>;
  constexpr int kAtOnce = kMostLanes / kLanes;
  const int64_t begin = int64_t{blockIdx.x} * kGradientChunk;
  const int length = static_cast<int>(min(kGradientChunk, count - begin));
  ChunkStatistics<S, kWidth> statistics(chunks ? static_cast<S>(*inv_scale) : S(0));
#pragma unroll kAtOnce
  for (int i = threadIdx.x * kWidth; i < length; i += kBlock * kWidth) {
    const bool whole = aligned && i + kWidth <= length;
    Vec<T, kWidth> values[kLanes];
    Vec<S, kWidth> total = {};
    S* out = sums + begin + i;
    if (whole) {
#pragma unroll
      for (int lane = 0; lane < kLanes; ++lane)
        if (lane < lanes.count) values[lane] = load_vec<kWidth>(lanes.data[lane] + begin + i);
      if (!first) total = load_vec<kWidth>(out);
    } else {
      for (int j = 0; j < kWidth; ++j) {
        const bool there = i + j < length;
        for (int lane = 0; lane < kLanes; ++lane)
          values[lane][j] =
              there && lane < lanes.count ? lanes.data[lane][begin + i + j] : narrow<T>(S(0));
        if (there && !first) total[j] = out[j];
      }
    }
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lane >= lanes.count) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const S value = widen(values[lane][j]);
        total[j] = first && lane == 0 ? value : total[j] + value;  // of -0 alone the sum is -0
      }
    }
    if (whole) {
      store_vec(out, total);
    } else {
      for (int j = 0; j < kWidth; ++j)
        if (i + j < length) out[j] = total[j];
    }
    if (chunks) statistics.add(total.value, i);
  }
  if (chunks) statistics.store(&chunks[blockIdx.x]);
}

template <class T>
void typed_add_lanes(const std::vector<Array>& lanes, const Array& sums, bool first,
                     const Array& inv_scale, const Array& statistics) {
  using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
  auto* out = static_cast<S*>(device_pointer(sums));
  for (size_t begin = 0; begin < lanes.size(); begin += kMostLanes) {
    Lanes<T> some{};
    some.count = static_cast<int>(std::min<size_t>(kMostLanes, lanes.size() - begin));
    bool aligned = rows_aligned(out, 0, sizeof(S));
    for (int lane = 0; lane < some.count; ++lane) {
      const Array& array = lanes[begin + static_cast<size_t>(lane)];
      some.data[lane] = static_cast<const T*>(device_pointer(array));
      aligned =
          aligned && rows_aligned(some.data[lane], 0, sizeof(T), kVecWidth<S> * int64_t{sizeof(T)});
    }
    const bool measures = statistics.defined() && begin + kMostLanes >= lanes.size();
    const auto kernel = some.count <= 2   ? add_lanes_kernel<2, T, S>
                        : some.count <= 4 ? add_lanes_kernel<4, T, S>
                                          : add_lanes_kernel<kMostLanes, T, S>;
    launch("add_lanes", kernel, one_block_each(gradient_chunks(sums.numel())), kBlock, 0, some, out,
           sums.numel(), aligned, first && begin == 0,
           measures ? static_cast<const float*>(device_pointer(inv_scale)) : nullptr,
           measures ? static_cast<double2*>(device_pointer(statistics)) : nullptr);
  }
}

}  // namespace

void add_lanes(const std::vector<Array>& lanes, const Array& sums, bool first,
               const Array& inv_scale, const Array& statistics) {
  if (sums.numel() == 0 || lanes.empty()) return;
  visit_floating(lanes.front().dtype(), "add_lanes", [&](auto tag) {
    typed_add_lanes<DeviceOf<decltype(tag)>>(lanes, sums, first, inv_scale, statistics);
  });
}

}  // namespace binade::kernels::cuda
