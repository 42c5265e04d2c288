// Interpolation. A thread has neighbouring columns of several rows of outputs, and reads a row of
// inputs once for all that need it.
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cuda/conv/sample_tables.cuh>

namespace binade::kernels::cuda {

namespace {

// near·x[at] + far·x[next]; what has no share is left out: 0·∞ would be NaN.
template <class C>
__device__ __forceinline__ C blend(const TableSample<C>& sample, C at, C next) {
  return Sample<C>{0, 0, sample.near, sample.far}.blend(at, next);
}

// Rows of outputs that a thread of the forward kernels takes.
constexpr int kOutputRows = 8;

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    nearest_forward(const RunGrid grid, const ImageSizes sizes,
                    const SampleTables<ComputeOf<T>> tables, const T* x, T* y) {
  grid.for_each<kRun>([&](int64_t plane, int group, int column) {
    const T* image = x + plane * sizes.height * sizes.width;
    int columns[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) columns[i] = tables.column_places[column + i];
    Vec<T, kRun> line;
    int in_line = -1;  // the row of x that `line` is of
#pragma unroll
    for (int r = 0; r < kOutputRows; ++r) {
      const int row = group * kOutputRows + r;
      if (row >= sizes.out_height) break;
      const int from = tables.row_places[row];
      if (from != in_line) {
#pragma unroll
        for (int i = 0; i < kRun; ++i) line[i] = image[int64_t{from} * sizes.width + columns[i]];
        in_line = from;
      }
      store_vec(y + (plane * sizes.out_height + row) * sizes.out_width + column, line);
    }
  });
}

template <int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    linear_forward(const RunGrid grid, const ImageSizes sizes,
                   const SampleTables<ComputeOf<T>> tables, const T* x, T* y) {
  using C = ComputeOf<T>;
  grid.for_each<kRun>([&](int64_t plane, int group, int column) {
    const T* image = x + plane * sizes.height * sizes.width;
    TableSample<C> columns[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) columns[i] = tables.columns[column + i];
    C high[kRun], low[kRun];  // rows in_high and in_low of x at these columns
    int in_high = -1, in_low = -1;
    const auto read = [&](int from, C(&line)[kRun]) {
      const T* start = image + int64_t{from} * sizes.width;
#pragma unroll
      for (int i = 0; i < kRun; ++i)
        line[i] = blend(columns[i], widen(start[columns[i].at]), widen(start[columns[i].next]));
    };
#pragma unroll
    for (int r = 0; r < kOutputRows; ++r) {
      const int row = group * kOutputRows + r;
      if (row >= sizes.out_height) break;
      const TableSample<C> sample = tables.rows[row];
      if (sample.at != in_high) {
        if (sample.at == in_low) {
#pragma unroll
          for (int i = 0; i < kRun; ++i) high[i] = low[i];
        } else {
          read(sample.at, high);
        }
        in_high = sample.at;
      }
      if (sample.next != in_low) {
        read(sample.next, low);
        in_low = sample.next;
      }
      Vec<T, kRun> result;
#pragma unroll
      for (int i = 0; i < kRun; ++i) result[i] = narrow<T>(blend(sample, high[i], low[i]));
      store_vec(y + (plane * sizes.out_height + row) * sizes.out_width + column, result);
    }
  });
}

}  // namespace

void interpolate(const Array& x, const InterpolateParams& params, const Array& y) {
  if (y.numel() == 0) return;
  visit_floating(x.dtype(), "interpolate", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>, kFour = kVec < 4 ? kVec : 4;
    const ImageSizes sizes(x, y);
    const SamplesOnDevice<ComputeOf<T>> tables(sizes, params, false);
    const auto run = [&](auto kernel, int columns) {
      const RunGrid grid = grid_of(y, kOutputRows, columns);
      launch("interpolate", kernel, grid_for(grid.items), kBlock, 0, grid, sizes, *tables,
             device_data<const T>(x), device_data<T>(y));
    };
    if (params.linear)
      return rows_of_runs(y, kFour) ? run(linear_forward<kFour, T>, kFour)
                                    : run(linear_forward<1, T>, 1);
    rows_of_runs(y, kVec) ? run(nearest_forward<kVec, T>, kVec) : run(nearest_forward<1, T>, 1);
  });
}

}  // namespace binade::kernels::cuda
