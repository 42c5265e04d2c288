// Many small arrays in one.
#include <algorithm>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kMostParts = 64;  // of a launch: their places travel as its arguments
constexpr int kWarps = 8;

struct Part {
  const void* data;
  int64_t place;  // in the output
  int32_t count;
  DType dtype;
};
struct Parts {
  Part part[kMostParts];
  int count;
};

// A warp takes every kWarps-th part.
__global__ void __launch_bounds__(kWarps* kWarp)
    join_kernel(const __grid_constant__ Parts parts, double* out) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int p = warp; p < parts.count; p += kWarps) {
    const Part& part = parts.part[p];
    for (int i = lane; i < part.count; i += kWarp)
      out[part.place + i] = load_as<double>(part.data, i, part.dtype);
  }
}

}  // namespace

void join(const std::vector<Array>& arrays, const Array& out) {
  auto* const to = device_data<double>(out);
  int64_t place = 0;
  for (size_t first = 0; first < arrays.size(); first += kMostParts) {
    Parts parts{};
    const size_t end = std::min(arrays.size(), first + kMostParts);
    for (size_t i = first; i < end; ++i) {
      const Array& array = arrays[i];
      parts.part[parts.count++] = {device_pointer(array), place,
                                   static_cast<int32_t>(array.numel()), array.dtype()};
      place += array.numel();
    }
    launch("join", join_kernel, 1, kWarps * kWarp, 0, parts, to);
  }
}

}  // namespace binade::kernels::cuda
