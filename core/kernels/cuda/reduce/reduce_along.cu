// Reductions along one dimension that carry more than a number: positions and logarithms of sums.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/online_softmax.cuh>
#include <binade/core/kernels/cuda/reduce/join_neighbours.cuh>

namespace binade::kernels::cuda {

namespace {

// A fold says how an element at a position, or a vector of them, joins what a thread carries,
// elements in rising order, and how what two threads carry meets.

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
  // NaN wins, then the better value, then the smaller position.
  __device__ __forceinline__ void push(State& best, C x, int64_t position) const {
    const bool better = largest ? x > best.value : x < best.value;
    const bool first_nan = x != x && best.value == best.value;
    if (better || first_nan || best.position == INT64_MAX) best = {x, position};
  }
  // The best of the vector first; where it lies only if it is the best so far.
  template <int kVec, class T>
  __device__ __forceinline__ void push_run(State& best, const Vec<T, kVec>& values,
                                           int64_t start) const {
    C x = widen(values[0]);
#pragma unroll
    for (int i = 1; i < kVec; ++i)
      x = largest ? Max()(x, static_cast<C>(widen(values[i])))
                  : Min()(x, static_cast<C>(widen(values[i])));
    const bool better = largest ? x > best.value : x < best.value;
    const bool first_nan = x != x && best.value == best.value;
    if (!better && !first_nan && best.position != INT64_MAX) return;
    int place = 0;
#pragma unroll
    for (int i = kVec - 1; i >= 0; --i) {
      const C value = widen(values[i]);
      if (value == x || (x != x && value != value)) place = i;
    }
    best = {x, start + place};
  }
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
  __device__ __forceinline__ void push(State& state, C x, int64_t) const {
    state = (*this)(state, State::of(x));
  }
  template <int kVec, class T>
  __device__ __forceinline__ void push_run(State& state, const Vec<T, kVec>& values,
                                           int64_t) const {
#pragma unroll
    for (int i = 0; i < kVec; ++i) push(state, widen(values[i]), 0);
  }
  __device__ void store(void* out, int64_t offset, DType dtype, const State& state) const {
    store_as(out, offset, dtype, state.logsumexp());
  }
};

// rows: out, and x cut to its first element along the dimension. A row is folded by one thread, a
// warp or a block; items of several elements where rows are contiguous.
template <int kLanes, int kVec, class T, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_rows_kernel(const __grid_constant__ Layout rows, const T* x, int64_t length,
                     int64_t stride, const Fold fold, void* out, DType out_dtype) {
  using State = typename Fold::State;
  const int64_t row = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (row >= rows.items) return;  // all lanes of a row together
  int64_t offset[2];
  locate(rows, row, offset);
  const T* values = x + offset[1];
  State state = fold.identity();
  if constexpr (kVec > 1) {
    constexpr int kAhead = 4;  // loads that do not wait for each other
    const int64_t whole = length / kVec;
    int64_t item = lane;
    for (; item + (kAhead - 1) * kLanes < whole; item += kAhead * kLanes) {
      Vec<T, kVec> read[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; ++k)
        read[k] = load_vec<kVec>(values + (item + k * kLanes) * kVec);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) fold.push_run(state, read[k], (item + k * kLanes) * kVec);
    }
    for (; item < whole; item += kLanes)
      fold.push_run(state, load_vec<kVec>(values + item * kVec), item * kVec);
    for (int64_t i = whole * kVec + lane; i < length; i += kLanes)
      fold.push(state, widen(values[i]), i);
  } else {
    for (int64_t i = lane; i < length; i += kLanes) fold.push(state, widen(values[i * stride]), i);
  }
  if constexpr (kLanes == kWarp) state = warp_reduce(state, fold);
  if constexpr (kLanes == kBlock) state = block_reduce<kBlock>(state, fold, fold.identity());
  if (lane == 0) fold.store(out, offset[0], out_dtype, state);
}

