// Pooling. Forward a thread has an output; backward a few columns and rows of inputs, and gathers
// from the windows that cover them in a fixed order (no atomics). Windows of two columns side by
// side have kernels of vectors (pool_pairs.cuh).
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cuda/conv/axis_tables.cuh>
#include <binade/core/kernels/cuda/conv/pool_pairs.cuh>

namespace binade::kernels::cuda {

namespace {

__device__ Window window_at(const PoolParams& params, const PoolAxis& axis, int64_t o) {
  const PoolWindow window = pool_window(axis, o);
  const int64_t count = params.count_padding ? window.padded : window.end - window.begin;
  // A dilation beyond the image leads out of it, however far.
  const auto within = [](int64_t n) {
    return static_cast<int32_t>(n < ImageSizes::kMost ? n : ImageSizes::kMost);
  };
  return {within(window.begin), within(window.end), within(window.step), within(count)};
}
__device__ Cover cover_at(const PoolAxis& axis, int64_t i) {
  const PoolCover cover = pool_cover(axis, i);
  return {static_cast<int32_t>(cover.begin), static_cast<int32_t>(cover.end)};
}

// Entries of rows, then of columns.
__global__ void __launch_bounds__(kBlock)
    pool_tables_kernel(const ImageSizes sizes, const PoolParams params, Window* windows,
                       Cover* covers) {
  const PoolAxis rows = pool_rows(params, sizes.height, sizes.out_height);
  const PoolAxis columns = pool_columns(params, sizes.width, sizes.out_width);
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i < sizes.out_height)
    windows[i] = window_at(params, rows, i);
  else if (i < sizes.outputs())
    windows[i] = window_at(params, columns, i - sizes.out_height);
  if (covers == nullptr) return;
  if (i < sizes.height)
    covers[i] = cover_at(rows, i);
  else if (i < int64_t{sizes.height} + sizes.width)
    covers[i] = cover_at(columns, i - sizes.height);
}

// The tables in device memory, for the kernels queued while this lives.
class Tables {
 public:
  Tables(const ImageSizes& sizes, const PoolParams& params, bool with_covers)
      : windows_(sizes.outputs()), covers_(with_covers ? sizes.entries() - sizes.outputs() : 1) {
    Cover* covers = with_covers ? covers_.data() : nullptr;
    launch("pool_tables", pool_tables_kernel,
           one_block_each(
               ceil_div(std::max(sizes.outputs(), sizes.entries() - sizes.outputs()), kBlock)),
           kBlock, 0, sizes, params, windows_.data(), covers);
    tables_ = {windows_.data(), windows_.data() + sizes.out_height, covers,
               with_covers ? covers + sizes.height : nullptr};
  }
  const PoolTables& operator*() const { return tables_; }

 private:
  Workspace<Window> windows_;
  Workspace<Cover> covers_;
  PoolTables tables_;
};

template <class T>
__global__ void __launch_bounds__(kBlock)
    max_forward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* x,
                T* y, int32_t* indices) {
  using C = ComputeOf<T>;
  grid.for_each<1>([&](int64_t plane, int row, int column) {
    const Window rows = tables.rows[row], columns = tables.columns[column];
    const T* image = x + plane * sizes.height * sizes.width;
    int best = rows.begin >= rows.end || columns.begin >= columns.end
                   ? -1
                   : rows.begin * sizes.width + columns.begin;  // pool_first
    C largest = -static_cast<C>(INFINITY);
    for (int h = rows.begin; h < rows.end; h += rows.step)
      for (int w = columns.begin; w < columns.end; w += columns.step) {
        const C value = widen(image[h * sizes.width + w]);
        if (!(value > largest) && value == value) continue;  // NaN wins
        largest = value;
        best = h * sizes.width + w;
      }
    const int64_t output = (plane * sizes.out_height + row) * sizes.out_width + column;
    y[output] = narrow<T>(largest);
    indices[output] = best;
  });
}

template <class T>
__global__ void __launch_bounds__(kBlock) mean_forward(const RunGrid grid, const ImageSizes sizes,
                                                       const PoolTables tables, const T* x, T* y) {
  using C = ComputeOf<T>;
  grid.for_each<1>([&](int64_t plane, int row, int column) {
    const Window rows = tables.rows[row], columns = tables.columns[column];
    const T* image = x + plane * sizes.height * sizes.width;
    C sum = 0;
    for (int h = rows.begin; h < rows.end; ++h)
      for (int w = columns.begin; w < columns.end; ++w)
        sum += widen(image[int64_t{h} * sizes.width + w]);
    y[(plane * sizes.out_height + row) * sizes.out_width + column] =
        narrow<T>(sum / static_cast<C>(int64_t{rows.count} * columns.count));
  });
}

// Calls sum(row, cover of the row, `repeated`) for kGradientRows rows of dx and stores the kRun
// sums that it gives. repeated: the row before had the same cover.
constexpr int kGradientRows = 8;
template <int kRun, class T, class Sum>
__device__ __forceinline__ void store_rows(const ImageSizes& sizes, const PoolTables& tables,
                                           int64_t plane, int group, int column, T* dx,
                                           const Sum& sum) {
  Cover last{-1, -1};
  for (int r = 0; r < kGradientRows; ++r) {
    const int row = group * kGradientRows + r;
    if (row >= sizes.height) return;
    const Cover cover = tables.row_covers[row];
    Vec<T, kRun> result;
    sum(row, cover, cover.begin == last.begin && cover.end == last.end, result);
    last = cover;
    store_vec(dx + (plane * sizes.height + row) * sizes.width + column, result);
  }
}

