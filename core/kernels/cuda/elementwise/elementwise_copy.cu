// Copies with conversion, fills and ranges.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

template <class Out, class In>
struct Convert {
  __device__ __forceinline__ Out operator()(In x) const {
    if constexpr (std::is_same_v<Out, In>)
      return x;
    else
      return narrow<Out>(widen(x));
  }
};

template <class Out, class In>
void typed_copy(const Array& x, const Array& out) {
  const Convert<Out, In> f;
  elementwise("copy", Operands<Out, In>(), f, f, out, x);
}

// Conversions that no training step makes. C is int64_t for integers and bool, double for the rest:
// both hold every value of theirs.
template <class C>
__global__ void __launch_bounds__(kBlock)
    convert_kernel(const __grid_constant__ Layout layout, const void* x, DType x_dtype, void* out,
                   DType out_dtype) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[2];
    locate(layout, item, offset);
    store_as(out, offset[0], out_dtype, load_as<C>(x, offset[1], x_dtype));
  }
}

void copy_bits(const Array& x, const Array& out) {
  visit_bits(out.dtype(), [&]<class T>(T) { typed_copy<T, T>(x, out); });
}

template <class T>
struct Constant {
  T value;
  __device__ __forceinline__ T operator()() const { return value; }
};

template <class T>
void fill_bits(const Array& out, T bits) {
  const Constant<T> f{bits};
  elementwise("fill", Operands<T>(), f, f, out);
}

__global__ void __launch_bounds__(kBlock)
    arange_kernel(void* out, DType dtype, int64_t count, double start, double step) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride)
    store_as(out, i, dtype, start + static_cast<double>(i) * step);
}

}  // namespace

void copy(const Array& x, const Array& out) {
  if (out.numel() == 0) return;
  const DType from = x.dtype(), to = out.dtype();
  if (from == to) return copy_bits(x, out);
  if (from == DType::f32 && to == DType::f16) return typed_copy<__half, float>(x, out);
  if (from == DType::f32 && to == DType::bf16) return typed_copy<__nv_bfloat16, float>(x, out);
  if (from == DType::f16 && to == DType::f32) return typed_copy<float, __half>(x, out);
  if (from == DType::bf16 && to == DType::f32) return typed_copy<float, __nv_bfloat16>(x, out);

  const Layout layout = make_layout({&out, &x}, 1);
  launch("convert", is_floating(from) ? convert_kernel<double> : convert_kernel<int64_t>,
         grid_for(layout.items), kBlock, 0, layout, device_pointer(x), from, device_pointer(out),
         to);
}

void fill(const Array& out, double value) {
  switch (out.dtype()) {
    case DType::f64:
      return fill_bits(out, std::bit_cast<uint64_t>(value));
    case DType::f32:
      return fill_bits(out, std::bit_cast<uint32_t>(static_cast<float>(value)));
    case DType::f16:
      return fill_bits(out, Half(static_cast<float>(value)).bits);
    case DType::bf16:
      return fill_bits(out, BFloat16(static_cast<float>(value)).bits);
    case DType::i64:
      return fill_bits(out, static_cast<uint64_t>(static_cast<int64_t>(value)));
    case DType::i32:
      return fill_bits(out, static_cast<uint32_t>(static_cast<int32_t>(value)));
    case DType::u8:
      return fill_bits(out, static_cast<uint8_t>(value));
    case DType::boolean:
      return fill_bits(out, static_cast<uint8_t>(value != 0));
  }
}

void arange(const Array& out, double start, double step) {
  launch("arange", arange_kernel, grid_for(out.numel()), kBlock, 0, device_pointer(out),
         out.dtype(), out.numel(), start, step);
}

}  // namespace binade::kernels::cuda
