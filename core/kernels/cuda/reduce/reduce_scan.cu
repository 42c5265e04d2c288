// Running sums and products along a dimension.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/common/warp_scan.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/reduce/scan_tiles.cuh>

namespace binade::kernels::cuda {

namespace {

// A scan says what it takes of position p of a row (`at` holds the row's offsets in the operands),
// how two neighbouring stretches join, in the order of the walk, and where the result goes.

template <class T>
struct SumScan {
  using State = ComputeOf<T>;
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
  __device__ void store(const int64_t* at, int64_t p, State sum) const {
    store_as(out, at[0] + p * out_stride, out_dtype, sum);
  }
};

template <class T>
struct ProductScan : SumScan<T> {
  using State = ComputeOf<T>;
  __device__ State identity() const { return State(1); }
  __device__ State join(State earlier, State later) const { return later * earlier; }
};

// rows: out and x, cut to their first element along the dimension. A thread walks one stretch of
// one row: thread t stretch s of row r with t = s·rows + r. `states`, of the same order, has what
// lies before each stretch; null: there is one.
template <class Scan>
__global__ void __launch_bounds__(kBlock)
    scan_columns_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan,
                        int64_t stretch, const typename Scan::State* states) {
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  const int64_t part = task / rows.items, row = task - part * rows.items;
  if (part * stretch >= walk.length) return;
  int64_t offset[2];
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
      scan.store(offset, walk.position(i + k), state);
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
  int64_t offset[2];
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
  constexpr int kAhead = 8;  // loads that wait for no store
  const int64_t row = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (row >= rows) return;
  typename Scan::State before = scan.identity();
  for (int64_t s = 0; s < stretches; s += kAhead) {
    typename Scan::State own[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (s + k < stretches) own[k] = states[(s + k) * rows + row];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (s + k >= stretches) break;
      states[(s + k) * rows + row] = before;
      before = scan.join(before, own[k]);
    }
  }
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
  int64_t offset[2];
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
    const State through =
        warp_scan(own[kEach - 1], [&](const State& a, const State& b) { return scan.join(a, b); });
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
      if (i < walk.length) scan.store(offset, walk.position(i), tile[place(k * kBlock + thread)]);
    }
  }
}

// The first `count` of a vector, and `rest` in place of the others. Out of line: were single
// elements and vectors read into one variable, it would take a register for each element.
template <int kVec, class T>
__device__ __noinline__ Vec<T, kVec> load_some(const T* data, int count, T rest) {
  if (count == kVec) return load_vec<kVec>(data);
  Vec<T, kVec> values;
#pragma unroll
  for (int i = 0; i < kVec; ++i) values[i] = i < count ? data[i] : rest;
  return values;
}

template <class T, int kCount>
__device__ __forceinline__ void turn_round(T (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    const T value = values[i];
    values[i] = values[kCount - 1 - i];
    values[kCount - 1 - i] = value;
  }
}

