// Softmax along the last dimension: one pass for the maximum and the sum, one that writes. The
// second reads a row that the caches still hold. A warp takes a short row, a block a long one.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/softmax.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/online_softmax.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// The row that this thread works on and its place in it; rows past the end are empty.
template <int kLanes>
struct RowPlace {
  int64_t row = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  int lane = threadIdx.x % kLanes;
};

template <int kLanes, class T, class Op>
__device__ __forceinline__ T reduce_lanes(const T& value, Op op, const T& identity) {
  if constexpr (kLanes == kWarp)
    return warp_reduce(value, op);
  else
    return block_reduce<kLanes>(value, op, identity);
}

// Calls visit(i, count) for each of this thread's items of kVec elements at i, i + 1, ..., of which
// `count` exist.
template <int kLanes, int kVec, class Visit>
__device__ __forceinline__ void for_items(int64_t length, int lane, const Visit& visit) {
  for (int64_t i = int64_t{lane} * kVec; i < length; i += kLanes * kVec)
    visit(i, static_cast<int>(min(int64_t{kVec}, length - i)));
}

// kVec elements of a row; those beyond `count` are zero.
template <int kVec, class T>
__device__ __forceinline__ Vec<T, kVec> load_some(const T* data, int count) {
  if (count == kVec) return load_vec<kVec>(data);
  Vec<T, kVec> values;
#pragma unroll
  for (int k = 0; k < kVec; ++k) values[k] = k < count ? data[k] : T();
  return values;
}

// rows: y and x, cut to the first element of each row.
template <int kLanes, int kVec, class In, class Out>
__global__ void __launch_bounds__(kBlock)
    softmax_kernel(const __grid_constant__ Layout rows, int64_t length, bool take_log, const In* x,
                   Out* y) {
  using C = ComputeOf<In>;
  const RowPlace<kLanes> place;
  if (place.row >= rows.items) return;
  int64_t offset[2];
  locate(rows, place.row, offset);
  const In* in = x + offset[1];
  Out* out = y + offset[0];

  MaxSum<C> state = MaxSum<C>::nothing();
  for_items<kLanes, kVec>(length, place.lane, [&](int64_t i, int count) {
    const Vec<In, kVec> values = load_some<kVec>(in + i, count);
    C max = state.max;
#pragma unroll
    for (int k = 0; k < kVec; ++k)
      if (k < count) max = Max()(max, widen(values[k]));
    C sum = MaxSumFold::rescaled(state, max);
#pragma unroll
    for (int k = 0; k < kVec; ++k)
      if (k < count) sum += MaxSumFold::rescaled(MaxSum<C>::of(widen(values[k])), max);
    state = {max, sum};
  });
  state = reduce_lanes<kLanes>(state, MaxSumFold(), MaxSum<C>::nothing());

  const C log_sum = log(state.sum), inverse = C(1) / state.sum;
  for_items<kLanes, kVec>(length, place.lane, [&](int64_t i, int count) {
    const Vec<In, kVec> values = load_some<kVec>(in + i, count);
    Vec<Out, kVec> result;
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      const C shifted = widen(values[k]) - state.max;
      result[k] = narrow<Out>(take_log ? shifted - log_sum : exp(shifted) * inverse);
    }
    store_item(out, i, count, result);
  });
}

// rows: dx, y and dy, cut to the first element of each row. Of softmax: y·(dy − Σ y·dy); of its
// logarithm: dy − exp(y)·Σ dy.
template <int kLanes, int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    softmax_backward_kernel(const __grid_constant__ Layout rows, int64_t length, bool of_log,
                            bool accumulate, const T* y, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  const RowPlace<kLanes> place;
  if (place.row >= rows.items) return;
  int64_t offset[3];
  locate(rows, place.row, offset);
  dx += offset[0];
  y += offset[1];
  dy += offset[2];

  C sum = 0;
  for_items<kLanes, kVec>(length, place.lane, [&](int64_t i, int count) {
    const Vec<T, kVec> outputs = load_some<kVec>(y + i, count);
    const Vec<T, kVec> grads = load_some<kVec>(dy + i, count);
#pragma unroll
    for (int k = 0; k < kVec; ++k)  // beyond the end the gradient is zero
      sum += of_log ? widen(grads[k]) : widen(outputs[k]) * widen(grads[k]);
  });
  sum = reduce_lanes<kLanes>(sum, Sum(), C(0));

  for_items<kLanes, kVec>(length, place.lane, [&](int64_t i, int count) {
    const Vec<T, kVec> outputs = load_some<kVec>(y + i, count);
    const Vec<T, kVec> grads = load_some<kVec>(dy + i, count);
    Vec<T, kVec> result;
#pragma unroll
    for (int k = 0; k < kVec; ++k) result[k] = T();
    if (accumulate) result = load_some<kVec>(dx + i, count);
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      const C out = widen(outputs[k]), grad = widen(grads[k]);
      const C value = of_log ? grad - exp(out) * sum : out * (grad - sum);
      result[k] = narrow<T>(widen(result[k]) + value);
    }
    store_item(dx, i, count, result);
  });
}

