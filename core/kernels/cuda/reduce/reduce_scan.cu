// Running sums and products along a dimension.
#include <cstring>

#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

namespace {

// A scan says what it takes of position p of a row (`at` holds the row's offsets in the operands),
// how two neighbouring stretches join, in the order of the walk, and what it makes of the result.
// `row` numbers the rows.

template <class T>
struct SumScan {
  using State = ComputeOf<T>;
  static constexpr int kOperands = 2;  // out, x
  const T* x;
  int64_t x_stride;
  void* out;
  DType out_dtype;
  int64_t out_stride;
  __device__ State identity() const { return State(0); }
  __device__ State load(const int64_t* at, int64_t p) const {
    return widen(x[at[1] + p * x_stride]);
  }
  __device__ State join(State earlier, State later) const { return later + earlier; }
  __device__ void store(const int64_t* at, int64_t, int64_t p, State sum) const {
    store_as(out, at[0] + p * out_stride, out_dtype, sum);
  }
};

template <class T>
struct ProductScan : SumScan<T> {
  using State = ComputeOf<T>;
  __device__ State identity() const { return State(1); }
  __device__ State join(State earlier, State later) const { return later * earlier; }
};

// The products of what lies before each position, to a buffer of rows.
template <class T>
struct BeforeScan {
  using State = ComputeOf<T>;
  static constexpr int kOperands = 3;  // dx, x, dy
  const T* x;
  int64_t x_stride, length;
  State* before;
  __device__ State identity() const { return State(1); }
  __device__ State load(const int64_t* at, int64_t p) const {
    return p == 0 ? State(1) : widen(x[at[1] + (p - 1) * x_stride]);
  }
  __device__ State join(State earlier, State later) const { return later * earlier; }
  __device__ void store(const int64_t*, int64_t row, int64_t p, State product) const {
    before[row * length + p] = product;
  }
};

// s -> slope·s + offset.
template <class C>
struct Affine {
  C slope, offset;
};

// dx[p] = before[p] · s[p] with s[p] = dy[p] + x[p + 1] · s[p + 1], walked from the back.
template <class T>
struct ProductGradientScan {
  using State = Affine<ComputeOf<T>>;
  static constexpr int kOperands = 3;  // dx, x, dy
  const T *x, *dy;
  T* dx;
  int64_t x_stride, dy_stride, dx_stride, length;
  const ComputeOf<T>* before;
  __device__ State identity() const { return {ComputeOf<T>(1), ComputeOf<T>(0)}; }
  __device__ State load(const int64_t* at, int64_t p) const {
    return {p + 1 < length ? widen(x[at[1] + (p + 1) * x_stride]) : ComputeOf<T>(0),
            widen(dy[at[2] + p * dy_stride])};
  }
  __device__ State join(const State& earlier, const State& later) const {
    return {later.slope * earlier.slope, later.slope * earlier.offset + later.offset};
  }
  __device__ void store(const int64_t* at, int64_t row, int64_t p, const State& s) const {
    dx[at[0] + p * dx_stride] = narrow<T>(before[row * length + p] * s.offset);
  }
};

struct Walk {
  int64_t length;
  bool reverse;
  __device__ int64_t position(int64_t i) const { return reverse ? length - 1 - i : i; }
};

// rows: the operands, cut to their first element along the dimension. A thread walks one stretch of
// one row: thread t stretch s of row r with t = s·rows + r. `states`, of the same order, has what
// lies before each stretch; null: there is one.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    scan_columns_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan,
                        int64_t stretch, const typename Scan::State* states) {
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const int64_t part = task / rows.items, row = task - part * rows.items;
  if (part * stretch >= walk.length) return;
  int64_t offset[Scan::kOperands];
  locate(rows, row, offset);
  typename Scan::State state = states != nullptr ? states[task] : scan.identity();
  const int64_t end = min(walk.length, (part + 1) * stretch);
  // Loads a few elements ahead: none waits for a store of the one before.
  constexpr int kAhead = 8;
  for (int64_t i = part * stretch; i < end; i += kAhead) {
    typename Scan::State ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (i + k < end) ahead[k] = scan.load(offset, walk.position(i + k));
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (i + k >= end) break;
      state = scan.join(state, ahead[k]);
      scan.store(offset, row, walk.position(i + k), state);
    }
  }
}

// states[t] = what stretch s of row r makes.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    stretch_states_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan,
                          int64_t stretch, typename Scan::State* states) {
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const int64_t part = task / rows.items, row = task - part * rows.items;
  if (part * stretch >= walk.length) return;
  int64_t offset[Scan::kOperands];
  locate(rows, row, offset);
  typename Scan::State state = scan.identity();
  const int64_t end = min(walk.length, (part + 1) * stretch);
#pragma unroll 8
  for (int64_t i = part * stretch; i < end; ++i)
    state = scan.join(state, scan.load(offset, walk.position(i)));
  states[task] = state;
}

// states[t] = what the stretches before s make.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    join_stretches_kernel(int64_t rows, int64_t stretches, const Scan scan,
                          typename Scan::State* states) {
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row >= rows) return;
  typename Scan::State before = scan.identity();
#pragma unroll 4
  for (int64_t s = 0; s < stretches; ++s) {
    const typename Scan::State own = states[s * rows + row];
    states[s * rows + row] = before;
    before = scan.join(before, own);
  }
}

