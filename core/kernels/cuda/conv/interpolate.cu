// Interpolation: a thread for each 16-byte vector of outputs forward and of inputs backward, where
// it gathers from the outputs that read them in a fixed order (no atomics).
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
                         TableSample<C>* samples, Cover* covers) {
  const int64_t i = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i < sizes.out_height)
    samples[i] = sample_at<C>(params, i, sizes.height, sizes.out_height);
  else if (i < sizes.outputs())
    samples[i] = sample_at<C>(params, i - sizes.out_height, sizes.width, sizes.out_width);
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
      : samples_(sizes.outputs()), covers_(with_covers ? sizes.entries() - sizes.outputs() : 1) {
    Cover* covers = with_covers ? covers_.data() : nullptr;
    launch("sample_tables", sample_tables_kernel<C>,
           one_block_each(
               ceil_div(std::max(sizes.outputs(), sizes.entries() - sizes.outputs()), kBlock)),
           kBlock, 0, sizes, params, samples_.data(), covers);
    tables_ = {samples_.data(), samples_.data() + sizes.out_height, covers,
               with_covers ? covers + sizes.height : nullptr};
  }
  const SampleTables<C>& operator*() const { return tables_; }

 private:
  Workspace<TableSample<C>> samples_;
  Workspace<Cover> covers_;
  SampleTables<C> tables_;
};

// near·x[at] + far·x[next]; what has no share is left out: 0·∞ would be NaN.
template <class C>
__device__ __forceinline__ C blend(const TableSample<C>& sample, C at, C next) {
  return Sample<C>{0, 0, sample.near, sample.far}.blend(at, next);
}

template <bool kLinear, int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_forward(const RunGrid grid, const ImageSizes sizes,
                        const SampleTables<ComputeOf<T>> tables, const T* x, T* y) {
  using C = ComputeOf<T>;
  grid.for_each<kRun>([&](int64_t plane, int row, int column) {
    const TableSample<C> rows = tables.rows[row];
    const T* image = x + plane * sizes.height * sizes.width;
    const T* high = image + int64_t{rows.at} * sizes.width;
    const T* low = image + int64_t{rows.next} * sizes.width;
    Vec<T, kRun> result;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const TableSample<C> columns = tables.columns[column + i];
      if constexpr (kLinear) {
        result[i] = narrow<T>(
            blend(rows, blend(columns, widen(high[columns.at]), widen(high[columns.next])),
                  blend(columns, widen(low[columns.at]), widen(low[columns.next]))));
      } else {
        result[i] = high[columns.at];
      }
    }
    store_vec(y + (plane * sizes.out_height + row) * sizes.out_width + column, result);
  });
}

template <bool kLinear, int kRun, class T>
__global__ void __launch_bounds__(kBlock)
    interpolate_gather(const RunGrid grid, const ImageSizes sizes,
                       const SampleTables<ComputeOf<T>> tables, const T* dy, T* dx) {
  using C = ComputeOf<T>;
  constexpr int kRows = 4;  // of dy at once
  grid.for_each<kRun>([&](int64_t plane, int row, int column) {
    const Cover rows = tables.row_covers[row];
    const T* image = dy + plane * sizes.out_height * sizes.out_width;
    C sum[kRun];
#pragma unroll
    for (C& s : sum) s = C(0);
    for (int first = rows.begin; first < rows.end; first += kRows) {
      C down[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        down[r] = C(0);
        if (first + r < rows.end) down[r] = kLinear ? share_of(tables.rows[first + r], row) : C(1);
      }
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        const Cover columns = tables.column_covers[column + i];
        for (int ow = columns.begin; ow < columns.end; ++ow) {
          const C across = kLinear ? share_of(tables.columns[ow], column + i) : C(1);
          C value = C(0);
#pragma unroll
          for (int r = 0; r < kRows; ++r)
            if (down[r] != C(0))
              value += down[r] * widen(image[int64_t{first + r} * sizes.out_width + ow]);
          if (across != C(0)) sum[i] += across * value;
        }
      }
    }
    Vec<T, kRun> result;
#pragma unroll
    for (int i = 0; i < kRun; ++i) result[i] = narrow<T>(sum[i]);
    store_vec(dx + (plane * sizes.height + row) * sizes.width + column, result);
  });
}

template <class T, bool kLinear>
void run_interpolate(const ImageSizes& sizes, const InterpolateParams& params, const Array& x,
                     const Array& y) {
  const Tables<ComputeOf<T>> tables(sizes, params, false);
  const int run = run_of<T>(y);
  const RunGrid grid(y.numel(), sizes.out_height, sizes.out_width, run);
  launch(
      "interpolate",
      run > 1 ? interpolate_forward<kLinear, kVecWidth<T>, T> : interpolate_forward<kLinear, 1, T>,
      grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(x),
      device_data<T>(y));
}

template <class T, bool kLinear>
void run_interpolate_backward(const ImageSizes& sizes, const InterpolateParams& params,
                              const Array& dy, const Array& dx) {
  const Tables<ComputeOf<T>> tables(sizes, params, true);
  const int run = run_of<T>(dx);
  const RunGrid grid(dx.numel(), sizes.height, sizes.width, run);
  launch("interpolate_backward",
         run > 1 ? interpolate_gather<kLinear, kVecWidth<T>, T> : interpolate_gather<kLinear, 1, T>,
         grid_for(grid.items), kBlock, 0, grid, sizes, *tables, device_data<const T>(dy),
         device_data<T>(dx));
}

}  // namespace

void interpolate(const Array& x, const InterpolateParams& params, const Array& y) {
  if (y.numel() == 0) return;
  visit_floating(x.dtype(), "interpolate", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes(x, y);
    params.linear ? run_interpolate<T, true>(sizes, params, x, y)
                  : run_interpolate<T, false>(sizes, params, x, y);
  });
}

void interpolate_backward(const Array& dy, const InterpolateParams& params, const Array& dx) {
  if (dx.numel() == 0) return;
  visit_floating(dx.dtype(), "interpolate_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    const ImageSizes sizes(dx, dy);
    params.linear ? run_interpolate_backward<T, true>(sizes, params, dy, dx)
                  : run_interpolate_backward<T, false>(sizes, params, dy, dx);
  });
}

}  // namespace binade::kernels::cuda