// Columns that are neighbours in memory, kVec to a thread. Task t is item o of stretch s of the
// dimension, with t = s·items + o; with several stretches, states lie at (s·items + o)·kVec.
template <int kVec, class T, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_columns_kernel(const __grid_constant__ Layout rows, const T* x, int64_t length,
                        int64_t stride, int64_t stretches, int64_t stretch, const Fold fold,
                        typename Fold::State* states, void* out, DType out_dtype) {
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (task >= rows.items * stretches) return;
  const int64_t part = task / rows.items, item = task - part * rows.items;
  int64_t offset[2];
  locate(rows, item, offset);
  const int count = elements_of<kVec>(rows, item);
  typename Fold::State state[kVec];
#pragma unroll
  for (auto& s : state) s = fold.identity();
  const int64_t end = min(length, (part + 1) * stretch);
  int64_t i = part * stretch;
  if (count == kVec) {
    constexpr int kAhead = 8;  // loads that do not wait for each other
    for (; i + kAhead <= end; i += kAhead) {
      Vec<T, kVec> read[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) read[a] = load_vec<kVec>(x + offset[1] + (i + a) * stride);
#pragma unroll
      for (int k = 0; k < kVec; ++k) {
        Vec<T, kAhead> column;
#pragma unroll
        for (int a = 0; a < kAhead; ++a) column[a] = read[a][k];
        fold.push_run(state[k], column, i);
      }
    }
  }
  for (; i < end; ++i) {
    const Vec<T, kVec> read = load_item<kVec>(rows, 1, x, offset[1] + i * stride, count);
#pragma unroll
    for (int k = 0; k < kVec; ++k) fold.push(state[k], widen(read[k]), i);
  }
#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    if (stretches > 1)
      states[task * kVec + k] = state[k];
    else if (k < count)
      fold.store(out, offset[0] + k, out_dtype, state[k]);
  }
}

// Where a fold's results go.
template <class Fold>
struct FoldStore {
  Fold fold;
  void* out;
  DType dtype;
  __device__ void store(int64_t offset, const typename Fold::State& state) const {
    fold.store(out, offset, dtype, state);
  }
};

template <int kVec, class T, class Fold>
void fold_columns(const char* name, const Array& x, int dim, const Layout& rows, const Fold& fold,
                  const Array& out) {
  using State = typename Fold::State;
  const int64_t length = x.size(dim), stride = x.stride(dim);
  constexpr int64_t kManyThreads = 128 * 1024;
  const int64_t wanted =
      std::clamp<int64_t>(ceil_div(kManyThreads, rows.items), 1, ceil_div(length, 32));
  const int64_t stretch = ceil_div(length, std::min<int64_t>(wanted, 1024));
  const int64_t stretches = ceil_div(length, stretch);
  const Workspace<State> states(stretches == 1 ? 1 : rows.items * stretches * kVec);
  launch(name, fold_columns_kernel<kVec, T, Fold>,
         one_block_each(ceil_div(rows.items * stretches, kBlock)), kBlock, 0, rows,
         device_data<const T>(x), length, stride, stretches, stretch, fold, states.data(),
         device_pointer(out), out.dtype());
  if (stretches > 1)
    join_neighbours<kVec>(name, rows, stretches, states.data(), fold,
                          FoldStore<Fold>{fold, device_pointer(out), out.dtype()});
}

template <class T, class Fold>
void fold_rows(const char* name, const Array& x, int dim, const Fold& fold, const Array& out) {
  if (out.numel() == 0) return;
  constexpr int kVec = std::is_floating_point_v<ComputeOf<T>> && sizeof(T) < 8 ? kVecWidth<T> : 1;
  const int64_t length = x.size(dim), stride = x.stride(dim);
  check(length > 0, name, " along an empty dimension of ", x.shape());
  const Array first = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&out, &first}, 1);
  const bool neighbours = rows.sizes[0] > 1 && rows.strides[1][0] == 1 && stride != 1;
  if (neighbours) {
    if constexpr (kVec > 1) {
      const Layout items = make_layout({&out, &first}, kVec);
      if (items.vec == kVec && !items.splat[1] && stride % kVec == 0)
        return fold_columns<kVec, T>(name, x, dim, items, fold, out);
    }
    return fold_columns<1, T>(name, x, dim, rows, fold, out);
  }
  bool vectors = stride == 1 && rows_aligned(x.data(), 0, 1);  // at every row's beginning
  for (int d = 0; d < rows.dims; ++d) vectors &= rows.strides[1][d] % kVec == 0 || rows.items == 1;
  constexpr int64_t kManyWarps = 4096;  // that keep a device's memory busy
  const bool is_short = length <= 512 || rows.items >= kManyWarps;
  const auto kernel =
      vectors
          ? (is_short ? fold_rows_kernel<kWarp, kVec, T, Fold>
                      : fold_rows_kernel<kBlock, kVec, T, Fold>)
          : (is_short ? fold_rows_kernel<kWarp, 1, T, Fold> : fold_rows_kernel<kBlock, 1, T, Fold>);
  const int lanes = is_short ? kWarp : kBlock;
  launch(name, kernel, one_block_each(ceil_div(rows.items * lanes, kBlock)), kBlock, 0, rows,
         device_data<const T>(x), length, stride, fold, device_pointer(out), out.dtype());
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
