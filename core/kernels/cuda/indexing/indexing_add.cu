// Adding rows by index, in a fixed order and without atomics.
//
// The indices are sorted together with their positions, so that rows that go to one place follow
// each other, in their order: a run. The sorted rows are cut into tiles of equal length. A thread
// walks one tile in one column, sums each run and adds it to the output; of runs that reach into
// other tiles it keeps the tile's share, and a second kernel adds the shares of such a run, first
// to last. Every row is read once, and no run is too long for one block. The grid follows from the
// shape.
#include <binade/core/kernels/cuda/common/radix_sort.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/indexing/indexing.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kTile = 32;  // sorted rows
constexpr int kAhead = 4;  // rows that a thread loads before it needs them

// keys[i] = the i-th index; size for those out of range, so that they come last. named[row] = 1 for
// those that an index names; null: nobody asks.
__global__ void __launch_bounds__(kBlock)
    index_keys_kernel(IndexReader index, int64_t stride, int64_t count, uint32_t* keys,
                      uint32_t* positions, uint8_t* named) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t position = index.at(i * stride);
    keys[i] = static_cast<uint32_t>(position == kBadIndex ? index.size : position);
    positions[i] = static_cast<uint32_t>(i);
    if (named != nullptr && position != kBadIndex) named[position] = 1;
  }
}

// Zeros for the rows of out, one a block, that no index names.
template <int kVec, class Out>
__global__ void __launch_bounds__(kBlock)
    clear_rows_kernel(const __grid_constant__ Layout columns, const uint8_t* named,
                      int64_t out_stride, Out* out) {
  if (named[blockIdx.x] != 0) return;
  Vec<Out, kVec> zeros;
#pragma unroll
  for (int i = 0; i < kVec; ++i) zeros[i] = narrow<Out>(ComputeOf<Out>(0));
  for (int64_t column = threadIdx.x; column < columns.items; column += kBlock) {
    int64_t offset[1];
    locate(columns, column, offset);
    store_item(out + blockIdx.x * out_stride, offset[0], elements_of<kVec>(columns, column), zeros);
  }
}

// to += sum; to = sum where nothing is there yet.
template <int kVec, class C, class Out>
__device__ __forceinline__ void add_to_row(const Layout& columns, bool is_empty, int present,
                                           const C (&sum)[kVec], Out* to) {
  Vec<Out, kVec> result;
#pragma unroll
  for (int i = 0; i < kVec; ++i) result[i] = narrow<Out>(C(0));
  if (!is_empty) result = load_item<kVec>(columns, 0, to, 0, present);
#pragma unroll
  for (int i = 0; i < kVec; ++i) result[i] = narrow<Out>(static_cast<C>(widen(result[i])) + sum[i]);
  store_item(to, 0, present, result);
}

struct SortedRows {
  const uint32_t* keys;       // sorted
  const uint32_t* positions;  // rows of source
  int64_t count;
  uint32_t bad_key;
  int64_t out_stride, source_stride;
  bool is_empty;  // out holds nothing yet

  __device__ bool joins(int64_t a, int64_t b) const {  // whether rows a and b are of one run
    return a >= 0 && b < count && keys[a] == keys[b];
  }
};

// Shares of runs that cross tiles: of tile t, shares[2t] belongs to a run that began before it, and
// shares[2t + 1] to one that begins in it and goes on. Each has columns · kVec numbers.
template <class C>
struct Shares {
  C* data;
  int64_t columns;
  template <int kVec>
  __device__ C* at(int64_t tile, int side, int64_t column) const {
    return data + ((2 * tile + side) * columns + column) * kVec;
  }
};

// columns: out and source at position 0 of the dimension. Block (tile, group of columns).
template <int kVec, class In, class Out>
__global__ void __launch_bounds__(kBlock)
    add_runs_kernel(const __grid_constant__ Layout columns, SortedRows rows,
                    Shares<ComputeOf<In>> shares, const In* source, Out* out) {
  using C = ComputeOf<In>;
  const int64_t tile = blockIdx.x, begin = tile * kTile;
  const int64_t end = min(rows.count, begin + kTile);
  const int64_t column = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (column >= columns.items) return;
  int64_t offset[2];
  locate(columns, column, offset);
  const int present = elements_of<kVec>(columns, column);

  C sum[kVec];
#pragma unroll
  for (C& s : sum) s = C(0);
  bool began_here = !rows.joins(begin - 1, begin);

  for (int64_t group = begin; group < end; group += kAhead) {
    Vec<In, kVec> ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (group + k < end) {
        const int64_t from = offset[1] + rows.positions[group + k] * rows.source_stride;
        ahead[k] = load_item<kVec>(columns, 1, source, from, present);
      }
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t row = group + k;
      if (row >= end) break;
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum[i] += widen(ahead[k][i]);
      const bool goes_on = rows.joins(row, row + 1);
      if (goes_on && row + 1 < end) continue;

      const uint32_t key = rows.keys[row];
      if (began_here && !goes_on) {
        if (key != rows.bad_key) {
          add_to_row(columns, rows.is_empty, present, sum, out + offset[0] + key * rows.out_stride);
        }
      } else {
        C* share = shares.template at<kVec>(tile, began_here ? 1 : 0, column);
#pragma unroll
        for (int i = 0; i < kVec; ++i) share[i] = sum[i];
      }
#pragma unroll
      for (C& s : sum) s = C(0);
      began_here = true;
    }
  }
}