template <int kRun>
__device__ __forceinline__ void load_covers(const PoolTables& tables, int column,
                                            Cover (&covers)[kRun]) {
#pragma unroll
  for (int i = 0; i < kRun; ++i) covers[i] = tables.column_covers[column + i];
}

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    max_backward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* dy,
                 const int32_t* indices, T* dx) {
  using C = ComputeOf<T>;
  grid.for_each<kRun>([&](int64_t plane, int group, int column) {
    Cover columns[kRun];
    load_covers(tables, column, columns);
    const int64_t outputs = plane * sizes.out_height * sizes.out_width;
    store_rows<kRun>(sizes, tables, plane, group, column, dx,
                     [&](int row, const Cover& rows, bool, Vec<T, kRun>& result) {
                       C sum[kRun];
#pragma unroll
                       for (C& s : sum) s = 0;
                       for (int oh = rows.begin; oh < rows.end; ++oh) {
                         const int64_t line = outputs + int64_t{oh} * sizes.out_width;
#pragma unroll
                         for (int i = 0; i < kRun; ++i)
                           for (int ow = columns[i].begin; ow < columns[i].end; ++ow) {
                             const C given = widen(dy[line + ow]);
                             if (indices[line + ow] == row * sizes.width + column + i)
                               sum[i] += given;
                           }
                       }
#pragma unroll
                       for (int i = 0; i < kRun; ++i) result[i] = narrow<T>(sum[i]);
                     });
  });
}

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    mean_backward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* dy,
                  T* dx) {
  using C = ComputeOf<T>;
  grid.for_each<kRun>([&](int64_t plane, int group, int column) {
    Cover columns[kRun];
    load_covers(tables, column, columns);
    const T* image = dy + plane * sizes.out_height * sizes.out_width;
    Vec<T, kRun> kept;
    store_rows<kRun>(sizes, tables, plane, group, column, dx,
                     [&](int, const Cover& rows, bool repeated, Vec<T, kRun>& result) {
                       if (!repeated) {
                         C sum[kRun];
#pragma unroll
                         for (C& s : sum) s = 0;
                         for (int oh = rows.begin; oh < rows.end; ++oh) {
                           const int64_t count = tables.rows[oh].count;
#pragma unroll
                           for (int i = 0; i < kRun; ++i)
                             for (int ow = columns[i].begin; ow < columns[i].end; ++ow)
                               sum[i] += widen(image[int64_t{oh} * sizes.out_width + ow]) /
                                         static_cast<C>(count * tables.columns[ow].count);
                         }
#pragma unroll
                         for (int i = 0; i < kRun; ++i) kept[i] = narrow<T>(sum[i]);
                       }
                       result = kept;
                     });
  });
}

}  // namespace

void max_pool2d(const Array& x, const PoolParams& params, const Array& y, const Array& indices) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  visit_floating(x.dtype(), "max_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>;
    const bool pairs = pools_pairs<kVec>(params, x, {&y, &indices});
    const RunGrid grid = grid_of(y, 1, pairs ? kVec : 1);
    launch("max_pool2d", pairs ? max_pairs_forward<kVec, T> : max_forward<T>, grid_for(grid.items),
           kBlock, 0, grid, sizes, *tables, device_data<const T>(x), device_data<T>(y),
           device_data<int32_t>(indices));
  });
}

void max_pool2d_backward(const Array& dy, const Array& indices, const PoolParams& params,
                         const Array& dx) {
  if (dx.numel() == 0) return;
  const ImageSizes sizes(dx, dy);
  const Tables tables(sizes, params, true);
  visit_floating(dx.dtype(), "max_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>;
    if (pools_pairs<kVec>(params, dx, {&dy, &indices}))
      return run_pairs_backward<kVec>(
          "max_pool2d_backward", sizes, *tables,
          MaxPairs<kVec, T>{device_data<const T>(dy), device_data<const int32_t>(indices)}, dx);
    const bool two = rows_of_runs(dx, 2);
    const RunGrid grid = grid_of(dx, kGradientRows, two ? 2 : 1);
    launch("max_pool2d_backward", two ? max_backward<2, T> : max_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<const int32_t>(indices), device_data<T>(dx));
  });
}

void avg_pool2d(const Array& x, const PoolParams& params, const Array& y) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  visit_floating(x.dtype(), "avg_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>;
    const bool pairs = pools_pairs<kVec>(params, x, {&y});
    const RunGrid grid = grid_of(y, 1, pairs ? kVec : 1);
    launch("avg_pool2d", pairs ? mean_pairs_forward<kVec, T> : mean_forward<T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(x),
           device_data<T>(y));
  });
}

void avg_pool2d_backward(const Array& dy, const PoolParams& params, const Array& dx) {
  if (dx.numel() == 0) return;
  const ImageSizes sizes(dx, dy);
  const Tables tables(sizes, params, true);
  visit_floating(dx.dtype(), "avg_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>;
    if (pools_pairs<kVec>(params, dx, {&dy}))
      return run_pairs_backward<kVec>("avg_pool2d_backward", sizes, *tables,
                                      MeanPairs<kVec, T>{device_data<const T>(dy)}, dx);
    const bool two = rows_of_runs(dx, 2);
    const RunGrid grid = grid_of(dx, kGradientRows, two ? 2 : 1);
    launch("avg_pool2d_backward", two ? mean_backward<2, T> : mean_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
