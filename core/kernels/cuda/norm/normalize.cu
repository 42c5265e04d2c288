// Vectors of length 1. Rows of 16-byte vectors are read once: a warp or a block keeps the first of
// them in registers, and reads what a longer row has beside from the cache. Others are a fold and a
// pass.
#include <vector>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// What a row's elements are multiplied by: dx = dy·scale + x·back.
template <class C>
struct RowScales {
  C scale, back;
};
template <class C>
__device__ __forceinline__ RowScales<C> row_scales(C length, C eps, C products) {
  const C scale = C(1) / (length < eps ? eps : length);
  const bool held = length < eps || length == C(0);
  return {scale, held ? C(0) : -(products * scale * scale / length)};
}

// The steps of the rows' kernel: what is summed, and what is made of it.
template <class T>
struct Forward {
  using C = ComputeOf<T>;
  static constexpr int kInputs = 1;
  C eps;
  C* lengths;
  __device__ __forceinline__ C term(const T (&x)[1]) const { return widen(x[0]) * widen(x[0]); }
  __device__ __forceinline__ RowScales<C> scales(int64_t row, C sum, bool writes) const {
    const C length = sqrt(sum);
    if (writes) lengths[row] = length;
    return row_scales(length, eps, C(0));
  }
  __device__ __forceinline__ T result(const T (&x)[1], const RowScales<C>& scales) const {
    return narrow<T>(widen(x[0]) * scales.scale);
  }
};
template <class T>
struct Backward {
  using C = ComputeOf<T>;
  static constexpr int kInputs = 2;
  C eps;
  const C* lengths;
  __device__ __forceinline__ C term(const T (&x)[2]) const { return widen(x[0]) * widen(x[1]); }
  __device__ __forceinline__ RowScales<C> scales(int64_t row, C sum, bool) const {
    return row_scales(lengths[row], eps, sum);
  }
  __device__ __forceinline__ T result(const T (&x)[2], const RowScales<C>& scales) const {
    return narrow<T>(widen(x[1]) * scales.scale + widen(x[0]) * scales.back);
  }
};

template <class T>
struct RowInputs {
  const T* data[2];
};

// rows: the output, and the inputs (x, then dy), cut to their first element along the dimension;
// row-major, as the lengths are. `vectors` a row.
template <int kLanes, class T, class Steps>
__global__ void __launch_bounds__(kBlock)
    normalize_rows_kernel(const __grid_constant__ Layout rows, int64_t vectors, const Steps steps,
                          const RowInputs<T> inputs, T* out) {
  using C = ComputeOf<T>;
  constexpr int kVec = kVecWidth<T>, kKept = 4, kInputs = Steps::kInputs;
  const int64_t row = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (row >= rows.items) return;  // all lanes of a row together
  int64_t offset[1 + kInputs];
  locate(rows, row, offset);
  struct Read {
    Vec<T, kVec> x[kInputs];
  };
  const auto load = [&](int64_t vector) {
    Read read;
#pragma unroll
    for (int k = 0; k < kInputs; ++k)
      read.x[k] = load_vec<kVec>(inputs.data[k] + offset[1 + k] + vector * kVec);
    return read;
  };
  const auto element = [](const Read& read, int i, T(&x)[kInputs]) {
#pragma unroll
    for (int k = 0; k < kInputs; ++k) x[k] = read.x[k][i];
  };
  const auto sum_of = [&](const Read& read) {
    C sum(0);
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      T x[kInputs];
      element(read, i, x);
      sum += steps.term(x);
    }
    return sum;
  };
  Read kept[kKept];
#pragma unroll
  for (int k = 0; k < kKept; ++k)
    if (lane + k * kLanes < vectors) kept[k] = load(lane + k * kLanes);
  C sum(0);
#pragma unroll
  for (int k = 0; k < kKept; ++k)
    if (lane + k * kLanes < vectors) sum += sum_of(kept[k]);
  for (int64_t v = lane + kKept * kLanes; v < vectors; v += kLanes) sum += sum_of(load(v));
  if constexpr (kLanes == kWarp)
    sum = warp_reduce(sum, Sum());
  else
    sum = block_reduce<kBlock>(sum, Sum(), C(0));
  const RowScales<C> scales = steps.scales(row, sum, lane == 0);
  const auto store = [&](int64_t vector, const Read& read) {
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      T x[kInputs];
      element(read, i, x);
      result[i] = steps.result(x, scales);
    }
    store_vec(out + offset[0] + vector * kVec, result);
  };
