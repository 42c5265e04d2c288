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

// How the elements of one place make its new value: State is what a thread carries.
template <class T>
struct Assigning {
  using State = T;
  __device__ State start(T) const { return T(); }
  __device__ State join(State, T element) const { return element; }
  __device__ T finish(State state, int64_t) const { return state; }
};
template <class T>
struct Folding {
  using State = ComputeOf<T>;
  ScatterFold fold;
  bool include_self;
  __device__ State start(T self) const {
    if (include_self) return widen(self);
    switch (fold) {
      case ScatterFold::prod:
        return State(1);
      case ScatterFold::max:
        if constexpr (std::is_floating_point_v<State>)
          return -static_cast<State>(INFINITY);
        else
          return INT64_MIN;
      case ScatterFold::min:
        if constexpr (std::is_floating_point_v<State>)
          return static_cast<State>(INFINITY);
        else
          return INT64_MAX;
      default:
        return State(0);
    }
  }
  __device__ State join(State state, T element) const {
    const State x = widen(element);
    switch (fold) {
      case ScatterFold::prod:
        return state * x;
      case ScatterFold::max:
        return Max()(state, x);
      case ScatterFold::min:
        return Min()(state, x);
      default:
        return state + x;
    }
  }
  __device__ T finish(State state, int64_t count) const {
    if (fold == ScatterFold::mean) state /= static_cast<State>(count + (include_self ? 1 : 0));
    return narrow<T>(state);
  }
};

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

template <class Key, class RuleFor>
void keyed_scatter(const Array& out, int dim, const Array& index, const Array& source,
                   const RuleFor& rule_for, int64_t extent) {
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
  int64_t extent = 1;  // offsets of out are below it
  for (int d = 0; d < out.dims(); ++d) extent += (out.size(d) - 1) * out.stride(d);
  if (extent < UINT32_MAX)
    keyed_scatter<uint32_t>(out, dim, index, source, rule_for, extent);
  else
    keyed_scatter<uint64_t>(out, dim, index, source, rule_for, extent);
}

}  // namespace

void scatter(const Array& out, int dim, const Array& index, const Array& source, bool add) {
  check(!add || out.dtype() != DType::boolean, "scatter cannot add in bool");
  if (add)
    scatter_by(out, dim, index, source,
               [](auto tag) { return Folding<decltype(tag)>{ScatterFold::sum, true}; });
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