// Rows of floating-point neighbours that begin at 16-byte addresses, in and out: sums or products
// of T, one block a row. A warp takes kEach runs of 32 vectors of a chunk, one behind the other.
template <class Scan, class T>
__global__ void __launch_bounds__(kBlock)
    scan_vector_rows_kernel(const __grid_constant__ Layout rows, Walk walk, const Scan scan,
                            const T* x, void* out, DType out_dtype) {
  using State = typename Scan::State;
  constexpr int kWarps = kBlock / kWarp, kEach = 4, kVec = kVecWidth<T>;
  const auto join = [&](State a, State b) { return scan.join(a, b); };
  __shared__ State totals[2][kWarps];  // one is read while the other is written
  int64_t offset[2];
  locate(rows, blockIdx.x, offset);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t vectors = ceil_div(walk.length, kVec);
  State carry = scan.identity();
  int turn = 0;
  for (int64_t begin = 0; begin < vectors; begin += kBlock * kEach, turn ^= 1) {
    const int64_t first = begin + warp * kEach * kWarp + lane;
    Vec<T, kVec> read[kEach];
    if (walk.whole_vectors(begin, kBlock * kEach, kVec)) {  // no branch between the loads
#pragma unroll
      for (int k = 0; k < kEach; ++k)
        read[k] = load_vec<kVec>(x + offset[1] + walk.vector(first + k * kWarp, vectors) * kVec);
    } else {
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        const int64_t start = walk.vector(first + k * kWarp, vectors) * kVec;
        const int64_t count = start < 0 ? 0 : min(walk.length - start, int64_t{kVec});
        read[k] = load_some<kVec>(x + offset[1] + start, static_cast<int>(count),
                                  narrow<T>(scan.identity()));
      }
    }
    State before[kEach];  // of this thread's vector, what the warp's vectors make before it
    State total = scan.identity();
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      if (walk.reverse) turn_round(read[k].value);
      State own = widen(read[k][0]);
#pragma unroll
      for (int i = 1; i < kVec; ++i) own = join(own, widen(read[k][i]));
      const State through = warp_scan(own, join);
      State before_lane = shuffle_up(through, 1);
      if (lane == 0) before_lane = scan.identity();
      before[k] = join(total, before_lane);
      total = join(total, __shfl_sync(0xffffffffu, through, kWarp - 1));
    }
    if (lane == 0) totals[turn][warp] = total;
    __syncthreads();
    State before_warp = carry;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before_warp = carry;
      carry = join(carry, totals[turn][w]);
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t start = walk.vector(first + k * kWarp, vectors) * kVec;
      if (start < 0) continue;
      State state = join(before_warp, before[k]), values[kVec];
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        state = join(state, widen(read[k][i]));
        values[i] = state;
      }
      if (walk.reverse) turn_round(values);
      if (start + kVec <= walk.length) {
        store_run_as<kVec>(out, offset[0] + start, out_dtype, values);
      } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i)
          if (start + i < walk.length) store_as(out, offset[0] + start + i, out_dtype, values[i]);
      }
    }
  }
}

// Columns that are neighbours, kVec of them a thread, from the first row to the last.
template <class Scan, class T>
__global__ void __launch_bounds__(kBlock)
    scan_vector_columns_kernel(const __grid_constant__ Layout items, Walk walk, const Scan scan,
                               const T* x, int64_t x_stride, T* out, int64_t out_stride) {
  using State = typename Scan::State;
  constexpr int kVec = kVecWidth<T>, kAhead = 8;
  const int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (item >= items.items) return;
  int64_t offset[2];
  locate(items, item, offset);
  const int count = elements_of<kVec>(items, item);
  State state[kVec];
#pragma unroll
  for (State& s : state) s = scan.identity();
  for (int64_t i = 0; i < walk.length; i += kAhead) {
    Vec<T, kVec> ahead[kAhead];
    if (i + kAhead <= walk.length && count == kVec) {  // no branch between the loads
#pragma unroll
      for (int a = 0; a < kAhead; ++a)
        ahead[a] = load_vec<kVec>(x + offset[1] + walk.position(i + a) * x_stride);
    } else {
#pragma unroll
      for (int a = 0; a < kAhead; ++a)
        if (i + a < walk.length)
          ahead[a] =
              load_item<kVec>(items, 1, x, offset[1] + walk.position(i + a) * x_stride, count);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (i + a >= walk.length) break;
      Vec<T, kVec> result;
#pragma unroll
      for (int k = 0; k < kVec; ++k) {
        state[k] = scan.join(state[k], widen(ahead[a][k]));
        result[k] = narrow<T>(state[k]);
      }
      store_item(out, offset[0] + walk.position(i + a) * out_stride, count, result);
    }
  }
}

// How many positions a thread walks where it has one column of `columns`.
int64_t stretch_of(int64_t columns, int64_t length) {
  constexpr int64_t kManyThreads = 128 * 1024;
  const int64_t wanted =
      std::clamp<int64_t>(ceil_div(kManyThreads, columns), 1, ceil_div(length, 64));
  return ceil_div(length, std::min<int64_t>(wanted, 1024));
}

