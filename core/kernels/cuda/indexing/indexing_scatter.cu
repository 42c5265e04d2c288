// Writing by index. Without adding, the last of the elements that go to one place stays: a mark at
// each place, the highest number of an element that goes there, says which that is. Elements that
// are folded are so in their order: within a row, if it fits into shared memory
// (scatter_in_rows.cu); otherwise they are sorted by where they go. With one index along the
// dimension no two go to one place, and nothing of that is needed.
#include <binade/core/kernels/cuda/common/radix_sort.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/visit_bits.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>
#include <binade/core/kernels/cuda/indexing/scatter_rules.cuh>

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
template <class T, class Key, class Rule>
__global__ void __launch_bounds__(kBlock)
    scatter_kernel(const __grid_constant__ Layout layout, const Rule rule, Key bad_key,
                   const Key* keys, const uint32_t* elements, const T* source, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    const Key key = keys[i];
    if (key == bad_key || (i > 0 && keys[i - 1] == key)) continue;
    typename Rule::State state = rule.start(out[key]);
    int64_t k = i;
    for (; k < layout.items && keys[k] == key; ++k) {
      int64_t offset[1];
      locate(layout, elements[k], offset);
      state = rule.join(state, source[offset[0]]);
    }
    out[key] = rule.finish(state, k - i);
  }
}

// Operands: index, out at position 0, source. No two elements go to one place.
template <class T, class Rule>
__global__ void __launch_bounds__(kBlock)
    scatter_alone_kernel(const __grid_constant__ Layout layout, IndexReader index,
                         int64_t out_stride, const Rule rule, const T* source, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[3];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[0]);
    if (position == kBadIndex) continue;
    T* place = out + offset[1] + position * out_stride;
    *place = rule.finish(rule.join(rule.start(*place), source[offset[2]]), 1);
  }
}

// marks[place] = the highest number, from 1 on, of an element that goes there.
__global__ void __launch_bounds__(kBlock)
    mark_kernel(const __grid_constant__ Layout layout, IndexReader index, int64_t out_stride,
                uint32_t* marks) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[2];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[0]);
    if (position != kBadIndex)
      atomicMax(marks + offset[1] + position * out_stride, static_cast<uint32_t>(i + 1));
  }
}

// Operands: index, out at position 0, source.
template <class T>
__global__ void __launch_bounds__(kBlock)
    write_marked_kernel(const __grid_constant__ Layout layout, IndexReader index,
                        int64_t out_stride, const uint32_t* marks, const T* source, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[3];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[0]);
    if (position == kBadIndex) continue;
    const int64_t place = offset[1] + position * out_stride;
    if (marks[place] == static_cast<uint32_t>(i + 1)) out[place] = source[offset[2]];
  }
}

// Whole rows by a vector of indices. Operands: out at position 0, index, source. The element of the
// index at offset j·index_stride is the jth.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    write_marked_rows_kernel(const __grid_constant__ Layout layout, IndexReader index,
                             int64_t index_stride, int64_t out_stride, const uint32_t* marks,
                             const T* source, T* out) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < layout.items;
       item += step) {
    int64_t offset[3];
    locate(layout, item, offset);
    const int64_t position = index.at(offset[1]);
    if (position == kBadIndex) continue;
    const int64_t row = index_stride == 0 ? 0 : offset[1] / index_stride;
    if (marks[position] != static_cast<uint32_t>(row + 1)) continue;
    const int count = elements_of<kVec>(layout, item);
    store_item(out, offset[0] + position * out_stride, count,
               load_item<kVec>(layout, 2, source, offset[2], count));
  }
}

class Marks {
 public:
  explicit Marks(int64_t count) : marks_(count) {
    ::binade::cuda::check_cuda(
        cudaMemsetAsync(marks_.data(), 0, static_cast<size_t>(count) * sizeof(uint32_t),
                        ::binade::cuda::current_stream()),
        "scatter");
  }
  uint32_t* data() const { return marks_.data(); }

 private:
  Workspace<uint32_t> marks_;
};

// Whether every index counts for a whole row: index is a vector along `dim`, repeated.
bool is_vector(const Array& index, int dim) {
  for (int d = 0; d < index.dims(); ++d)
    if (d != dim && index.size(d) != 1 && index.stride(d) != 0) return false;
  return true;
}

void assign_rows(const Array& out, int dim, const Array& index, const Array& source) {
  Array vector = index;
  for (int d = 0; d < index.dims(); ++d)
    if (d != dim) vector = vector.slice(d, 0, 1);
  const Marks marks(out.size(dim));
  const Array places = Array::view_of(out.storage(), out.dtype(), vector.shape(),
                                      Shape::filled(out.dims(), 0), out.offset());
  const Layout marked = make_layout({&vector, &places}, 1, Order::row_major);
  launch("scatter_marks", mark_kernel, grid_for(marked.items), kBlock, 0, marked,
         IndexReader(index, out.size(dim)), int64_t{1}, marks.data());

  const Array start = start_of(out, dim, index);
  visit_bits(out.dtype(), [&]<class T>(T) {
    constexpr int kVec = 16 / static_cast<int>(sizeof(T));
    Layout layout = make_layout({&start, &index, &source}, kVec, Order::row_major);
    const bool items = layout.vec == kVec && layout.splat[1] && out.stride(dim) % kVec == 0;
    if (!items) layout = make_layout({&start, &index, &source}, 1, Order::row_major);
    launch("scatter_rows",
           items ? write_marked_rows_kernel<kVec, T> : write_marked_rows_kernel<1, T>,
           grid_for(layout.items), kBlock, 0, layout, IndexReader(index, out.size(dim)),
           index.size(dim) == 1 ? int64_t{0} : index.stride(dim), out.stride(dim), marks.data(),
           device_data<const T>(source), device_data<T>(out));
  });
}

