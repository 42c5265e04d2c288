// Pooling. Forward a thread has a column of a few outputs, whose windows it walks side by side;
// backward a few columns and rows of inputs, and gathers from the windows that cover them in a
// fixed order (no atomics). Neighbouring threads read neighbours.
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cuda/conv/axis_tables.cuh>

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

// Calls take(r, place, value) for the elements of the windows of outputs (first_row + r, column),
// for each r < kRows in the order of memory. Rows of several windows are read at once.
template <int kRows, class T, class Take>
__device__ __forceinline__ void walk_windows(const ImageSizes& sizes, const Window (&rows)[kRows],
                                             const Window& columns, const T* image,
                                             const Take& take) {
  constexpr int kColumns = 4;  // at once
  int longest = 0;
#pragma unroll
  for (const Window& row : rows)
    longest = max(longest, (row.end - row.begin + row.step - 1) / row.step);
  for (int k = 0; k < longest; ++k) {
    for (int64_t w = columns.begin; w < columns.end; w += int64_t{kColumns} * columns.step) {
      T read[kRows][kColumns];
      const auto inside = [&](int r, int c) {
        return rows[r].begin + k * rows[r].step < rows[r].end &&
               w + int64_t{c} * columns.step < columns.end;
      };
      const auto place = [&](int r, int c) {
        const int64_t line = rows[r].begin + k * rows[r].step;
        return line * sizes.width + w + int64_t{c} * columns.step;
      };
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          if (inside(r, c)) read[r][c] = image[place(r, c)];
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
          if (inside(r, c)) take(r, place(r, c), widen(read[r][c]));
    }
  }
}

// The windows of kRows rows of outputs from `first` on; those beyond the last hold nothing.
template <int kRows>
__device__ __forceinline__ void load_windows(const ImageSizes& sizes, const PoolTables& tables,
                                             int first, Window (&rows)[kRows]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows[r] = first + r < sizes.out_height ? tables.rows[first + r] : Window{0, 0, 1, 1};
}

template <int kRows, class T>
__global__ void __launch_bounds__(kBlock)
    max_forward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* x,
                T* y, int32_t* indices) {
  using C = ComputeOf<T>;
  grid.for_each<1>([&](int64_t plane, int group, int column) {
    const Window columns = tables.columns[column];
    Window rows[kRows];
    load_windows(sizes, tables, group * kRows, rows);
    C largest[kRows];
    int best[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      largest[r] = -static_cast<C>(INFINITY);
      best[r] = rows[r].begin >= rows[r].end || columns.begin >= columns.end
                    ? -1
                    : rows[r].begin * sizes.width + columns.begin;  // pool_first
    }
    walk_windows(sizes, rows, columns, x + plane * sizes.height * sizes.width,
                 [&](int r, int64_t place, C value) {
                   if (!(value > largest[r]) && value == value) return;  // NaN wins
                   largest[r] = value;
                   best[r] = static_cast<int>(place);
                 });
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = group * kRows + r;
      if (row >= sizes.out_height) break;
      const int64_t output = (plane * sizes.out_height + row) * sizes.out_width + column;
      y[output] = narrow<T>(largest[r]);
      indices[output] = best[r];
    }
  });
}

template <int kRows, class T>
__global__ void __launch_bounds__(kBlock) mean_forward(const RunGrid grid, const ImageSizes sizes,
                                                       const PoolTables tables, const T* x, T* y) {
  using C = ComputeOf<T>;
  grid.for_each<1>([&](int64_t plane, int group, int column) {
    const Window columns = tables.columns[column];
    Window rows[kRows];
    load_windows(sizes, tables, group * kRows, rows);
    C sum[kRows];
#pragma unroll
    for (C& s : sum) s = 0;
    walk_windows(sizes, rows, columns, x + plane * sizes.height * sizes.width,
                 [&](int r, int64_t, C value) { sum[r] += value; });
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = group * kRows + r;
      if (row >= sizes.out_height) break;
      y[(plane * sizes.out_height + row) * sizes.out_width + column] =
          narrow<T>(sum[r] / static_cast<C>(int64_t{rows[r].count} * columns.count));
    }
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

// Outputs of a column that a thread takes: several where windows are small.
constexpr int kWindowRows = 4;
bool walks_several(const Array& x, const Array& y) {
  return x.numel() <= 16 * y.numel();
}

}  // namespace

void max_pool2d(const Array& x, const PoolParams& params, const Array& y, const Array& indices) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  const bool several = walks_several(x, y);
  const RunGrid grid = grid_of(y, several ? kWindowRows : 1, 1);
  visit_floating(x.dtype(), "max_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("max_pool2d", several ? max_forward<kWindowRows, T> : max_forward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(x),
           device_data<T>(y), device_data<int32_t>(indices));
  });
}

void max_pool2d_backward(const Array& dy, const Array& indices, const PoolParams& params,
                         const Array& dx) {
  if (dx.numel() == 0) return;
  const ImageSizes sizes(dx, dy);
  const Tables tables(sizes, params, true);
  visit_floating(dx.dtype(), "max_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const bool pairs = rows_of_pairs(dx);
    const RunGrid grid = grid_of(dx, kGradientRows, pairs ? 2 : 1);
    launch("max_pool2d_backward", pairs ? max_backward<2, T> : max_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<const int32_t>(indices), device_data<T>(dx));
  });
}

void avg_pool2d(const Array& x, const PoolParams& params, const Array& y) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  const bool several = walks_several(x, y);
  const RunGrid grid = grid_of(y, several ? kWindowRows : 1, 1);
  visit_floating(x.dtype(), "avg_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("avg_pool2d", several ? mean_forward<kWindowRows, T> : mean_forward<1, T>,
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
    const bool pairs = rows_of_pairs(dx);
    const RunGrid grid = grid_of(dx, kGradientRows, pairs ? 2 : 1);
    launch("avg_pool2d_backward", pairs ? mean_backward<2, T> : mean_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
