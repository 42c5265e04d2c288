// Gradients of folds by index that keep the largest or the smallest: whatever equals the result of
// a place has an equal share of its dy. Winners are counted in integers, whose order says nothing.
// Within a row that fits into shared memory one kernel counts, divides and gives; otherwise there
// is one for each, by way of a word for every place.
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>
#include <binade/core/kernels/cuda/indexing/scatter_rules.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kRowBlock = 512;
constexpr int kKept = 16;  // elements that a thread keeps from counting to giving

// Of one place: first the winners among source's elements, then what each has of dy.
template <class C>
union Slot {
  uint32_t count;
  C share;
};
constexpr uint32_t kNamed = uint32_t{1} << 31;  // of a count: an index names the place

template <class T>
struct Extremes {
  using C = ComputeOf<T>;
  bool include_self;
  const T *dy, *x, *source, *y;
  T *dx, *dsource;  // null: not wanted

  // An element of source comes to the place; whether it wins.
  __device__ __forceinline__ bool count(T element, T result, Slot<C>* slot) const {
    if (!include_self) atomicOr(&slot->count, kNamed);
    const bool wins = widen(element) == widen(result);
    if (wins) atomicAdd(&slot->count, 1u);
    return wins;
  }
  // Divides dy among the winners, and gives x its own.
  __device__ __forceinline__ void divide(int64_t place, int64_t x_offset, Slot<C>* slot) const {
    const uint32_t word = slot->count;
    const bool counted = include_self || (word & kNamed) == 0;
    const bool wins = counted && widen(x[x_offset]) == widen(y[place]);
    const uint32_t winners = (word & ~kNamed) + (wins ? 1 : 0);
    const C share = widen(dy[place]) / static_cast<C>(winners == 0 ? 1 : winners);
    slot->share = share;
    if (dx != nullptr) dx[place] = narrow<T>(wins ? share : C(0));
  }
};

extern __shared__ uint64_t extremes_memory[];

// rows: index, source, x and y (and dy, dx), cut to their first element along the last dimension;
// row r of dsource begins at r · length. kWhole: a block keeps a row's elements.
template <bool kWhole, class T>
__global__ void __launch_bounds__(kRowBlock, 2)
    extremes_in_rows_kernel(const __grid_constant__ Layout rows, IndexReader index, int64_t length,
                            int64_t index_stride, int64_t source_stride, int64_t x_stride,
                            const Extremes<T> rule) {
  using C = typename Extremes<T>::C;
  constexpr int kAhead = 4;
  const int width = static_cast<int>(index.size), thread = threadIdx.x;
  auto* const slots = reinterpret_cast<Slot<C>*>(extremes_memory);
  T* const results = reinterpret_cast<T*>(slots + width);
  int64_t offset[4];
  locate(rows, blockIdx.x, offset);
  for (int i = thread; i < width; i += kRowBlock) {
    results[i] = rule.y[offset[3] + i];
    slots[i].count = 0;
  }
  __syncthreads();

  int winners[kKept];  // the places that this thread's elements won; −1: none
  // What `reach` makes of elements [first + k·kRowBlock], of their places and of these's results.
  const auto each = [&](int64_t first, const auto& reach) {
#pragma unroll
    for (int begin = 0; begin < kKept; begin += kAhead) {
      int64_t places[kAhead];
      T elements[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const int64_t i = first + (begin + k) * kRowBlock;
        if (i >= length) continue;
        places[k] = index.read(offset[0] + i * index_stride);
        elements[k] = rule.source[offset[1] + i * source_stride];
      }
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        winners[begin + k] = -1;
        if (first + (begin + k) * kRowBlock >= length) continue;
        const int place = static_cast<int>(index.checked(places[k]));
        if (place >= 0 && reach(elements[k], results[place], slots + place))
          winners[begin + k] = place;
      }
    }
  };
  for (int64_t first = thread; first < length; first += kRowBlock * kKept)
    each(first,
         [&](T element, T result, Slot<C>* slot) { return rule.count(element, result, slot); });
  __syncthreads();
  for (int i = thread; i < width; i += kRowBlock)
    rule.divide(offset[3] + i, offset[2] + i * x_stride, slots + i);
  if (rule.dsource == nullptr) return;
  __syncthreads();
  T* const row = rule.dsource + blockIdx.x * length;
  for (int64_t first = thread; first < length; first += kRowBlock * kKept) {
    if constexpr (!kWhole)
      each(first, [](T element, T result, Slot<C>*) { return widen(element) == widen(result); });
#pragma unroll
    for (int k = 0; k < kKept; ++k)
      if (first + k * kRowBlock < length)
        row[first + k * kRowBlock] = winners[k] < 0 ? T() : narrow<T>(slots[winners[k]].share);
  }
}

