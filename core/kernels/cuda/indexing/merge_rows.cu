// Rows of one array in place of some of another's, picked and not scattered: each row of the result
// is written once.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// The largest wins: which writer comes first does not matter. last is filled with −1.
__global__ void __launch_bounds__(kBlock)
    last_writers_kernel(const int64_t* index, int64_t count, int64_t places, int64_t* last) {
  const int64_t k = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (k >= count || index[k] < 0 || index[k] >= places) return;
  atomicMax(reinterpret_cast<long long*>(last + index[k]), static_cast<long long>(k));
}

__global__ void __launch_bounds__(kBlock)
    kept_kernel(const int64_t* index, int64_t count, int64_t places, const int64_t* last,
                int64_t* kept) {
  const int64_t k = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (k >= count) return;
  const int64_t place = index[k];
  kept[k] = place >= 0 && place < places && last[place] == k ? place : -1;
}

// Operands: out, from, source at position 0 of the dimension, base. An item of several elements has
// one row.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    merge_rows_kernel(const __grid_constant__ Layout layout, const int64_t* from, const T* source,
                      int64_t source_stride, const T* base, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[4];
    locate(layout, item, offset);
    const int count = elements_of<kVec>(layout, item);
    const int64_t row = from[offset[1]];
    store_item(out, offset[0], count,
               row < 0
                   ? load_item<kVec>(layout, 3, base, offset[3], count)
                   : load_item<kVec>(layout, 2, source, offset[2] + row * source_stride, count));
  }
}

template <class T>
void typed_merge(const Array& base, const Array& source, int dim, const Array& from,
                 const Array& out) {
  constexpr int kVec = kVecWidth<T>;
  const Array start = source.slice(dim, 0, 1).expand(out.shape());
  Shape strides = Shape::filled(out.dims(), 0);
  strides[dim] = from.stride(0);
  const Array spread =
      Array::view_of(from.storage(), from.dtype(), out.shape(), strides, from.offset());
  Layout layout = make_layout({&out, &spread, &start, &base}, kVec);
  const bool vectors =
      layout.vec == kVec && layout.splat[1] && (layout.splat[2] || source.stride(dim) % kVec == 0);
  if (kVec > 1 && !vectors) layout = make_layout({&out, &spread, &start, &base}, 1);
  launch("merge_rows", vectors ? merge_rows_kernel<kVec, T> : merge_rows_kernel<1, T>,
         grid_for(layout.items), kBlock, 0, layout, device_data<const int64_t>(from),
         device_data<const T>(source), source.stride(dim), device_data<const T>(base),
         device_data<T>(out));
}

}  // namespace

void last_writers(const Array& index, const Array& last, const Array& kept) {
  fill(last, -1);
  const int64_t count = index.numel();
  const unsigned blocks = one_block_each(ceil_div(count, kBlock));
  const auto* to = device_data<const int64_t>(index);
  auto* const writers = device_data<int64_t>(last);
  launch("last_writers", last_writers_kernel, blocks, kBlock, 0, to, count, last.numel(), writers);
  launch("last_writers", kept_kernel, blocks, kBlock, 0, to, count, last.numel(),
         static_cast<const int64_t*>(writers), device_data<int64_t>(kept));
}

void merge_rows(const Array& base, const Array& source, int dim, const Array& from,
                const Array& out) {
  if (out.numel() == 0) return;
  if (source.numel() == 0) return copy(base, out);
  switch (size_of(out.dtype())) {
    case 8:
      return typed_merge<uint64_t>(base, source, dim, from, out);
    case 4:
      return typed_merge<uint32_t>(base, source, dim, from, out);
    case 2:
      return typed_merge<uint16_t>(base, source, dim, from, out);
    default:
      return typed_merge<uint8_t>(base, source, dim, from, out);
  }
}

}  // namespace binade::kernels::cuda
