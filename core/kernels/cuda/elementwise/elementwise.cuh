// The elementwise kernel: one function object applied to operands of any strides.
#pragma once

#include <concepts>
#include <utility>

#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

// Offsets (in elements) of item `item` in the first kOperands operands.
template <int kOperands>
__device__ __forceinline__ void locate(const Layout& layout, int64_t item,
                                       int64_t (&offset)[kOperands]) {
#pragma unroll
  for (int k = 0; k < kOperands; ++k) offset[k] = 0;
  for (int d = 0; d < layout.dims; ++d) {
    int64_t position = item;
    if (d + 1 < layout.dims) {
      if (layout.narrow) {
        const auto n = static_cast<uint32_t>(item);
        const FastDivisor divisor = layout.divisors[d];
        item = (__umulhi(n, divisor.multiplier) + n) >> divisor.shift;
      } else {
        item /= layout.sizes[d];
      }
      position -= item * layout.sizes[d];
    }
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offset[k] += position * layout.strides[k][d];
  }
}

// Elements of item `item` that exist: all but for the last item of a single dimension.
template <int kVec>
__device__ __forceinline__ int elements_of(const Layout& layout, int64_t item) {
  if constexpr (kVec == 1) return 1;
  const int64_t left = layout.numel - item * kVec;
  return left < kVec ? static_cast<int>(left) : kVec;
}

// An item of operand k; elements beyond `count` are zero.
template <int kVec, class T>
__device__ __forceinline__ Vec<T, kVec> load_item(const Layout& layout, int k, const T* data,
                                                  int64_t offset, int count) {
  Vec<T, kVec> values;
  if constexpr (kVec == 1) {
    values[0] = data[offset];
  } else if (layout.splat[k]) {
    const T value = data[offset];
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[i] = value;
  } else if (count == kVec) {
    values = load_vec<kVec>(data + offset);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[i] = i < count ? data[offset + i] : T();
  }
  return values;
}

template <int kVec, class T>
__device__ __forceinline__ void store_item(T* data, int64_t offset, int count,
                                           const Vec<T, kVec>& values) {
  if (count == kVec) {
    store_vec(data + offset, values);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i < count) data[offset + i] = values[i];
  }
}

// A function that takes what the output held before its inputs; it says whether that is read at
// all (otherwise it gets zero).
template <class F>
concept Updating = requires(const F& f) {
  { f.reads_out() } -> std::convertible_to<bool>;
};

template <int kVec, class F, class Out, class... In>
__device__ __forceinline__ void apply_to_item(const Layout& layout, const F& f, Out* out,
                                              int64_t offset, int count,
                                              const Vec<In, kVec>&... in) {
  Vec<Out, kVec> result;
  if constexpr (Updating<F>) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) result[i] = Out();
    if (f.reads_out()) result = load_item<kVec>(layout, 0, out, offset, count);
#pragma unroll
    for (int i = 0; i < kVec; ++i) result[i] = f(result[i], in[i]...);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i) result[i] = f(in[i]...);
  }
  store_item(out, offset, count, result);
}

template <int kVec, class F, class Out, class... In, size_t... kIndex>
__device__ __forceinline__ void walk_items(const Layout& layout, const F& f,
                                           std::index_sequence<kIndex...>, Out* out,
                                           const In*... in) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[1 + sizeof...(In)];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    apply_to_item<kVec>(layout, f, out, offset[0], count,
                        load_item<kVec>(layout, kIndex + 1, in, offset[kIndex + 1], count)...);
  }
}

template <int kVec, class F, class Out, class... In>
__global__ void __launch_bounds__(kBlock) elementwise_kernel(const __grid_constant__ Layout layout,
                                                             const F f, Out* out, const In*... in) {
  walk_items<kVec>(layout, f, std::index_sequence_for<In...>(), out, in...);
}

// Device types of the output and the inputs.
template <class Out, class... In>
struct Operands {};

// out[i] = f(in[i]...), or f(out[i], in[i]...) where f is Updating. Arrays have the given types and
// out's shape. `fast` runs where 16-byte accesses are possible, `any` (often one that switches on
// the op at run time, to spare code) elsewhere.
template <class Out, class... In, class Fast, class Any, std::same_as<Array>... Arrays>
void elementwise(const char* name, Operands<Out, In...>, const Fast& fast, const Any& any,
                 const Array& out, const Arrays&... in) {
  static_assert(sizeof...(In) == sizeof...(Arrays));
  if (out.numel() == 0) return;
  constexpr int kVec = 16 / static_cast<int>(std::max({sizeof(Out), sizeof(In)...}));
  const Layout layout = make_layout({&out, &in...}, kVec);
  if (layout.vec == kVec) {
    launch(name, elementwise_kernel<kVec, Fast, Out, In...>, grid_for(layout.items), kBlock, 0,
           layout, fast, device_data<Out>(out), device_data<In>(in)...);
  } else {
    launch(name, elementwise_kernel<1, Any, Out, In...>, grid_for(layout.items), kBlock, 0, layout,
           any, device_data<Out>(out), device_data<In>(in)...);
  }
}

}  // namespace binade::kernels::cuda
