// Windows and samples along one dimension of images, tabulated: kernels over images look up what an
// output covers and which outputs an input reaches, and divide nothing.
#pragma once

#include <binade/core/kernels/image_rules.h>

#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

// What an output covers: positions begin, begin + step, … below end, and this dimension's factor of
// what a mean divides by.
struct alignas(16) Window {
  int32_t begin, end, step, count;
};
// Outputs [begin, end) that an input reaches.
struct Cover {
  int32_t begin, end;
};
// An output's two inputs and their shares.
template <class C>
struct alignas(16) TableSample {
  int32_t at, next;
  C near, far;
};

// The windows of each output and, if asked for, the covers of each input, rows and columns.
struct PoolTables {
  const Window *rows, *columns;
  const Cover *row_covers, *column_covers;
};
// The samples of each output, their first input alone, and, if asked for, the covers of each input:
// exactly those outputs that read it.
template <class C>
struct SampleTables {
  const TableSample<C>*rows, *columns;
  const int32_t *row_places, *column_places;
  const Cover *row_covers, *column_covers;
};

// Sizes of x and y planes, for tables and kernels.
struct ImageSizes {
  static constexpr int64_t kMost = int64_t{1} << 30;  // sums of two are 32-bit numbers
  int32_t height, width, out_height, out_width;

  ImageSizes(const Array& x, const Array& y)
      : height(checked(x.size(2))),
        width(checked(x.size(3))),
        out_height(checked(y.size(2))),
        out_width(checked(y.size(3))) {}
  __host__ __device__ int64_t entries() const {
    return int64_t{out_height} + out_width + height + width;
  }
  __host__ __device__ int64_t outputs() const { return int64_t{out_height} + out_width; }

 private:
  static int32_t checked(int64_t size) {
    check(size <= kMost, "images have up to 2^30 rows and columns on the GPU, got ", size);
    return static_cast<int32_t>(size);
  }
};

// Runs of `run` neighbours in rows of planes of height·width elements, in memory's order.
struct RunGrid {
  int64_t items, runs, height;
  bool narrow;
  FastDivisor by_runs, by_height;

  RunGrid(int64_t elements, int64_t rows, int64_t width, int run)
      : items(elements / run), runs(width / run), height(rows), narrow(items <= INT32_MAX) {
    if (items == 0) return;
    by_runs = FastDivisor::of(runs);
    by_height = FastDivisor::of(height);
  }

  // Calls work(plane, row, first column) for this thread's runs.
  template <int kRun, class Work>
  __device__ __forceinline__ void for_each(const Work& work) const {
    const int64_t step = int64_t{gridDim.x} * blockDim.x;
    for (int64_t item = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; item < items;
         item += step) {
      const int64_t line = divide(item, by_runs, runs);
      const int64_t plane = divide(line, by_height, height);
      work(plane, static_cast<int>(line - plane * height),
           static_cast<int>(item - line * runs) * kRun);
    }
  }

 private:
  __device__ __forceinline__ int64_t divide(int64_t n, FastDivisor divisor, int64_t by) const {
    if (!narrow) return n / by;
    const auto value = static_cast<uint32_t>(n);
    return (__umulhi(value, divisor.multiplier) + value) >> divisor.shift;
  }
};

// Runs of `run` columns in groups of `rows` rows of the planes of `image`: a group is a row of the
// grid.
inline RunGrid grid_of(const Array& image, int64_t rows, int run) {
  const int64_t groups = ceil_div(image.size(2), rows), width = image.size(3);
  return RunGrid(image.size(0) * image.size(1) * groups * width, groups, width, run);
}

// Whether `run` neighbours in a row of images are one access, from each multiple of them on.
inline bool rows_of_runs(const Array& image, int run) {
  return image.size(3) % run == 0 && rows_aligned(image.data(), 0, 1, run * size_of(image.dtype()));
}

}  // namespace binade::kernels::cuda