// Adds up the runs that begin in a tile and reach beyond it.
template <int kVec, class C, class Out>
__global__ void __launch_bounds__(kBlock)
    add_shares_kernel(const __grid_constant__ Layout columns, SortedRows rows, Shares<C> shares,
                      Out* out) {
  const int64_t tile = blockIdx.x, begin = tile * kTile, last = begin + kTile - 1;
  const int64_t column = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (column >= columns.items || !rows.joins(last, last + 1)) return;
  if (rows.joins(begin - 1, last)) return;  // begins before this tile
  const uint32_t key = rows.keys[last];
  if (key == rows.bad_key) return;

  C sum[kVec];
#pragma unroll
  for (int i = 0; i < kVec; ++i) sum[i] = shares.template at<kVec>(tile, 1, column)[i];
  for (int64_t next = tile + 1; rows.joins(last, next * kTile); ++next) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum[i] += shares.template at<kVec>(next, 0, column)[i];
  }
  int64_t offset[2];
  locate(columns, column, offset);
  const int present = elements_of<kVec>(columns, column);
  add_to_row(columns, rows.is_empty, present, sum, out + offset[0] + key * rows.out_stride);
}

template <class In, class Out>
void typed_add_rows(const char* name, const Array& out, int dim, const SortedRows& rows,
                    const uint8_t* named, const Array& source) {
  using C = ComputeOf<In>;
  constexpr int kVec =
      std::is_floating_point_v<C> ? 16 / static_cast<int>(std::max(sizeof(In), sizeof(Out))) : 1;
  const Array out_start = out.slice(dim, 0, 1), source_start = source.slice(dim, 0, 1);
  Layout columns = make_layout({&out_start, &source_start}, kVec);
  const bool items = columns.vec == kVec && !columns.splat[1] && rows.out_stride % kVec == 0 &&
                     rows.source_stride % kVec == 0;
  if (!items) columns = make_layout({&out_start, &source_start}, 1);

  if (rows.is_empty)
    launch(name, items ? clear_rows_kernel<kVec, Out> : clear_rows_kernel<1, Out>,
           one_block_each(out.size(dim)), kBlock, 0, columns, named, rows.out_stride,
           device_data<Out>(out));
  const int64_t tiles = ceil_div(rows.count, kTile);
  const int64_t groups = ceil_div(columns.items, kBlock);
  check(groups <= 65535, name, ": rows of ", out_start.numel(), " elements are too long");
  const dim3 grid(one_block_each(tiles), static_cast<unsigned>(groups));
  const int threads =
      groups > 1 ? kBlock : static_cast<int>(ceil_div(columns.items, kWarp) * kWarp);
  const Workspace<C> memory(2 * tiles * columns.items * columns.vec);
  const Shares<C> shares{memory.data(), columns.items};
  launch(name, items ? add_runs_kernel<kVec, In, Out> : add_runs_kernel<1, In, Out>, grid, threads,
         0, columns, rows, shares, device_data<In>(source), device_data<Out>(out));
  launch(name, items ? add_shares_kernel<kVec, C, Out> : add_shares_kernel<1, C, Out>, grid,
         threads, 0, columns, rows, shares, device_data<Out>(out));
}

}  // namespace

void add_rows(const char* name, const Array& out, int dim, const Array& index, const Array& source,
              float beta) {
  const bool is_empty = beta == 0;
  if (source.numel() == 0) return is_empty ? fill(out, 0) : void();
  dim = out.shape().wrap_dim(dim);
  const int64_t count = index.numel(), size = out.size(dim);
  check(count <= INT32_MAX && size < UINT32_MAX, name, ": more than 2^31 - 1 indices");

  const Workspace<uint32_t> keys(count), sorted_keys(count);
  const Workspace<uint32_t> positions(count), sorted_positions(count);
  const Workspace<uint8_t> named(is_empty ? size : 1);
  if (is_empty)
    ::binade::cuda::check_cuda(cudaMemsetAsync(named.data(), 0, static_cast<size_t>(size),
                                               ::binade::cuda::current_stream()),
                               name);
  launch("index_keys", index_keys_kernel, grid_for(count), kBlock, 0, IndexReader(index, size),
         index.stride(0), count, keys.data(), positions.data(), is_empty ? named.data() : nullptr);
  sort_pairs<uint32_t>(keys.data(), sorted_keys.data(), positions.data(), sorted_positions.data(),
                       1, count, std::bit_width(static_cast<uint32_t>(size) | 1));
  const SortedRows rows{.keys = sorted_keys.data(),
                        .positions = sorted_positions.data(),
                        .count = count,
                        .bad_key = static_cast<uint32_t>(size),
                        .out_stride = out.stride(dim),
                        .source_stride = source.stride(dim),
                        .is_empty = is_empty};

  const DType from = source.dtype(), to = out.dtype();
  if (from == to)
    return visit_all(to, [&](auto tag) {
      using T = DeviceOf<decltype(tag)>;
      typed_add_rows<T, T>(name, out, dim, rows, named.data(), source);
    });
  if (from == DType::f16 && to == DType::f32)
    return typed_add_rows<__half, float>(name, out, dim, rows, named.data(), source);
  if (from == DType::bf16 && to == DType::f32)
    return typed_add_rows<__nv_bfloat16, float>(name, out, dim, rows, named.data(), source);
  if (from == DType::f32 && to == DType::f16)
    return typed_add_rows<float, __half>(name, out, dim, rows, named.data(), source);
  if (from == DType::f32 && to == DType::bf16)
    return typed_add_rows<float, __nv_bfloat16>(name, out, dim, rows, named.data(), source);
  fail(name, ": cannot add rows of ", name_of(from), " to ", name_of(to));
}

void index_add(const Array& out, int dim, const Array& index, const Array& source, float beta) {
  add_rows("index_add", out, dim, index, source, beta);
}

}  // namespace binade::kernels::cuda
