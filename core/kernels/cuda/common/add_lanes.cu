#include <binade/core/kernels/add_lanes.h>

#include <algorithm>
#include <type_traits>

#include <binade/core/kernels/cuda/common/device_pointer.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kLanes = 8;  // of a launch

template <class T>
struct Lanes {
  const T* data[kLanes];
  int count;
};

// A thread has kVec neighbours of all lanes; it loads those before it adds any.
template <int kVec, class T, class S>
__global__ void __launch_bounds__(kBlock)
    add_lanes_kernel(Lanes<T> lanes, S* sums, int64_t vectors, bool first) {
  constexpr int kPart = kVec < kVecWidth<S> ? kVec : kVecWidth<S>;  // of the sums, in one access
  const int64_t stride = int64_t{gridDim.x} * kBlock;
  for (int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x; i < vectors; i += stride) {
    Vec<T, kVec> values[kLanes];
    Vec<S, kPart> totals[kVec / kPart];
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane)
      if (lane < lanes.count) values[lane] = load_vec<kVec>(lanes.data[lane] + i * kVec);
#pragma unroll
    for (int part = 0; part < kVec / kPart; ++part)
      if (!first) totals[part] = load_vec<kPart>(sums + i * kVec + part * kPart);
#pragma unroll
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lane >= lanes.count) break;
#pragma unroll
      for (int k = 0; k < kVec; ++k) {
        S& total = totals[k / kPart][k % kPart];
        const S value = widen(values[lane][k]);
        total = first && lane == 0 ? value : total + value;  // of -0 alone the sum is -0
      }
    }
#pragma unroll
    for (int part = 0; part < kVec / kPart; ++part)
      store_vec(sums + i * kVec + part * kPart, totals[part]);
  }
}

template <class T>
void typed_add_lanes(const std::vector<Array>& lanes, const Array& sums, bool first) {
  using S = std::conditional_t<std::is_same_v<T, double>, double, float>;
  constexpr int kVec = kVecWidth<T>;
  for (size_t begin = 0; begin < lanes.size(); begin += kLanes) {
    Lanes<T> some{};
    some.count = static_cast<int>(std::min<size_t>(kLanes, lanes.size() - begin));
    bool aligned = sums.numel() % kVec == 0 && rows_aligned(device_pointer(sums), 0, sizeof(S));
    for (int lane = 0; lane < some.count; ++lane) {
      some.data[lane] =
          static_cast<const T*>(device_pointer(lanes[begin + static_cast<size_t>(lane)]));
      aligned = aligned && rows_aligned(some.data[lane], 0, sizeof(T));
    }
    auto* out = static_cast<S*>(device_pointer(sums));
    const bool starts = first && begin == 0;
    if (aligned) {
      const int64_t vectors = sums.numel() / kVec;
      launch("add_lanes", add_lanes_kernel<kVec, T, S>, grid_for(vectors), kBlock, 0, some, out,
             vectors, starts);
    } else {
      launch("add_lanes", add_lanes_kernel<1, T, S>, grid_for(sums.numel()), kBlock, 0, some, out,
             sums.numel(), starts);
    }
  }
}

}  // namespace

void add_lanes(const std::vector<Array>& lanes, const Array& sums, bool first) {
  if (sums.numel() == 0 || lanes.empty()) return;
  visit_floating(lanes.front().dtype(), "add_lanes",
                 [&](auto tag) { typed_add_lanes<DeviceOf<decltype(tag)>>(lanes, sums, first); });
}

}  // namespace binade::kernels::cuda
