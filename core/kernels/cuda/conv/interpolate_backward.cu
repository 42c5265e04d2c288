// The gradient of interpolation. A warp walks down the outputs that reach some rows of dx, which it
// reads once and in vectors: a row of dy adds its share to two rows of dx, of which those that are
// not complete are carried. What columns of dx take of a complete row of sums they gather from
// shared memory. All sums run in a fixed order (no atomics).
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/conv/sample_tables.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarps = kBlock / kWarp;
constexpr int kRun = 8;              // columns of dy that a lane adds up
constexpr int kSpan = kRun * kWarp;  // … and a warp

// Tiles of `rows` × `columns` elements of dx, a warp each.
struct TileGrid {
  int64_t items, groups, tiles;  // of all planes; of rows, and of columns, in a plane
  int rows, columns;
  bool vectors;  // whether runs of dy begin at 16-byte addresses

  TileGrid(const Array& dx, int most_columns, bool runs) : vectors(runs) {
    const int64_t planes = dx.size(0) * dx.size(1), width = dx.size(3);
    tiles = ceil_div(width, most_columns);
    columns = static_cast<int>(ceil_div(width, tiles));
    constexpr int64_t kManyRows = int64_t{1} << 17;  // from which on tiles of 16 fill a device
    rows = planes * dx.size(2) * tiles >= kManyRows ? 16 : 4;
    groups = ceil_div(dx.size(2), rows);
    items = planes * groups * tiles;
  }
};

// A warp's tile.
struct Tile {
  int64_t plane;
  int first_row, end_row, first_column, end_column;
  __device__ Tile(const TileGrid& grid, const ImageSizes& sizes, int64_t item) {
    const int64_t line = item / grid.tiles;
    plane = line / grid.groups;
    first_row = static_cast<int>(line - plane * grid.groups) * grid.rows;
    end_row = min(sizes.height, first_row + grid.rows);
    first_column = static_cast<int>(item - line * grid.tiles) * grid.columns;
    end_column = min(sizes.width, first_column + grid.columns);
  }
};

// Calls start(first, last) with the outputs [first, last) that reach rows of the tile, then
// add(output, sample) for each of them, and leave(row) where a row gets no more of them: of each
// row of the tile, and perhaps of the one above it.
template <class C, class Start, class Add, class Leave>
__device__ __forceinline__ void walk_down(const SampleTables<C>& tables, const ImageSizes& sizes,
                                          const Tile& tile, const Start& start, const Add& add,
                                          const Leave& leave) {
  int begin = sizes.out_height, end = 0;
  for (int row = tile.first_row; row < tile.end_row; ++row) {
    const Cover cover = tables.row_covers[row];
    if (cover.begin >= cover.end) continue;
    begin = min(begin, cover.begin);
    end = max(end, cover.end);
  }
  start(begin, end);
  int row = begin < end ? min(tile.first_row, tables.row_places[begin]) : tile.first_row;
  for (int oh = begin;; ++oh) {
    TableSample<C> sample{tile.end_row, tile.end_row, C(0), C(0)};
    if (oh < end) sample = tables.rows[oh];
    for (; row < min(sample.at, tile.end_row); ++row) leave(row);
    if (sample.at >= tile.end_row) return;
    add(oh, sample);
  }
}

// What two neighbouring rows of dx have so far of a column of dy.
template <class C>
struct TwoRows {
  C own{}, next{};
  __device__ __forceinline__ void add(const TableSample<C>& sample, C value) {
    if (sample.near != C(0)) own += sample.near * value;
    if (sample.far == C(0)) return;
    (sample.next == sample.at ? own : next) += sample.far * value;
  }
  __device__ __forceinline__ void leave() {
    own = next;
    next = C(0);
  }
};

// Neighbours of a row of dy.
template <class T>
struct Run {
  static constexpr int kVec = kVecWidth<T>;
  Vec<T, kVec> pieces[kRun / kVec];

