// Pooling: a thread for each output forward, and backward one for each 16-byte vector of inputs,
// which gathers from the windows that cover them in a fixed order (no atomics).
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
    for (int h = rows.begin; h < rows.end; h += rows.step) {
      for (int w = columns.begin; w < columns.end; w += columns.step) {
        const C value = widen(image[h * sizes.width + w]);
        if (value > largest || value != value) {  // NaN wins
          largest = value;
          best = h * sizes.width + w;
        }
      }
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
    const int64_t output = (plane * sizes.out_height + row) * sizes.out_width + column;
    y[output] = narrow<T>(sum / static_cast<C>(int64_t{rows.count} * columns.count));
  });
}

// kRun neighbours of dx: each the sum of gradient(output, its row, its column, place in the plane)
// over the outputs that cover it.
template <int kRun, class T, class Gradient>
__device__ __forceinline__ void gather_run(const ImageSizes& sizes, const PoolTables& tables,
                                           int64_t plane, int row, int column, T* dx,
                                           const Gradient& gradient) {
  const Cover rows = tables.row_covers[row];
  ComputeOf<T> sum[kRun];
#pragma unroll
  for (auto& s : sum) s = 0;
  for (int oh = rows.begin; oh < rows.end; ++oh) {
    const int64_t line = (plane * sizes.out_height + oh) * sizes.out_width;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const Cover columns = tables.column_covers[column + i];
      for (int ow = columns.begin; ow < columns.end; ++ow)
        sum[i] += gradient(line + ow, oh, ow, row * sizes.width + column + i);
    }
  }
  Vec<T, kRun> result;
#pragma unroll
  for (int i = 0; i < kRun; ++i) result[i] = narrow<T>(sum[i]);
  store_vec(dx + (plane * sizes.height + row) * sizes.width + column, result);
}

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    max_backward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* dy,
                 const int32_t* indices, T* dx) {
  grid.for_each<kRun>([&](int64_t plane, int row, int column) {
    gather_run<kRun>(sizes, tables, plane, row, column, dx,
                     [&](int64_t output, int, int, int place) {
                       return indices[output] == place ? widen(dy[output]) : ComputeOf<T>(0);
                     });
  });
}

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    mean_backward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables, const T* dy,
                  T* dx) {
  using C = ComputeOf<T>;
  grid.for_each<kRun>([&](int64_t plane, int row, int column) {
    gather_run<kRun>(
        sizes, tables, plane, row, column, dx, [&](int64_t output, int oh, int ow, int) {
          const int64_t count = int64_t{tables.rows[oh].count} * tables.columns[ow].count;
          return widen(dy[output]) / static_cast<C>(count);
        });
  });
}

}  // namespace

void max_pool2d(const Array& x, const PoolParams& params, const Array& y, const Array& indices) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  const RunGrid grid(y.numel(), sizes.out_height, sizes.out_width, 1);
  visit_floating(x.dtype(), "max_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("max_pool2d", max_forward<T>, grid_for(grid.items), kBlock, 0, grid, sizes, *tables,
           device_data<const T>(x), device_data<T>(y), device_data<int32_t>(indices));
  });
}

void max_pool2d_backward(const Array& dy, const Array& indices, const PoolParams& params,
                         const Array& dx) {
  if (dx.numel() == 0) return;
  const ImageSizes sizes(dx, dy);
  const Tables tables(sizes, params, true);
  visit_floating(dx.dtype(), "max_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const int run = run_of<T>(dx);
    const RunGrid grid(dx.numel(), sizes.height, sizes.width, run);
    launch("max_pool2d_backward", run > 1 ? max_backward<kVecWidth<T>, T> : max_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<const int32_t>(indices), device_data<T>(dx));
  });
}

void avg_pool2d(const Array& x, const PoolParams& params, const Array& y) {
  if (y.numel() == 0) return;
  const ImageSizes sizes(x, y);
  const Tables tables(sizes, params, false);
  const RunGrid grid(y.numel(), sizes.out_height, sizes.out_width, 1);
  visit_floating(x.dtype(), "avg_pool2d", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    launch("avg_pool2d", mean_forward<T>, grid_for(grid.items), kBlock, 0, grid, sizes, *tables,
           device_data<const T>(x), device_data<T>(y));
  });
}

void avg_pool2d_backward(const Array& dy, const PoolParams& params, const Array& dx) {
  if (dx.numel() == 0) return;
  const ImageSizes sizes(dx, dy);
  const Tables tables(sizes, params, true);
  visit_floating(dx.dtype(), "avg_pool2d_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const int run = run_of<T>(dx);
    const RunGrid grid(dx.numel(), sizes.height, sizes.width, run);
    launch("avg_pool2d_backward", run > 1 ? mean_backward<kVecWidth<T>, T> : mean_backward<1, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
