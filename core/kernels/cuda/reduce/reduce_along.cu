// Reductions along one dimension that carry more than a number: positions and logarithms of sums.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/common/online_softmax.cuh>

namespace binade::kernels::cuda {

namespace {

template <class C>
struct Candidate {
  C value;
  int64_t position;
};

template <class C>
struct ArgFold {
  using State = Candidate<C>;
  bool largest;
  __device__ State identity() const { return {C(0), INT64_MAX}; }
  __device__ State of(C x, int64_t position) const { return {x, position}; }
  // NaN wins, then the better value, then the smaller position.
  __device__ __forceinline__ State operator()(const State& a, const State& b) const {
    if (a.position == INT64_MAX || b.position == INT64_MAX) return a.position < b.position ? a : b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    if (a_nan || a.value == b.value) return a.position < b.position ? a : b;
    return (a.value > b.value) == largest ? a : b;
  }
  __device__ void store(void* out, int64_t offset, DType, const State& best) const {
    static_cast<int64_t*>(out)[offset] = best.position;
  }
};

template <class C>
struct LogSumExpFold : MaxSumFold {
  using State = MaxSum<C>;
  __device__ State identity() const { return State::nothing(); }
  __device__ State of(C x, int64_t) const { return State::of(x); }
  __device__ void store(void* out, int64_t offset, DType dtype, const State& state) const {
    store_as(out, offset, dtype, state.logsumexp());
  }
};

// rows: out, and x cut to its first element along the dimension. A row is folded by one thread, a
// warp or a block.
template <int kLanes, class T, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_rows_kernel(const __grid_constant__ Layout rows, const T* x, int64_t length,
                     int64_t stride, Fold fold, void* out, DType out_dtype) {
  using State = typename Fold::State;
  const int64_t row = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (row >= rows.items) return;  // all lanes of a row together
  int64_t offset[2];
  locate(rows, row, offset);
  State state = fold.identity();
  for (int64_t i = lane; i < length; i += kLanes)
    state = fold(state, fold.of(widen(x[offset[1] + i * stride]), i));
  if constexpr (kLanes == kWarp) state = warp_reduce(state, fold);
  if constexpr (kLanes == kBlock) state = block_reduce<kBlock>(state, fold, fold.identity());
  if (lane == 0) fold.store(out, offset[0], out_dtype, state);
}

template <class T, class Fold>
void fold_rows(const char* name, const Array& x, int dim, const Fold& fold, const Array& out) {
  if (out.numel() == 0) return;
  const int64_t length = x.size(dim), stride = x.stride(dim);
  check(length > 0, name, " along an empty dimension of ", x.shape());
  const Array first = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&out, &first}, 1);
  const bool neighbours = rows.sizes[0] > 1 && rows.strides[1][0] == 1 && stride != 1;
  const int lanes = neighbours ? 1 : length <= 512 ? kWarp : kBlock;
  const auto kernel = lanes == 1       ? fold_rows_kernel<1, T, Fold>
                      : lanes == kWarp ? fold_rows_kernel<kWarp, T, Fold>
                                       : fold_rows_kernel<kBlock, T, Fold>;
  launch(name, kernel, one_block_each(ceil_div(rows.items * lanes, kBlock)), kBlock, 0, rows,
         device_data<T>(x), length, stride, fold, out.data(), out.dtype());
}

}  // namespace

void arg_reduce(bool largest, const Array& x, int dim, const Array& out) {
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    fold_rows<T>("arg_reduce", x, dim, ArgFold<ComputeOf<T>>{largest}, out);
  });
}

void logsumexp(const Array& x, int dim, const Array& out) {
  visit_floating(x.dtype(), "logsumexp", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    fold_rows<T>("logsumexp", x, dim, LogSumExpFold<ComputeOf<T>>(), out);
  });
}

}  // namespace binade::kernels::cuda