template <class State>
__device__ __forceinline__ State shuffle_up(const State& value, int distance) {
  static_assert(sizeof(State) % 4 == 0);
  unsigned words[sizeof(State) / 4];
  memcpy(words, &value, sizeof(State));
#pragma unroll
  for (unsigned& word : words) word = __shfl_up_sync(0xffffffffu, word, distance);
  State result;
  memcpy(&result, words, sizeof(State));
  return result;
}

template <class Scan, class State>
__device__ __forceinline__ State warp_scan(const Scan& scan, State value) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const State before = shuffle_up(value, distance);
    if (lane >= distance) value = scan.join(before, value);
  }
  return value;
}

// One block a row, in tiles of kEach elements a thread, which come and go by way of shared memory,
// so that neighbouring threads read and write neighbours.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    scan_rows_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan) {
  using State = typename Scan::State;
  constexpr int kWarps = kBlock / kWarp, kEach = 8, kTile = kBlock * kEach;
  __shared__ State tile[kTile + kTile / kWarp];
  __shared__ State totals[kWarps];
  const auto place = [](int i) { return i + i / kWarp; };  // columns of the tile in other banks
  int64_t offset[Scan::kOperands];
  locate(rows, blockIdx.x, offset);
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  State carry = scan.identity();
  for (int64_t begin = 0; begin < walk.length; begin += kTile) {
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = begin + k * kBlock + thread;
      tile[place(k * kBlock + thread)] =
          i < walk.length ? scan.load(offset, walk.position(i)) : scan.identity();
    }
    __syncthreads();
    State own[kEach];
    own[0] = tile[place(thread * kEach)];
#pragma unroll
    for (int k = 1; k < kEach; ++k) own[k] = scan.join(own[k - 1], tile[place(thread * kEach + k)]);
    const State through = warp_scan(scan, own[kEach - 1]);
    State before_lane = shuffle_up(through, 1);
    if (lane == 0) before_lane = scan.identity();
    if (lane == kWarp - 1) totals[warp] = through;
    __syncthreads();
    State before = carry;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before_lane = scan.join(before, before_lane);
      before = scan.join(before, totals[w]);
    }
    carry = before;
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      tile[place(thread * kEach + k)] = scan.join(before_lane, own[k]);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = begin + k * kBlock + thread;
      if (i < walk.length)
        scan.store(offset, blockIdx.x, walk.position(i), tile[place(k * kBlock + thread)]);
    }
  }
}

template <class Scan>
void run_scan(const char* name, const Layout& rows, const Walk& walk, bool neighbours,
              const Scan& scan) {
  if (walk.length > 32 && !(rows.items >= 64 && neighbours)) {
    launch(name, scan_rows_kernel<Scan>, one_block_each(rows.items), kBlock, 0, rows, walk, scan);
    return;
  }
  constexpr int64_t kManyThreads = 128 * 1024;
  const int64_t wanted =
      std::clamp<int64_t>(ceil_div(kManyThreads, rows.items), 1, ceil_div(walk.length, 64));
  const int64_t stretch = ceil_div(walk.length, std::min<int64_t>(wanted, 1024));
  const int64_t stretches = ceil_div(walk.length, stretch);
  const unsigned blocks = one_block_each(ceil_div(rows.items * stretches, kBlock));
  typename Scan::State* before = nullptr;
  const Workspace<typename Scan::State> states(stretches == 1 ? 1 : rows.items * stretches);
  if (stretches > 1) {
    before = states.data();
    launch(name, stretch_states_kernel<Scan>, blocks, kBlock, 0, rows, walk, scan, stretch, before);
    launch(name, join_stretches_kernel<Scan>, one_block_each(ceil_div(rows.items, kBlock)), kBlock,
           0, rows.items, stretches, scan, before);
  }
  launch(name, scan_columns_kernel<Scan>, blocks, kBlock, 0, rows, walk, scan, stretch, before);
}

// Scans x into out.
template <template <class> class Scan>
void scan_along(const char* name, const Array& x, int dim, bool reverse, const Array& out) {
  if (x.numel() == 0) return;
  const Array first_out = out.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&first_out, &first_x}, 1);
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const SumScan<T> operands{device_data<T>(x), x.stride(dim), device_pointer(out), out.dtype(),
                              out.stride(dim)};
    run_scan(name, rows, {x.size(dim), reverse}, x.stride(dim) != 1, Scan<T>{operands});
  });
}

}  // namespace

void cumsum(const Array& x, int dim, bool reverse, const Array& out) {
  scan_along<SumScan>("cumsum", x, dim, reverse, out);
}

void cumprod(const Array& x, int dim, const Array& out) {
  scan_along<ProductScan>("cumprod", x, dim, false, out);
}

void cumprod_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  if (x.numel() == 0) return;
  const Array first_dx = dx.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1),
              first_dy = dy.slice(dim, 0, 1);
  const Layout rows = make_layout({&first_dx, &first_x, &first_dy}, 1);
  const int64_t length = x.size(dim);
  visit_floating(x.dtype(), "cumprod_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const Workspace<ComputeOf<T>> before(x.numel());
    const bool neighbours = x.stride(dim) != 1;
    run_scan("cumprod_before", rows, {length, false}, neighbours,
             BeforeScan<T>{device_data<T>(x), x.stride(dim), length, before.data()});
    run_scan("cumprod_backward", rows, {length, true}, neighbours,
             ProductGradientScan<T>{device_data<T>(x), device_data<T>(dy), device_data<T>(dx),
                                    x.stride(dim), dy.stride(dim), dx.stride(dim), length,
                                    before.data()});
  });
}

}  // namespace binade::kernels::cuda