  __device__ __forceinline__ ComputeOf<T> operator[](int i) const {
    return widen(pieces[i / kVec][i % kVec]);
  }
  // The first `count`; zeros in place of the others.
  static __device__ __forceinline__ Run load(const T* from, int count, bool vectors) {
    Run run;
    if (vectors && count >= kRun) {
#pragma unroll
      for (int p = 0; p < kRun / kVec; ++p) run.pieces[p] = load_vec<kVec>(from + p * kVec);
      return run;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      run.pieces[i / kVec][i % kVec] = i < count ? from[i] : narrow<T>(ComputeOf<T>(0));
    return run;
  }
};

// A warp's row of sums. Those of even columns lie apart from those of odd ones: at twice the size
// neighbours of dx read neighbours here.
template <class C>
struct SumLine {
  C sums[2][kSpan / 2];

  __device__ __forceinline__ void put(int lane, const TwoRows<C> (&run)[kRun]) {
    using Pair = Vec<C, 16 / sizeof(C)>;
    constexpr int kPair = sizeof(Pair) / sizeof(C);
#pragma unroll
    for (int odd = 0; odd < 2; ++odd)
#pragma unroll
      for (int i = 0; i < kRun / 2; i += kPair) {
        Pair some;
#pragma unroll
        for (int k = 0; k < kPair; ++k) some[k] = run[2 * (i + k) + odd].own;
        store_vec(&sums[odd][lane * (kRun / 2) + i], some);
      }
  }
  // Where the columns of the same parity from column `i` on begin.
  __device__ __forceinline__ const C* from(int i) const {
    return &sums[i % 2][i / 2];
  }
};

// kOutputs: of a row of dy, whose shares in a column of dx are kept; others are looked up.
template <int kOutputs, class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_tiles(const TileGrid grid, const ImageSizes sizes,
                      const SampleTables<ComputeOf<T>> tables, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  constexpr int kColumns = 16 / kOutputs;  // of dx, 32 columns apart
  constexpr int kAhead = 3;                // rows whose loads are on their way
  __shared__ alignas(16) SumLine<C> lines[kWarps];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t item = int64_t{blockIdx.x} * kWarps + warp;
  if (item >= grid.items) return;  // the whole warp
  const Tile tile(grid, sizes, item);

  Cover covers[kColumns];
  C across[kColumns][kOutputs];
  int begin = sizes.out_width, end = 0;  // of dy, what reaches the tile
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int column = tile.first_column + c * kWarp + lane;
    covers[c] = column < tile.end_column ? tables.column_covers[column] : Cover{0, 0};
#pragma unroll
    for (int k = 0; k < kOutputs; ++k)
      across[c][k] = covers[c].begin + k < covers[c].end
                         ? share_of(tables.columns[covers[c].begin + k], column)
                         : C(0);
    if (covers[c].begin >= covers[c].end) continue;
    begin = min(begin, covers[c].begin);
    end = max(end, covers[c].end);
  }
  begin = __reduce_min_sync(0xffffffffu, begin) / kRun * kRun;
  end = __reduce_max_sync(0xffffffffu, end);

  const int own_column = begin + lane * kRun,
            count = own_column < end ? sizes.out_width - own_column : 0;
  const T* const from = dy + tile.plane * sizes.out_height * sizes.out_width + own_column;
  T* const to = dx + tile.plane * sizes.height * sizes.width;
  SumLine<C>& line = lines[warp];
  TwoRows<C> rows[kRun];
  Run<T> ahead[kAhead];
  int last = 0;
  const auto load = [&](int oh) {
    return Run<T>::load(from + int64_t{oh} * sizes.out_width, oh < last ? count : 0, grid.vectors);
  };
  walk_down(
      tables, sizes, tile,
      [&](int first_output, int end_output) {
        last = end_output;
#pragma unroll
        for (int a = 0; a < kAhead; ++a) ahead[a] = load(first_output + a);
      },
      [&](int oh, const TableSample<C>& sample) {
        const Run<T> run = ahead[0];
#pragma unroll
        for (int a = 0; a + 1 < kAhead; ++a) ahead[a] = ahead[a + 1];
        ahead[kAhead - 1] = load(oh + kAhead);
#pragma unroll
        for (int i = 0; i < kRun; ++i) rows[i].add(sample, run[i]);
      },
      [&](int row) {
        if (row >= tile.first_row) {
          line.put(lane, rows);
          __syncwarp();
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const int column = tile.first_column + c * kWarp + lane,
                      start = covers[c].begin - begin;
            if (column >= tile.end_column) break;
            const C* const same = line.from(start);
            const C* const other = line.from(start + 1);
            C sum(0);
#pragma unroll
            for (int k = 0; k < kOutputs; ++k)
              if (across[c][k] != C(0)) sum += across[c][k] * (k % 2 == 0 ? same : other)[k / 2];
            for (int ow = covers[c].begin + kOutputs; ow < covers[c].end; ++ow)
              sum += share_of(tables.columns[ow], column) * *line.from(ow - begin);
            to[int64_t{row} * sizes.width + column] = narrow<T>(sum);
          }
          __syncwarp();
        }
#pragma unroll
        for (auto& r : rows) r.leave();
      });
}

