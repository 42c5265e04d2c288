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

// rows: the operands, cut to their first element along the dimension. One thread a row.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    scan_columns_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan) {
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row >= rows.items) return;
  int64_t offset[Scan::kOperands];
  locate(rows, row, offset);
  typename Scan::State state = scan.identity();
  for (int64_t i = 0; i < walk.length; ++i) {
    const int64_t p = walk.position(i);
    state = scan.join(state, scan.load(offset, p));
    scan.store(offset, row, p, state);
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

// One block a row, in tiles of an element a thread.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    scan_rows_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan) {
  using State = typename Scan::State;
  constexpr int kWarps = kBlock / kWarp;
  __shared__ State totals[kWarps];
  int64_t offset[Scan::kOperands];
  locate(rows, blockIdx.x, offset);
  const int warp = threadIdx.x / kWarp;
  State carry = scan.identity();
  for (int64_t tile = 0; tile < walk.length; tile += kBlock) {
    const int64_t i = tile + threadIdx.x;
    const int64_t p = walk.position(i);
    const bool inside = i < walk.length;
    State state = warp_scan(scan, inside ? scan.load(offset, p) : scan.identity());
    if (threadIdx.x % kWarp == kWarp - 1) totals[warp] = state;
    __syncthreads();
    State before = carry;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) state = scan.join(before, state);
      before = scan.join(before, totals[w]);
    }
    carry = before;
    __syncthreads();  // the totals have been read
    if (inside) scan.store(offset, blockIdx.x, p, state);
  }
}

template <class Scan>
void run_scan(const char* name, const Layout& rows, const Walk& walk, bool neighbours,
              const Scan& scan) {
  const bool columns = walk.length <= 32 || (rows.items >= 1024 && neighbours);
  if (columns)
    launch(name, scan_columns_kernel<Scan>, one_block_each(ceil_div(rows.items, kBlock)), kBlock, 0,
           rows, walk, scan);
  else
    launch(name, scan_rows_kernel<Scan>, one_block_each(rows.items), kBlock, 0, rows, walk, scan);
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