void assign_elements(const Array& out, int dim, const Array& index, const Array& source,
                     int64_t extent) {
  const Array start = start_of(out, dim, index);
  const Marks marks(extent);
  const Layout marked = make_layout({&index, &start}, 1, Order::row_major);
  const IndexReader reader(index, out.size(dim));
  launch("scatter_marks", mark_kernel, grid_for(marked.items), kBlock, 0, marked, reader,
         out.stride(dim), marks.data());
  const Layout layout = make_layout({&index, &start, &source}, 1, Order::row_major);
  visit_bits(out.dtype(), [&]<class T>(T) {
    launch("scatter", write_marked_kernel<T>, grid_for(layout.items), kBlock, 0, layout, reader,
           out.stride(dim), marks.data(), device_data<const T>(source), device_data<T>(out));
  });
}

template <class RuleFor>
void scatter_alone(const Array& out, int dim, const Array& index, const Array& source,
                   const RuleFor& rule_for) {
  const Array start = start_of(out, dim, index);
  const Layout layout = make_layout({&index, &start, &source}, 1);
  visit_all(out.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const auto rule = rule_for(T());
    launch("scatter", scatter_alone_kernel<T, std::remove_const_t<decltype(rule)>>,
           grid_for(layout.items), kBlock, 0, layout, IndexReader(index, out.size(dim)),
           out.stride(dim), rule, device_data<const T>(source), device_data<T>(out));
  });
}

template <class Key, class RuleFor>
void sorted_scatter(const Array& out, int dim, const Array& index, const Array& source,
                    const RuleFor& rule_for, int64_t extent) {
  const int64_t count = index.numel();
  const Array start = start_of(out, dim, index);
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
    const auto rule = rule_for(T());
    launch("scatter", scatter_kernel<T, Key, std::remove_const_t<decltype(rule)>>, grid_for(count),
           kBlock, 0, from, rule, bad_key, sorted_keys.data(), sorted_elements.data(),
           device_data<T>(source), device_data<T>(out));
  });
}

// rule_for(T()) gives the rule for elements of type T.
template <class RuleFor>
void scatter_by(const Array& out, int dim, const Array& index, const Array& source,
                const RuleFor& rule_for) {
  if (index.numel() == 0) return;
  dim = out.shape().wrap_dim(dim);
  check(source.dtype() == out.dtype(), "scatter needs a source of out's dtype ",
        name_of(out.dtype()), ", got ", name_of(source.dtype()));
  check(index.numel() <= INT32_MAX, "scatter: more than 2^31 - 1 indices");
  if (out.numel() == 0) fail("scatter into an empty array of shape ", out.shape());
  if (index.size(dim) == 1) return scatter_alone(out, dim, index, source, rule_for);
  int64_t extent = 1;  // offsets of out are below it
  for (int d = 0; d < out.dims(); ++d) extent += (out.size(d) - 1) * out.stride(d);
  using Rule = decltype(rule_for(float()));
  if constexpr (std::is_same_v<Rule, Assigning<float>>) {
    if (is_vector(index, dim)) return assign_rows(out, dim, index, source);
    // Marks have to be cleared: few elements of much are sorted.
    if (extent <= 16 * index.numel()) return assign_elements(out, dim, index, source, extent);
  } else {
    if (fold_in_rows(out, dim, index, source, rule_for(float()))) return;
  }
  if (extent < UINT32_MAX)
    sorted_scatter<uint32_t>(out, dim, index, source, rule_for, extent);
  else
    sorted_scatter<uint64_t>(out, dim, index, source, rule_for, extent);
}

}  // namespace

void scatter(const Array& out, int dim, const Array& index, const Array& source, bool add) {
  check(!add || out.dtype() != DType::boolean, "scatter cannot add in bool");
  if (add)
    scatter_by(out, dim, index, source, [](auto tag) {
      return Folding<decltype(tag)>{ScatterFold::sum, true};
    });
  else
    scatter_by(out, dim, index, source, [](auto tag) { return Assigning<decltype(tag)>(); });
}

void scatter_reduce(const Array& out, int dim, const Array& index, const Array& source,
                    ScatterFold fold, bool include_self) {
  check(out.dtype() != DType::boolean, "scatter_reduce cannot fold bool");
  scatter_by(out, dim, index, source, [=](auto tag) {
    return Folding<decltype(tag)>{fold, include_self};
  });
}

}  // namespace binade::kernels::cuda
