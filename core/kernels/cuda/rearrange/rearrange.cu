// Rearranged copies: a thread writes 16 bytes, whose elements it reads one by one.
#include <bit>

#include <binade/core/half.h>
#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace {

// Dimensions from the last one of out on.
struct Axes {
  int dims = 0;
  bool narrow = true;  // out has few enough elements for the fast division
  int64_t numel = 0;
  AxisMap maps[kMaxDims];
  int64_t sizes[kMaxDims] = {};    // of out
  int64_t strides[kMaxDims] = {};  // of x
  FastDivisor divisors[kMaxDims];

  __device__ __forceinline__ int64_t divide(int64_t n, int d) const {
    if (!narrow) return n / sizes[d];
    const auto value = static_cast<uint32_t>(n);
    return (__umulhi(value, divisors[d].multiplier) + value) >> divisors[d].shift;
  }
  // Where row `row` of out begins in x; −1 where it takes nothing from there.
  __device__ __forceinline__ int64_t row_offset(int64_t row) const {
    int64_t offset = 0;
    bool outside = false;
    for (int d = 1; d < dims; ++d) {
      const int64_t rest = d + 1 < dims ? divide(row, d) : 0;
      const int64_t source = maps[d].source(row - rest * sizes[d]);
      outside |= source < 0;
      offset += source * strides[d];
      row = rest;
    }
    return outside ? -1 : offset;
  }
};

// T is as wide as an element, whatever the bits mean.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    rearrange_kernel(const __grid_constant__ Axes axes, T number, const T* x, T* out) {
  const int64_t items = ceil_div(axes.numel, kVec), step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < items; item += step) {
    int64_t row = axes.divide(item * kVec, 0);
    int64_t column = item * kVec - row * axes.sizes[0];
    int64_t start = axes.row_offset(row);
    const int64_t left = axes.numel - item * kVec;
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (i >= left) break;
      const int64_t source = start < 0 ? -1 : axes.maps[0].source(column);
      result[i] = source < 0 ? number : x[start + source * axes.strides[0]];
      if (++column == axes.sizes[0] && i + 1 < left) {
        column = 0;
        start = axes.row_offset(++row);
      }
    }
    if (left >= kVec) {
      store_vec(out + item * kVec, result);
    } else {
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (i < left) out[item * kVec + i] = result[i];
    }
  }
}

bool is_whole(const AxisMap& map, int64_t out_size) {
  return map.size == out_size && map.offset == 0 && map.repeats == 1 && !map.reversed;
}

// Dimensions that are copied whole, and lie behind each other in x, are one.
Axes make_axes(const Array& x, std::span<const AxisMap> maps, const Array& out) {
  Axes axes;
  axes.numel = out.numel();
  axes.narrow = axes.numel <= INT32_MAX;
  for (int d = out.dims() - 1; d >= 0; --d) {
    const AxisMap& map = maps[static_cast<size_t>(d)];
    const int last = axes.dims - 1;
    if (last >= 0 && is_whole(map, out.size(d)) && is_whole(axes.maps[last], axes.sizes[last]) &&
        x.stride(d) == axes.strides[last] * axes.sizes[last]) {
      axes.sizes[last] *= out.size(d);
      axes.maps[last].size = axes.sizes[last];
      continue;
    }
    axes.maps[axes.dims] = map;
    axes.sizes[axes.dims] = out.size(d);
    axes.strides[axes.dims++] = x.stride(d);
  }
  if (axes.dims == 0) {  // a single element
    axes.dims = 1;
    axes.sizes[0] = axes.maps[0].size = 1;
  }
  for (int d = 0; axes.narrow && d < axes.dims; ++d)
    axes.divisors[d] = FastDivisor::of(axes.sizes[d]);
  return axes;
}

template <class T>
void rearrange_bits(const Array& x, std::span<const AxisMap> maps, T number, const Array& out) {
  constexpr int kVec = 16 / static_cast<int>(sizeof(T));
  const Axes axes = make_axes(x, maps, out);
  const bool aligned = rows_aligned(out.data(), 0, 1);
  launch("rearrange", aligned ? rearrange_kernel<kVec, T> : rearrange_kernel<1, T>,
         grid_for(aligned ? ceil_div(axes.numel, kVec) : axes.numel), kBlock, 0, axes, number,
         device_data<const T>(x), device_data<T>(out));
}

}  // namespace

void rearrange(const Array& x, std::span<const AxisMap> maps, double number, const Array& out) {
  if (out.numel() == 0) return;
  switch (out.dtype()) {
    case DType::f64:
      return rearrange_bits(x, maps, std::bit_cast<uint64_t>(number), out);
    case DType::f32:
      return rearrange_bits(x, maps, std::bit_cast<uint32_t>(static_cast<float>(number)), out);
    case DType::f16:
      return rearrange_bits(x, maps, Half(static_cast<float>(number)).bits, out);
    case DType::bf16:
      return rearrange_bits(x, maps, BFloat16(static_cast<float>(number)).bits, out);
    case DType::i64:
      return rearrange_bits(x, maps, static_cast<uint64_t>(static_cast<int64_t>(number)), out);
    case DType::i32:
      return rearrange_bits(x, maps, static_cast<uint32_t>(static_cast<int32_t>(number)), out);
    case DType::u8:
      return rearrange_bits(x, maps, static_cast<uint8_t>(number), out);
    case DType::boolean:
      return rearrange_bits(x, maps, static_cast<uint8_t>(number != 0), out);
  }
}

}  // namespace binade::kernels::cuda