// Operands: index, source and y at position 0 of the dimension.
template <class T>
__global__ void __launch_bounds__(kBlock)
    count_extremes_kernel(const __grid_constant__ Layout layout, IndexReader index,
                          int64_t y_stride, const Extremes<T> rule, Slot<ComputeOf<T>>* slots) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[3];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[0]);
    if (position == kBadIndex) continue;
    const int64_t place = offset[2] + position * y_stride;
    rule.count(rule.source[offset[1]], rule.y[place], slots + place);
  }
}

// Operands: y and x.
template <class T>
__global__ void __launch_bounds__(kBlock)
    divide_extremes_kernel(const __grid_constant__ Layout layout, const Extremes<T> rule,
                           Slot<ComputeOf<T>>* slots) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[2];
    locate(layout, i, offset);
    rule.divide(offset[0], offset[1], slots + offset[0]);
  }
}

// Operands: dsource, index, source and y at position 0 of the dimension.
template <class T>
__global__ void __launch_bounds__(kBlock)
    give_extremes_kernel(const __grid_constant__ Layout layout, IndexReader index, int64_t y_stride,
                         const Extremes<T> rule, const Slot<ComputeOf<T>>* slots) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < layout.items; i += step) {
    int64_t offset[4];
    locate(layout, i, offset);
    const int64_t position = index.at(offset[1]), place = offset[3] + position * y_stride;
    const bool wins =
        position != kBadIndex && widen(rule.source[offset[2]]) == widen(rule.y[place]);
    rule.dsource[offset[0]] = wins ? narrow<T>(slots[place].share) : T();
  }
}

// Whether every row of x meets one of index, along the last dimension, and fits into a block.
bool fit_in_rows(const Array& x, int dim, const Array& index, size_t bytes) {
  constexpr int64_t kManyRows = 64;  // that keep most of a device busy
  bool fit = dim == x.dims() - 1 && index.size(dim) > 0 &&
             bytes <= ::binade::cuda::device_properties().shared_bytes_per_block &&
             x.size(dim) <= 8 * index.size(dim) && index.numel() / index.size(dim) >= kManyRows;
  for (int d = 0; fit && d < dim; ++d) fit = x.size(d) == index.size(d);
  return fit;
}

}  // namespace

void scatter_extreme_backward(const Array& dy, const Array& x, int dim, const Array& index,
                              const Array& source, const Array& y, bool include_self,
                              const Array& dx, const Array& dsource) {
  if (x.numel() == 0) return;
  dim = x.shape().wrap_dim(dim);
  const int64_t width = x.size(dim), length = index.size(dim);
  visit_floating(y.dtype(), "scatter_extreme_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using Places = Slot<ComputeOf<T>>;
    const auto wanted = [](const Array& out) {
      return out.defined() ? device_data<T>(out) : nullptr;
    };
    const Extremes<T> rule{include_self,
                           device_data<const T>(dy),
                           device_data<const T>(x),
                           device_data<const T>(source),
                           device_data<const T>(y),
                           wanted(dx),
                           wanted(dsource)};
    const size_t bytes = static_cast<size_t>(width) * (sizeof(Places) + sizeof(T));
    if (fit_in_rows(x, dim, index, bytes)) {
      const Array first[] = {index.slice(dim, 0, 1), source.slice(dim, 0, 1), x.slice(dim, 0, 1),
                             y.slice(dim, 0, 1)};
      const Layout rows =
          make_layout({&first[0], &first[1], &first[2], &first[3]}, 1, Order::row_major);
      launch("extremes_in_rows",
             length <= kRowBlock * kKept ? extremes_in_rows_kernel<true, T>
                                         : extremes_in_rows_kernel<false, T>,
             one_block_each(rows.items), kRowBlock, bytes, rows, IndexReader(index, width), length,
             index.stride(dim), source.stride(dim), x.stride(dim), rule);
      return;
    }
    const Workspace<Places> slots(x.numel());
    ::binade::cuda::check_cuda(
        cudaMemsetAsync(slots.data(), 0, static_cast<size_t>(x.numel()) * sizeof(Places),
                        ::binade::cuda::current_stream()),
        "scatter_extreme_backward");
    if (index.numel() > 0) {
      const Array start = start_of(y, dim, index);
      const Layout counted = make_layout({&index, &source, &start}, 1);
      launch("count_extremes", count_extremes_kernel<T>, grid_for(counted.items), kBlock, 0,
             counted, IndexReader(index, width), y.stride(dim), rule, slots.data());
    }
    const Layout divided = make_layout({&y, &x}, 1);
    launch("divide_extremes", divide_extremes_kernel<T>, grid_for(divided.items), kBlock, 0,
           divided, rule, slots.data());
    if (!dsource.defined() || index.numel() == 0) return;
    const Array start = start_of(y, dim, index);
    const Layout given = make_layout({&dsource, &index, &source, &start}, 1);
    launch("give_extremes", give_extremes_kernel<T>, grid_for(given.items), kBlock, 0, given,
           IndexReader(index, width), y.stride(dim), rule, slots.data());
  });
}

}  // namespace binade::kernels::cuda