template <class Scan>
void run_scan(const char* name, const Layout& rows, const Walk& walk, bool neighbours,
              const Scan& scan) {
  if (walk.length > 32 && !(rows.items >= 64 && neighbours)) {
    launch(name, scan_rows_kernel<Scan>, one_block_each(rows.items), kBlock, 0, rows, walk, scan);
    return;
  }
  const int64_t stretch = stretch_of(rows.items, walk.length);
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

// Whether both arrays, cut to the rows' first elements, have rows that begin at 16-byte addresses.
bool rows_of_vectors(const Layout& rows, const Array& x, const Array& out, int dim, int vec) {
  bool whole = x.stride(dim) == 1 && out.stride(dim) == 1 && rows_aligned(x.data(), 0, 1) &&
               rows_aligned(out.data(), 0, 1);
  for (int operand = 0; operand < 2; ++operand)
    for (int d = 0; d < rows.dims; ++d)
      whole &= rows.items == 1 || rows.strides[operand][d] % vec == 0;
  return whole;
}

// The scans of 16-byte vectors; false for other layouts.
template <class T, class Scan>
bool run_vector_scan(const char* name, const Array& x, int dim, const Walk& walk, const Scan& scan,
                     const Array& out) {
  constexpr int kVec = kVecWidth<T>;
  const Array first_out = out.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&first_out, &first_x}, 1);
  if (walk.length >= kWarp * kVec && rows_of_vectors(rows, x, out, dim, kVec)) {
    launch(name, scan_vector_rows_kernel<Scan, T>, one_block_each(rows.items), kBlock, 0, rows,
           walk, scan, device_data<const T>(x), device_pointer(out), out.dtype());
    return true;
  }
  const Layout items = make_layout({&first_out, &first_x}, kVec);
  const bool vectors = items.vec == kVec && !items.splat[1] && x.stride(dim) % kVec == 0 &&
                       out.stride(dim) % kVec == 0 && items.items * kVec >= 64;
  if (!vectors || out.dtype() != x.dtype()) return false;
  if (stretch_of(items.items, walk.length) < walk.length) {
    if (items.numel % kVec != 0) return false;
    scan_tiles<T>(name, items, walk, scan, x, x.stride(dim), out, out.stride(dim));
  } else {
    launch(name, scan_vector_columns_kernel<Scan, T>, one_block_each(ceil_div(items.items, kBlock)),
           kBlock, 0, items, walk, scan, device_data<const T>(x), x.stride(dim),
           device_data<T>(out), out.stride(dim));
  }
  return true;
}

// Scans x into out.
template <template <class> class Scan>
void scan_along(const char* name, const Array& x, int dim, bool reverse, const Array& out) {
  if (x.numel() == 0) return;
  const bool is_narrow = !is_floating(x.dtype()) && x.dtype() != DType::i64;
  if (is_narrow) return scan_along<Scan>(name, x.to(DType::i64), dim, reverse, out);
  const Array first_out = out.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1);
  const Layout rows = make_layout({&first_out, &first_x}, 1);
  const auto run = [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    const Walk walk{x.size(dim), reverse};
    const SumScan<T> operands{device_data<T>(x), x.stride(dim), device_pointer(out), out.dtype(),
                              out.stride(dim)};
    const Scan<T> scan{operands};
    if constexpr (sizeof(T) < 8)
      if (run_vector_scan<T>(name, x, dim, walk, scan, out)) return;
    run_scan(name, rows, walk, x.stride(dim) != 1, scan);
  };
  x.dtype() == DType::i64 ? run(int64_t{}) : visit_floating(x.dtype(), name, run);
}

}  // namespace

void cumsum(const Array& x, int dim, bool reverse, const Array& out) {
  scan_along<SumScan>("cumsum", x, dim, reverse, out);
}

void cumprod(const Array& x, int dim, const Array& out) {
  scan_along<ProductScan>("cumprod", x, dim, false, out);
}

}  // namespace binade::kernels::cuda
