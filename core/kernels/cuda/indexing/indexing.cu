// Reading by index.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

namespace {

// Operands: out, index, x at position 0 of the dimension. An item of several elements has one
// index.
template <int kVec, class Out, class In>
__global__ void __launch_bounds__(kBlock)
    gather_kernel(const __grid_constant__ Layout layout, IndexReader index, int64_t x_stride,
                  const In* x, Out* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[3];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    const int64_t position = index.at(offset[1]);
    Vec<Out, kVec> result;
    if (position == kBadIndex) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) result[i] = Out();
    } else {
      const Vec<In, kVec> values =
          load_item<kVec>(layout, 2, x, offset[2] + position * x_stride, count);
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        if constexpr (std::is_same_v<Out, In>)
          result[i] = values[i];
        else
          result[i] = narrow<Out>(widen(values[i]));
      }
    }
    store_item(out, offset[0], count, result);
  }
}

template <class Out, class In>
void typed_gather(const char* name, const Array& x, int dim, const Array& index, const Array& out) {
  constexpr int kVec = 16 / static_cast<int>(std::max(sizeof(Out), sizeof(In)));
  Array start = x;  // x at position 0, as wide as out
  for (int d = 0; d < x.dims(); ++d) start = start.slice(d, 0, d == dim ? 1 : out.size(d));
  start = start.expand(out.shape());
  Layout layout = make_layout({&out, &index, &start}, kVec);
  // An item must have one index, and rows of x must begin where 16-byte accesses may.
  const bool whole_items = layout.vec == kVec && layout.splat[1] && x.stride(dim) % kVec == 0;
  if (kVec > 1 && !whole_items) layout = make_layout({&out, &index, &start}, 1);
  launch(name, whole_items ? gather_kernel<kVec, Out, In> : gather_kernel<1, Out, In>,
         grid_for(layout.items), kBlock, 0, layout, IndexReader(index, x.size(dim)), x.stride(dim),
         device_data<In>(x), device_data<Out>(out));
}

}  // namespace

void gather_any(const char* name, const Array& x, int dim, const Array& index, const Array& out) {
  if (out.numel() == 0) return;
  dim = x.shape().wrap_dim(dim);
  const DType from = x.dtype(), to = out.dtype();
  const auto run = [&]<class Out, class In>(Operands<Out, In>) {
    typed_gather<Out, In>(name, x, dim, index, out);
  };
  if (from == to && gather_in_rows(name, x, dim, index, out)) return;
  if (from == to) {  // bits, whatever they mean
    switch (size_of(to)) {
      case 8:
        return run(Operands<uint64_t, uint64_t>());
      case 4:
        return run(Operands<uint32_t, uint32_t>());
      case 2:
        return run(Operands<uint16_t, uint16_t>());
      default:
        return run(Operands<uint8_t, uint8_t>());
    }
  }
  if (from == DType::f32 && to == DType::f16) return run(Operands<__half, float>());
  if (from == DType::f32 && to == DType::bf16) return run(Operands<__nv_bfloat16, float>());
  if (from == DType::f16 && to == DType::f32) return run(Operands<float, __half>());
  if (from == DType::bf16 && to == DType::f32) return run(Operands<float, __nv_bfloat16>());
  const Array same = Array::empty(out.shape(), from, out.device());
  gather_any(name, x, dim, index, same);
  copy(same, out);
}

void gather(const Array& x, int dim, const Array& index, const Array& out) {
  gather_any("gather", x, dim, index, out);
}

void index_select(const Array& x, int dim, const Array& index, const Array& out) {
  dim = x.shape().wrap_dim(dim);
  Shape shape = Shape::filled(out.dims(), 1);
  shape[dim] = index.numel();
  Shape strides = Shape::filled(out.dims(), 0);
  strides[dim] = index.stride(0);
  const Array spread =
      Array::view_of(index.storage(), index.dtype(), shape, strides, index.offset())
          .expand(out.shape());
  gather_any("index_select", x, dim, spread, out);
}

}  // namespace binade::kernels::cuda
