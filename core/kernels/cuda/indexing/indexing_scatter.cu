// Writing by index. The elements are sorted by where they go, so that those of one place follow
// each other in their order: sums run in that order, and without adding the last one stays.
#include <binade/core/kernels/cuda/common/radix_sort.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

namespace {

// Operands: index, and out at position 0 of the dimension. The key is the offset in out; bad_key
// for indices out of range, so that they come last.
template <class Key>
__global__ void __launch_bounds__(kBlock)
    scatter_keys_kernel(const __grid_constant__ Layout layout, IndexReader index,
                        int64_t out_stride, Key bad_key, Key* keys, uint32_t* elements) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[2];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[0]);
    keys[i] = position == kBadIndex ? bad_key : static_cast<Key>(offset[1] + position * out_stride);
    elements[i] = static_cast<uint32_t>(i);
  }
}

// A thread serves the elements of one place; `layout` finds them in source.
template <class T, class Key>
__global__ void __launch_bounds__(kBlock)
    scatter_kernel(const __grid_constant__ Layout layout, bool add, Key bad_key, const Key* keys,
                   const uint32_t* elements, const T* source, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    const Key key = keys[i];
    if (key == bad_key || (i > 0 && keys[i - 1] == key)) continue;
    ComputeOf<T> sum = add ? widen(out[key]) : ComputeOf<T>(0);
    T last = T();
    for (int64_t k = i; k < layout.items && keys[k] == key; ++k) {
      int64_t offset[1];
      locate(layout, elements[k], offset);
      last = source[offset[0]];
      sum += widen(last);
    }
    out[key] = add ? narrow<T>(sum) : last;
  }
}

template <class Key>
void keyed_scatter(const Array& out, int dim, const Array& index, const Array& source, bool add,
                   int64_t extent) {
  const int64_t count = index.numel();
  Array start = out;  // out at position 0, as wide as index
  for (int d = 0; d < out.dims(); ++d) start = start.slice(d, 0, d == dim ? 1 : index.size(d));
  start = start.expand(index.shape());
  const Layout layout = make_layout({&index, &start}, 1, Order::row_major);
  const auto bad_key = static_cast<Key>(extent);

  const Workspace<Key> keys(count), sorted_keys(count);
  const Workspace<uint32_t> elements(count), sorted_elements(count);
  launch("scatter_keys", scatter_keys_kernel<Key>, grid_for(count), kBlock, 0, layout,
         IndexReader(index, out.size(dim)), out.stride(dim), bad_key, keys.data(), elements.data());
  sort_pairs<Key>(keys.data(), sorted_keys.data(), elements.data(), sorted_elements.data(), 1,
                  count, std::bit_width(bad_key | 1));
  const Layout from = make_layout({&source}, 1, Order::row_major);
  visit_all(out.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    launch("scatter", scatter_kernel<T, Key>, grid_for(count), kBlock, 0, from, add, bad_key,
           sorted_keys.data(), sorted_elements.data(), device_data<T>(source), device_data<T>(out));
  });
}

}  // namespace

void scatter(const Array& out, int dim, const Array& index, const Array& source, bool add) {
  if (index.numel() == 0) return;
  dim = out.shape().wrap_dim(dim);
  check(source.dtype() == out.dtype(), "scatter needs a source of out's dtype ",
        name_of(out.dtype()), ", got ", name_of(source.dtype()));
  check(!add || out.dtype() != DType::boolean, "scatter cannot add in bool");
  check(index.numel() <= INT32_MAX, "scatter: more than 2^31 - 1 indices");
  if (out.numel() == 0) fail("scatter into an empty array of shape ", out.shape());
  int64_t extent = 1;  // offsets of out are below it
  for (int d = 0; d < out.dims(); ++d) extent += (out.size(d) - 1) * out.stride(d);
  if (extent < UINT32_MAX)
    keyed_scatter<uint32_t>(out, dim, index, source, add, extent);
  else
    keyed_scatter<uint64_t>(out, dim, index, source, add, extent);
}

}  // namespace binade::kernels::cuda
