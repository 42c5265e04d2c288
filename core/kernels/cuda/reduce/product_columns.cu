// The gradient of running products down columns that are neighbours (product_maps.cuh). A block has
// a tile of 64 rows and the columns of 32 vectors; a thread holds 8 rows of a vector. First each
// tile says what it makes of what is behind it; then these are joined; then each tile is read again
// and written. Columns of a single tile need the last step alone.
#include <binade/core/kernels/cuda/reduce/product_columns.h>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/reduce/product_maps.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kWarps = kBlock / kWarp;
constexpr int kRows = 8;  // of a thread
constexpr int kTileRows = kRows * kWarps;

// What the launches tell each other of each tile and column, as (tiles, width).
template <class C>
struct TileStates {
  int64_t tiles, width;
  Affine<C>* maps;
  C *before, *behind;  // what lies around the tile
};

template <class T>
struct ProductColumns {
  const T *x, *dy;
  T* dx;
  int64_t x_stride, dy_stride, dx_stride, length;  // along the dimension
};

enum class Step : uint8_t { maps, gradient };

// items: vectors of neighbouring columns of dx, x and dy, cut to their first row. Column k of lane
// l's vector is number k · 32 + l of the block's.
template <int kVec, class T>
__global__ void __launch_bounds__(kBlock, 2)
    product_columns_kernel(const __grid_constant__ Layout items, const ProductColumns<T> columns,
                           const TileStates<ComputeOf<T>> states, Step step) {
  using C = ComputeOf<T>;
  constexpr int kColumns = kVec * kWarp;
  static_assert(kColumns <= kBlock);
  __shared__ Affine<C> maps[kWarps][kColumns];
  __shared__ Around<C> around[kWarps][kColumns];
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;
  // What was read last is written first, as much of it as the cache still has.
  const auto across = static_cast<unsigned>(states.width / kColumns);  // blocks of a row of tiles
  const int64_t turn = blockIdx.x / across, block = blockIdx.x % across;
  const int64_t tile = step == Step::maps ? turn : states.tiles - 1 - turn;
  const int64_t item = block * kWarp + lane;
  const int64_t first = tile * kTileRows + warp * kRows;
  const int64_t rows = item < items.items ? columns.length - first : 0;  // that there are
  int64_t offset[3];
  locate(items, min(item, items.items - 1), offset);
  const int count = item < items.items ? elements_of<kVec>(items, item) : 0;
  const T* const x = columns.x + offset[1] + first * columns.x_stride;
  const T* const dy = columns.dy + offset[2] + first * columns.dy_stride;

  Vec<T, kVec> factors[kRows], given[kRows];
  if (rows >= kRows && count == kVec && !items.splat[1] && !items.splat[2]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {  // no branch between the loads
      factors[r] = load_vec<kVec>(x + r * columns.x_stride);
      given[r] = load_vec<kVec>(dy + r * columns.dy_stride);
    }
  } else {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) {
        factors[r] = load_item<kVec>(items, 1, x, r * columns.x_stride, count);
        given[r] = load_item<kVec>(items, 2, dy, r * columns.dy_stride, count);
        continue;
      }
#pragma unroll
      for (int k = 0; k < kVec; ++k) {  // what changes nothing
        factors[r][k] = narrow<T>(C(1));
        given[r][k] = narrow<T>(C(0));
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    auto map = Affine<C>::identity();
#pragma unroll
    for (int r = kRows - 1; r >= 0; --r) map = map.behind(widen(factors[r][k]), widen(given[r][k]));
    maps[warp][k * kWarp + lane] = map;
  }
  __syncthreads();

  if (thread < kColumns) {  // a column of the tile each
    const int64_t place = tile * states.width + block * kColumns + thread;
    if (step == Step::maps) {
      auto all = Affine<C>::identity();
#pragma unroll
      for (int w = kWarps - 1; w >= 0; --w) all = JoinMaps()(maps[w][thread], all);
      states.maps[place] = all;
    } else {
      C before = states.tiles == 1 ? C(1) : states.before[place];
      C behind = states.tiles == 1 ? C(0) : states.behind[place];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        around[w][thread].before = before;
        before *= maps[w][thread].slope;
      }
#pragma unroll
      for (int w = kWarps - 1; w >= 0; --w) {
        around[w][thread].behind = behind;
        behind = maps[w][thread](behind);
      }
    }
  }
  if (step == Step::maps) return;
  __syncthreads();