// The rows of arrays whose last dimension is contiguous.
struct Rows {
  Layout layout;
  int64_t length;
  bool aligned;  // to items of `vec` elements

  Rows(std::initializer_list<const Array*> arrays, int vec) : length((*arrays.begin())->size(-1)) {
    std::array<Array, 3> firsts;
    aligned = true;
    size_t count = 0;
    for (const Array* array : arrays) {
      check(array->stride(-1) == 1 || length == 1,
            "softmax needs a contiguous last dimension, got strides ", array->strides());
      firsts[count++] = array->slice(-1, 0, 1);
    }
    layout = count == 2 ? make_layout({&firsts[0], &firsts[1]}, 1)
                        : make_layout({&firsts[0], &firsts[1], &firsts[2]}, 1);
    for (size_t k = 0; k < count; ++k) {
      const int64_t bytes = size_of(firsts[k].dtype());
      aligned &= rows_aligned(firsts[k].data(), 0, bytes, vec * bytes);
      for (int d = 0; d < layout.dims; ++d)
        aligned &= layout.items == 1 || layout.strides[k][d] % vec == 0;
    }
  }
  bool is_short() const { return length <= 1024; }
  unsigned blocks() const {
    return one_block_each(ceil_div(layout.items * (is_short() ? kWarp : kBlock), kBlock));
  }
};

template <class In, class Out>
void typed_softmax(const Array& x, const Array& y, bool take_log) {
  constexpr int kVec = 16 / static_cast<int>(std::max(sizeof(In), sizeof(Out)));
  const Rows rows({&y, &x}, kVec);
  const auto kernel = rows.aligned ? (rows.is_short() ? softmax_kernel<kWarp, kVec, In, Out>
                                                      : softmax_kernel<kBlock, kVec, In, Out>)
                                   : (rows.is_short() ? softmax_kernel<kWarp, 1, In, Out>
                                                      : softmax_kernel<kBlock, 1, In, Out>);
  launch("softmax", kernel, rows.blocks(), kBlock, 0, rows.layout, rows.length, take_log,
         device_data<In>(x), device_data<Out>(y));
}

void any_softmax(const Array& x, const Array& y, bool take_log) {
  if (y.numel() == 0) return;
  const DType from = x.dtype(), to = y.dtype();
  if (from == to)
    return visit_floating(from, "softmax", [&](auto tag) {
      using T = DeviceOf<decltype(tag)>;
      typed_softmax<T, T>(x, y, take_log);
    });
  if (from == DType::f16 && to == DType::f32) return typed_softmax<__half, float>(x, y, take_log);
  if (from == DType::bf16 && to == DType::f32)
    return typed_softmax<__nv_bfloat16, float>(x, y, take_log);
  // Other pairs go by way of the dtype it is computed in, so that the result is rounded once.
  const Array wide =
      Array::empty(y.shape(), from == DType::f64 ? DType::f64 : DType::f32, y.device());
  any_softmax(x, wide, take_log);
  copy(wide, y);
}

void any_softmax_backward(const Array& y, const Array& dy, const Array& dx, float beta,
                          bool of_log) {
  if (dx.numel() == 0) return;
  check(y.dtype() == dy.dtype(), "softmax_backward needs y and dy of one dtype, got ",
        name_of(y.dtype()), " and ", name_of(dy.dtype()));
  if (dx.dtype() != y.dtype()) {
    const DType wide_dtype = y.dtype() == DType::f64 ? DType::f64 : DType::f32;
    if (y.dtype() != wide_dtype)
      return any_softmax_backward(y.to(wide_dtype), dy.to(wide_dtype), dx, beta, of_log);
    const Array wide = Array::empty(dx.shape(), wide_dtype, dx.device());
    any_softmax_backward(y, dy, wide, 0, of_log);
    return beta != 0 ? axpy(1, wide, dx) : copy(wide, dx);
  }
  visit_floating(y.dtype(), "softmax_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    constexpr int kVec = kVecWidth<T>;
    const Rows rows({&dx, &y, &dy}, kVec);
    const auto kernel = rows.aligned ? (rows.is_short() ? softmax_backward_kernel<kWarp, kVec, T>
                                                        : softmax_backward_kernel<kBlock, kVec, T>)
                                     : (rows.is_short() ? softmax_backward_kernel<kWarp, 1, T>
                                                        : softmax_backward_kernel<kBlock, 1, T>);
    launch("softmax_backward", kernel, rows.blocks(), kBlock, 0, rows.layout, rows.length, of_log,
           beta != 0, device_data<T>(y), device_data<T>(dy), device_data<T>(dx));
  });
}

}  // namespace

void softmax(const Array& x, const Array& y) {
  any_softmax(x, y, false);
}

void log_softmax(const Array& x, const Array& y) {
  any_softmax(x, y, true);
}

void softmax_backward(const Array& y, const Array& dy, const Array& dx, float beta) {
  any_softmax_backward(y, dy, dx, beta, false);
}

void log_softmax_backward(const Array& y, const Array& dy, const Array& dx, float beta) {
  any_softmax_backward(y, dy, dx, beta, true);
}

}  // namespace binade::kernels::cuda