// A warp a column of dx that more columns of dy reach than a tile has: its lanes take turns.
template <class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_wide(const TileGrid grid, const ImageSizes sizes,
                     const SampleTables<ComputeOf<T>> tables, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t item = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  if (item >= grid.items) return;  // the whole warp
  const Tile tile(grid, sizes, item);
  const int column = tile.first_column;
  const Cover cover = tables.column_covers[column];
  const T* const image = dy + tile.plane * sizes.out_height * sizes.out_width;
  T* const to = dx + tile.plane * sizes.height * sizes.width + column;
  TwoRows<C> rows;
  walk_down(
      tables, sizes, tile, [](int, int) {},
      [&](int oh, const TableSample<C>& sample) {
        const T* const from = image + int64_t{oh} * sizes.out_width;
        C sum(0);
        for (int ow = cover.begin + lane; ow < cover.end; ow += kWarp)
          sum += share_of(tables.columns[ow], column) * widen(from[ow]);
        rows.add(sample, sum);
      },
      [&](int row) {
        const C sum = warp_reduce(rows.own, Sum());
        if (row >= tile.first_row && lane == 0) to[int64_t{row} * sizes.width] = narrow<T>(sum);
        rows.leave();
      });
}

// How many columns of dx a tile may have, of at most `most`, so that all that reaches them are no
// more columns of dy than a warp has, from a whole run on; 0: not even one.
int columns_of_tile(const ImageSizes& sizes, int most) {
  if (sizes.out_width <= kSpan) return most;
  // Outputs that read K neighbours are nearer than 1 to one of them: at most (K + 1) · ratio + 1.
  double ratio = double{1} * sizes.out_width / sizes.width;
  if (sizes.width > 1)
    ratio = std::max(ratio, (double{1} * sizes.out_width - 1) / (sizes.width - 1));
  const int fit = static_cast<int>((kSpan - kRun - 1) / ratio) - 1;
  return std::clamp(fit, 0, most);
}

}  // namespace

void interpolate_backward(const Array& dy, const InterpolateParams& params, const Array& dx) {
  if (dx.numel() == 0) return;
  visit_floating(dx.dtype(), "interpolate_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes(dx, dy);
    const SamplesOnDevice<ComputeOf<T>> tables(sizes, params, true);
    const bool vectors = dy.size(3) % kRun == 0 && rows_aligned(dy.data(), 0, 1);
    // An input is read by about so many outputs of a row.
    const int64_t readers = (params.linear ? 2 : 1) * ceil_div(sizes.out_width, sizes.width);
    const int columns = columns_of_tile(sizes, (readers <= 4 ? 4 : 1) * kWarp);
    const TileGrid grid(dx, std::max(columns, 1), vectors);
    launch("interpolate_backward",
           columns == 0   ? interpolate_wide<T>
           : readers <= 4 ? interpolate_tiles<4, T>
                          : interpolate_tiles<16, T>,
           one_block_each(ceil_div(grid.items, kWarps)), kBlock, 0, grid, sizes, *tables,
           device_data<const T>(dy), device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