#pragma unroll
  for (int k = 0; k < kKept; ++k)
    if (lane + k * kLanes < vectors) store(lane + k * kLanes, kept[k]);
  for (int64_t v = lane + kKept * kLanes; v < vectors; v += kLanes) store(v, load(v));
}

// Runs the rows' kernel on `out` and the inputs; false, and nothing is done, where their rows along
// `dim` are not whole 16-byte vectors.
template <class T, class Steps>
bool normalize_rows(const char* name, const Array& out, const Array& x, const Array& dy, int dim,
                    const Steps& steps) {
  constexpr int kVec = kVecWidth<T>;
  const int64_t length = x.size(dim);
  std::vector<Array> firsts;
  for (const Array* array : {&out, &x, &dy}) {
    if (array->stride(dim) != 1 || length % kVec != 0 || !rows_aligned(array->data(), 0, 1))
      return false;
    for (int d = 0; d < array->dims(); ++d)
      if (d != dim && array->size(d) != 1 && array->stride(d) % kVec != 0) return false;
    firsts.push_back(array->slice(dim, 0, 1));
  }
  const Layout rows = make_layout({&firsts[0], &firsts[1], &firsts[2]}, 1, Order::row_major);
  const int64_t vectors = length / kVec;
  const bool is_short = vectors <= 4 * kWarp;
  launch(
      name,
      is_short ? normalize_rows_kernel<kWarp, T, Steps> : normalize_rows_kernel<kBlock, T, Steps>,
      one_block_each(ceil_div(rows.items * (is_short ? kWarp : kBlock), kBlock)), kBlock, 0, rows,
      vectors, steps, RowInputs<T>{{device_data<const T>(x), device_data<const T>(dy)}},
      device_data<T>(out));
  return true;
}

// scale and back of each row, for the passes over other layouts.
template <class C>
struct ScaleOf {
  C eps;
  __device__ __forceinline__ C operator()(C length) const {
    return row_scales(length, eps, C(0)).scale;
  }
};
template <class C>
struct BackOf {
  C eps;
  __device__ __forceinline__ C operator()(C length, C products) const {
    return row_scales(length, eps, products).back;
  }
};

template <class C>
Array scales_of(const Array& length, C eps) {
  const Array scale = Array::empty(length.shape(), length.dtype(), length.device());
  const ScaleOf<C> f{eps};
  elementwise("normalize", Operands<C, C>(), f, f, scale, length);
  return scale;
}

}  // namespace

void normalize(const Array& x, int dim, double eps, const Array& length, const Array& y) {
  if (x.numel() == 0) return fill(length, 0);
  visit_floating(x.dtype(), "normalize", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const auto least = static_cast<C>(eps);
    [[maybe_unused]] const Forward<T> steps{least, device_data<C>(length)};
    if constexpr (sizeof(T) < 8)
      if (normalize_rows<T>("normalize", y, x, x, dim, steps)) return;
    reduce(ReduceOp::sum_squares, x, length, 0);
    unary(UnaryOp::sqrt, length, length);
    weighted_sum(x, {}, scales_of(length, least).expand(x.shape()), {}, {}, y);
  });
}

void normalize_backward(const Array& x, const Array& dy, const Array& length, int dim, double eps,
                        const Array& dx) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "normalize_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const auto least = static_cast<C>(eps);
    [[maybe_unused]] const Backward<T> steps{least, device_data<const C>(length)};
    if constexpr (sizeof(T) < 8)
      if (normalize_rows<T>("normalize_backward", dx, x, dy, dim, steps)) return;
    const Array back = Array::empty(length.shape(), length.dtype(), length.device());
    reduce_pairs(PairOp::product, x, dy, back);
    const BackOf<C> f{least};
    elementwise("normalize_backward", Operands<C, C, C>(), f, f, back, length, back);
    weighted_sum(dy, {}, scales_of(length, least).expand(x.shape()), x, back.expand(x.shape()), dx);
  });
}

}  // namespace binade::kernels::cuda
