// Running folds down columns that are neighbours, in one pass over x (decoupled look-back: Merrill
// & Garland 2016). A block keeps a tile of some rows and the columns of 32 vectors in registers,
// tells the others what its columns make, and asks the tiles above what comes before. These are
// joined one after another from the top, wherever a block begins to: what a tile starts with is the
// same bits whoever was first.
#pragma once

#include <binade/core/kernels/cuda/common/vec_dtype.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/reduce/walk.cuh>

namespace binade::kernels::cuda {

// What the blocks tell each other; tile t of n columns of tiles is stretch t / n of column t % n.
template <class State>
struct LookBack {
  static constexpr uint32_t kOwn = 1, kThrough = 2;  // progress: what of a tile is known
  uint32_t* ticket;                                  // the tile of the next block that starts
  uint32_t* progress;                                // of each tile
  State *own, *through;  // each tile's columns: what it makes, and what all do down to its end

  // All threads of the block, behind what they wrote of the tile.
  __device__ void tell(int64_t tile, uint32_t what) const {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *static_cast<volatile uint32_t*>(progress + tile) = what;
  }
  // The lowest stretch above `stretch` of the tiles' column that is known through; those between
  // are known, too. All lanes of a warp; waits for tiles of blocks that started before.
  __device__ int64_t find_known(int64_t columns, int64_t column, int64_t stretch) const {
    int64_t lowest = stretch - 1;  // lane l looks at the lth above it
    for (;;) {
      const int64_t above = lowest - threadIdx.x % kWarp;
      const uint32_t what =
          above < 0 ? kThrough
                    : *static_cast<const volatile uint32_t*>(progress + above * columns + column);
      const unsigned through = __ballot_sync(0xffffffffu, what == kThrough);
      const unsigned unknown = __ballot_sync(0xffffffffu, what == 0);
      const unsigned nearer = through == 0 ? 0xffffffffu : (through & (0u - through)) - 1;
      if ((unknown & nearer) != 0) continue;
      if (through == 0) {
        lowest -= kWarp;
        continue;
      }
      __threadfence();
      return lowest - (__ffs(static_cast<int>(through)) - 1);
    }
  }
};

// Rows of a thread and of a tile.
inline constexpr int kScanRows = 16;
inline constexpr int kTileRows = kScanRows * (kBlock / kWarp);

// items: whole vectors of neighbouring columns of out and x, cut to their first row.
template <class Scan, class T>
__global__ void __launch_bounds__(kBlock, 2)
    scan_tiles_kernel(const __grid_constant__ Layout items, Walk walk, const Scan scan,
                      LookBack<typename Scan::State> others, const T* x, int64_t x_stride, T* out,
                      int64_t out_stride) {
  using State = typename Scan::State;
  constexpr int kVec = kVecWidth<T>, kWarps = kBlock / kWarp, kColumns = kVec * kWarp;
  __shared__ State sums[kWarps][kColumns];  // column k of lane l at k·32 + l
  __shared__ State before[kColumns];
  __shared__ int64_t turn;
  __shared__ int64_t known;  // the stretch above that find_known() found
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  if (thread == 0) turn = atomicAdd(others.ticket, 1u);
  __syncthreads();
  const int64_t tile = turn, columns = ceil_div(items.items, kWarp);
  const int64_t stretch = tile / columns, column = tile - stretch * columns;

  const int64_t item = column * kWarp + lane;
  int64_t offset[2];
  locate(items, min(item, items.items - 1), offset);
  const int64_t first = stretch * kTileRows + warp * kScanRows;
  const int64_t rows = item < items.items ? walk.length - first : 0;  // that there are
  Vec<T, kVec> nothing, read[kScanRows];
#pragma unroll
  for (int k = 0; k < kVec; ++k) nothing[k] = narrow<T>(scan.identity());
#pragma unroll
  for (int r = 0; r < kScanRows; ++r)
    read[r] =
        r < rows ? load_vec<kVec>(x + offset[1] + walk.position(first + r) * x_stride) : nothing;
#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    State sum = widen(read[0][k]);
#pragma unroll
    for (int r = 1; r < kScanRows; ++r) sum = scan.join(sum, widen(read[r][k]));
    sums[warp][k * kWarp + lane] = sum;
  }
  __syncthreads();

  // A thread a column of the tile: what lies before each warp, and before the tile.
  const int64_t place = tile * kColumns + thread;
  const bool has_column = kColumns >= kBlock || thread < kColumns;
  static_assert(kColumns <= kBlock);
  State total = scan.identity();
  if (has_column) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const State sum = sums[w][thread];
      sums[w][thread] = total;
      total = scan.join(total, sum);
    }
    before[thread] = scan.identity();
  }
  if (stretch > 0) {
    if (has_column) others.own[place] = total;
    others.tell(tile, LookBack<State>::kOwn);
    if (warp == 0) {
      const int64_t found = others.find_known(columns, column, stretch);
      if (lane == 0) known = found;
    }
    __syncthreads();
    if (has_column) {
      const int64_t step = columns * kColumns;
      int64_t at = (known * columns + column) * kColumns + thread;
      State start = __ldcg(others.through + at);
#pragma unroll 4
      for (at += step; at < place; at += step) start = scan.join(start, __ldcg(others.own + at));
      before[thread] = start;
      total = scan.join(start, total);
    }
  }
  if (has_column) others.through[place] = total;
  others.tell(tile, LookBack<State>::kThrough);

  State state[kVec];
#pragma unroll
  for (int k = 0; k < kVec; ++k)
    state[k] = scan.join(before[k * kWarp + lane], sums[warp][k * kWarp + lane]);
#pragma unroll
  for (int r = 0; r < kScanRows; ++r) {
    if (r >= rows) break;
    Vec<T, kVec> result;
#pragma unroll
    for (int k = 0; k < kVec; ++k) {
      state[k] = scan.join(state[k], widen(read[r][k]));
      result[k] = narrow<T>(state[k]);
    }
    store_vec(out + offset[0] + walk.position(first + r) * out_stride, result);
  }
}

template <class T, class Scan>
void scan_tiles(const char* name, const Layout& items, const Walk& walk, const Scan& scan,
                const Array& x, int64_t x_stride, const Array& out, int64_t out_stride) {
  using State = typename Scan::State;
  const int64_t tiles = ceil_div(items.items, kWarp) * ceil_div(walk.length, kTileRows);
  const Array words = Array::zeros({1 + tiles}, DType::i32, x.device());
  const Workspace<State> states(2 * tiles * kWarp * kVecWidth<T>);
  auto* const ticket = device_data<uint32_t>(words);
  const LookBack<State> others{ticket, ticket + 1, states.data(),
                               states.data() + tiles * kWarp * kVecWidth<T>};
  launch(name, scan_tiles_kernel<Scan, T>, one_block_each(tiles), kBlock, 0, items, walk, scan,
         others, device_data<const T>(x), x_stride, device_data<T>(out), out_stride);
}

}  // namespace binade::kernels::cuda
