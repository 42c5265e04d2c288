// Interpolation. A thread has neighbouring columns of several rows of outputs, and reads a row of
// inputs once for all that need it; backward it has a column of several inputs, and walks down the
// outputs that read them in a fixed order (no atomics).
#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/cuda/conv/axis_tables.cuh>

namespace binade::kernels::cuda {

namespace {

template <class C>
__device__ TableSample<C> sample_at(const InterpolateParams& params, int64_t o, int64_t size,
                                    int64_t outputs) {
  const Sample<C> sample = interpolation_sample<C>(params, o, size, outputs);
  return {static_cast<int32_t>(sample.at), static_cast<int32_t>(sample.next), sample.near,
          sample.far};
}

// What the sample gives to position `i`.
template <class C>
__device__ __forceinline__ C share_of(const TableSample<C>& sample, int i) {
  return (sample.at == i ? sample.near : C(0)) + (sample.next == i ? sample.far : C(0));
}

template <class C>
__device__ Cover cover_at(const InterpolateParams& params, int64_t i, int64_t size,
                          int64_t outputs) {
  PoolCover cover = interpolation_cover(params, i, size, outputs);
  const auto reads = [&](int64_t o) {
    return share_of(sample_at<C>(params, o, size, outputs), static_cast<int>(i)) != C(0);
  };
  while (cover.begin < cover.end && !reads(cover.begin)) ++cover.begin;
  while (cover.begin < cover.end && !reads(cover.end - 1)) --cover.end;
  return {static_cast<int32_t>(cover.begin), static_cast<int32_t>(cover.end)};
}

// Entries of rows, then of columns.
template <class C>
__global__ void __launch_bounds__(kBlock)
    sample_tables_kernel(const ImageSizes sizes, const InterpolateParams params,
                         TableSample<C>* samples, int32_t* places, Cover* covers) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i < sizes.outputs()) {
    samples[i] = i < sizes.out_height
                     ? sample_at<C>(params, i, sizes.height, sizes.out_height)
                     : sample_at<C>(params, i - sizes.out_height, sizes.width, sizes.out_width);
    places[i] = samples[i].at;
  }
  if (covers == nullptr) return;
  if (i < sizes.height)
    covers[i] = cover_at<C>(params, i, sizes.height, sizes.out_height);
  else if (i < int64_t{sizes.height} + sizes.width)
    covers[i] = cover_at<C>(params, i - sizes.height, sizes.width, sizes.out_width);
}

// The tables in device memory, for the kernels queued while this lives.
template <class C>
class Tables {
 public:
  Tables(const ImageSizes& sizes, const InterpolateParams& params, bool with_covers)
      : samples_(sizes.outputs()),
        places_(sizes.outputs()),
        covers_(with_covers ? sizes.entries() - sizes.outputs() : 1) {
    Cover* covers = with_covers ? covers_.data() : nullptr;
    launch("sample_tables", sample_tables_kernel<C>,
           one_block_each(
               ceil_div(std::max(sizes.outputs(), sizes.entries() - sizes.outputs()), kBlock)),
           kBlock, 0, sizes, params, samples_.data(), places_.data(), covers);
    tables_ = {samples_.data(), samples_.data() + sizes.out_height,
               places_.data(),  places_.data() + sizes.out_height,
               covers,          with_covers ? covers + sizes.height : nullptr};
  }
  const SampleTables<C>& operator*() const { return tables_; }

 private:
  Workspace<TableSample<C>> samples_;
  Workspace<int32_t> places_;
  Workspace<Cover> covers_;
  SampleTables<C> tables_;
};

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

// Rows of dx that a thread of the backward kernel takes.
constexpr int kInputRows = 8;

// A row of dy adds its share to two rows of dx, of which those that are not complete are carried.
// kOutputs: of a row of dy, whose shares are kept.
template <int kOutputs, class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_gather(const RunGrid grid, const ImageSizes sizes,
                       const SampleTables<ComputeOf<T>> tables, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  grid.for_each<1>([&](int64_t plane, int group, int column) {
    const T* image = dy + plane * sizes.out_height * sizes.out_width;
    T* const to = dx + plane * sizes.height * sizes.width + column;
    const Cover columns = tables.column_covers[column];
    C across[kOutputs];
#pragma unroll
    for (int k = 0; k < kOutputs; ++k) {
      across[k] = C(0);
      if (columns.begin + k < columns.end)
        across[k] = share_of(tables.columns[columns.begin + k], column);
    }
    const int first = group * kInputRows, end = min(sizes.height, first + kInputRows);
    int begin_outputs = sizes.out_height, end_outputs = 0;  // that any of these rows reaches
    for (int row = first; row < end; ++row) {
      const Cover cover = tables.row_covers[row];
      if (cover.begin >= cover.end) continue;
      begin_outputs = min(begin_outputs, cover.begin);
      end_outputs = max(end_outputs, cover.end);
    }
    C own(0), next(0);  // of rows `at` and at + 1
    int at = first;
    const auto go_to = [&](int row) {  // `at` moves on; what is complete is stored
      for (; at < row; ++at) {
        if (at >= first) to[int64_t{at} * sizes.width] = narrow<T>(own);
        own = next;
        next = C(0);
      }
    };
    if (begin_outputs < end_outputs) at = min(first, tables.row_places[begin_outputs]);
    for (int oh = begin_outputs; oh < end_outputs; ++oh) {
      const TableSample<C> sample = tables.rows[oh];
      const T* line = image + int64_t{oh} * sizes.out_width + columns.begin;
      T read[kOutputs];
#pragma unroll
      for (int k = 0; k < kOutputs; ++k)
        if (across[k] != C(0)) read[k] = line[k];
      C sum(0);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k)
        if (across[k] != C(0)) sum += across[k] * widen(read[k]);
      for (int ow = columns.begin + kOutputs; ow < columns.end; ++ow) {
        const C share = share_of(tables.columns[ow], column);
        if (share != C(0)) sum += share * widen(line[ow - columns.begin]);
      }
      go_to(min(sample.at, end));
      if (sample.at >= end) break;
      C& below = sample.next == sample.at ? own : next;
      if (sample.near != C(0)) own += sample.near * sum;
      if (sample.far != C(0)) below += sample.far * sum;
    }
    go_to(end);
  });
}

}  // namespace

void interpolate(const Array& x, const InterpolateParams& params, const Array& y) {
  if (y.numel() == 0) return;
  visit_floating(x.dtype(), "interpolate", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    constexpr int kVec = kVecWidth<T>, kFour = kVec < 4 ? kVec : 4;
    const ImageSizes sizes(x, y);
    const Tables<ComputeOf<T>> tables(sizes, params, false);
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

void interpolate_backward(const Array& dy, const InterpolateParams& params, const Array& dx) {
  if (dx.numel() == 0) return;
  visit_floating(dx.dtype(), "interpolate_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes(dx, dy);
    const Tables<ComputeOf<T>> tables(sizes, params, true);
    const RunGrid grid = grid_of(dx, kInputRows, 1);
    // An input is read by about so many outputs; those beyond what is kept are looked up.
    const int64_t readers = (params.linear ? 2 : 1) * ceil_div(sizes.out_width, sizes.width);
    launch("interpolate_backward",
           readers <= 2   ? interpolate_gather<2, T>
           : readers <= 4 ? interpolate_gather<4, T>
                          : interpolate_gather<8, T>,
           grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
           device_data<T>(dx));
  });
}

}  // namespace binade::kernels::cuda