#pragma unroll
  for (int k = 0; k < kVec; ++k) {
    auto [before, u] = around[warp][k * kWarp + lane];
    C sums[kRows];
#pragma unroll
    for (int r = kRows - 1; r >= 0; --r) {
      sums[r] = widen(given[r][k]) + u;
      u = widen(factors[r][k]) * sums[r];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      given[r][k] = narrow<T>(before * sums[r]);
      before *= widen(factors[r][k]);
    }
  }
  T* const dx = columns.dx + offset[0] + first * columns.dx_stride;
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (r < rows) store_item(dx, r * columns.dx_stride, count, given[r]);
}

// before and behind of maps. A block has 32 columns, each of its warps an equal share of their
// tiles.
template <class C>
__global__ void __launch_bounds__(kBlock)
    join_tiles_kernel(int64_t tiles, int64_t width, const Affine<C>* __restrict__ maps,
                      C* __restrict__ before, C* __restrict__ behind) {
  __shared__ Affine<C> totals[kWarps][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t column = int64_t{blockIdx.x} * kWarp + lane, share = ceil_div(tiles, kWarps);
  const int64_t begin = min(tiles, warp * share), end = min(tiles, begin + share);
  auto total = Affine<C>::identity();
#pragma unroll 4
  for (int64_t t = begin; t < end; ++t) total = JoinMaps()(total, maps[t * width + column]);
  totals[warp][lane] = total;
  __syncthreads();
  C front(1), back(0);
  for (int w = 0; w < warp; ++w) front *= totals[w][lane].slope;
  for (int w = kWarps - 1; w > warp; --w) back = totals[w][lane](back);
#pragma unroll 4
  for (int64_t t = begin; t < end; ++t) {
    before[t * width + column] = front;
    front *= maps[t * width + column].slope;
  }
#pragma unroll 4
  for (int64_t t = end - 1; t >= begin; --t) {
    behind[t * width + column] = back;
    back = maps[t * width + column](back);
  }
}

template <int kVec, class T>
void columns_backward(const Layout& items, const ProductColumns<T>& columns) {
  using C = ComputeOf<T>;
  const int64_t blocks = ceil_div(items.items, kWarp), width = blocks * kWarp * kVec;
  const int64_t tiles = ceil_div(columns.length, kTileRows),
                states = tiles == 1 ? 1 : tiles * width;
  const Workspace<Affine<C>> maps(states);
  const Workspace<C> before(states), behind(states);
  const TileStates<C> known{tiles, width, maps.data(), before.data(), behind.data()};
  const auto run = [&](Step step) {
    launch("cumprod_backward", product_columns_kernel<kVec, T>, one_block_each(blocks * tiles),
           kBlock, 0, items, columns, known, step);
  };
  if (tiles > 1) {
    run(Step::maps);
    launch("cumprod_backward", join_tiles_kernel<C>, one_block_each(width / kWarp), kBlock, 0,
           tiles, width, maps.data(), before.data(), behind.data());
  }
  run(Step::gradient);
}

}  // namespace

void cumprod_columns_backward(const Array& x, const Array& dy, int dim, const Array& dx) {
  visit_floating(x.dtype(), "cumprod_backward", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    constexpr int kVec = kVecWidth<T>;
    const Array first_dx = dx.slice(dim, 0, 1), first_x = x.slice(dim, 0, 1),
                first_dy = dy.slice(dim, 0, 1);
    const ProductColumns<T> columns{
        device_data<const T>(x), device_data<const T>(dy), device_data<T>(dx), x.stride(dim),
        dy.stride(dim),          dx.stride(dim),           x.size(dim)};
    const Layout vectors = make_layout({&first_dx, &first_x, &first_dy}, kVec);
    const bool fits = vectors.vec == kVec && dx.stride(dim) % kVec == 0 &&
                      (vectors.splat[1] || x.stride(dim) % kVec == 0) &&
                      (vectors.splat[2] || dy.stride(dim) % kVec == 0);
    if (fits) return columns_backward<kVec, T>(vectors, columns);
    columns_backward<1, T>(make_layout({&first_dx, &first_x, &first_dy}, 1), columns);
  });
}

}  // namespace binade::kernels::cuda
