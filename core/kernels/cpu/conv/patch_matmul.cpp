#include <binade/core/kernels/cpu/conv/patch_matmul.h>

#include <algorithm>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/conv/strip_matmul.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

// How output pixels, filters and channels are cut into tasks and steps.
struct PatchTiling {
  // Numbers of a panel of patches, which stays in the first level of the cache beside the filters;
  // twice as many where these come from beyond the second level, for longer stretches of them.
  static constexpr int64_t kPanel = 3 << 10, kFilters = 1 << 18;
  // Numbers of patches, and filters that are multiplied at a time: both stay in the second level.
  static constexpr int64_t kPacked = 3 << 14, kRows = 128;
  static constexpr int64_t kTasks = 16, kFewestPixels = 64, kMostPixels = 512, kFewestRows = 64;

  // Pixels are cut into whole `unit`s.
  PatchTiling(int64_t pixels, int64_t unit, int64_t groups, int64_t filters, int64_t channels,
              int64_t taps, bool packed)
      : unit(unit),
        channels(channels, std::max<int64_t>(depth(filters * channels * taps) / taps, 1)),
        units(pixels / unit,
              units_of_a_task(pixels, groups, packed ? this->channels.longest() * taps : 1)),
        filters(filters, filters) {
    const int64_t wanted = (kTasks + units.count * groups - 1) / (units.count * groups);
    if (wanted > 1)
      this->filters = EvenParts(filters, std::max(kFewestRows, (filters + wanted - 1) / wanted));
  }

  static int64_t depth(int64_t weights) {
    return (weights <= kFilters ? kPanel : 2 * kPanel) / micro_kernel().columns;
  }

  int64_t units_of_a_task(int64_t pixels, int64_t groups, int64_t depth) const {
    const int64_t fitting = std::clamp(kPacked / depth, kFewestPixels, kMostPixels);
    const int64_t wanted = std::clamp(pixels * groups / kTasks, kFewestPixels, fitting);
    return std::max<int64_t>(wanted / unit, 1);
  }

  int64_t unit;
  EvenParts channels, units, filters;
};

template <class T>
class PatchMatmul {
 public:
  PatchMatmul(const Array& images, const PatchGrid& grid, int64_t groups, int64_t filters,
              const T* weights, const PatchOutput& out)
      : images_(images),
        grid_(grid),
        groups_(groups),
        filters_(filters),
        channels_(images.size(1) / groups),
        weights_(weights),
        out_(out),
        direct_(out.array.dtype() == dtype_of<T>() && out.row_step == 1 && out.column_step == 1 &&
                grid.columns.outputs == out.array.size(3)),
        packed_(std::is_same_v<T, double> || grid.taps() == 1 ||
                !worth_reading_strips(grid.columns.outputs, filters)),
        tiling_(images.size(0) * grid.pixels(), packed_ ? 1 : grid.columns.outputs, groups, filters,
                channels_, grid.taps(), packed_) {}

  void run() {
    const int64_t blocks = tiling_.filters.count, parts = tiling_.units.count;
    parallel_tasks(parts * groups_ * blocks, [&](int64_t task) {
      multiply(task / blocks / groups_, task / blocks % groups_, task % blocks);
    });
  }

 private:
  void multiply(int64_t part, int64_t group, int64_t block) {
    const int64_t begin = tiling_.units.begin(part) * tiling_.unit;
    const int64_t count = tiling_.units.length(part) * tiling_.unit;
    const int64_t first = tiling_.filters.begin(block), rows = tiling_.filters.length(block);
    const int64_t channel = group * filters_ + first;  // of the output
    PatchReader<T> reader(images_, grid_);
    thread_local Workspace<T> sums_memory;
    reader.select(begin, begin + count, !packed_);

    const bool direct = direct_ && begin / grid_.pixels() == (begin + count - 1) / grid_.pixels();
    T* const sums =
        direct ? reinterpret_cast<T*>(place(channel, begin)) : sums_memory.reserve(rows * count);
    const int64_t leading = direct ? grid_.pixels() : count;
    for (int64_t row = 0; row < rows; ++row)
      if (!direct || out_.beta == 0)
        std::fill_n(sums + row * leading, count, out_.bias_of<T>(channel + row));

    for (int64_t step = 0; step < tiling_.channels.count; ++step) {
      const int64_t from = tiling_.channels.begin(step), channels = tiling_.channels.length(step);
      const T* const left = weights_ + (channel * channels_ + from) * grid_.taps();
      reader.load(group * channels_ + from, channels);
      add_step(reader, channels, rows, left, count, sums, leading);
    }
    if (!direct) store(begin, count, channel, rows, sums);
  }

  // sums (rows, count) += filters · the loaded channels.
  void add_step(PatchReader<T>& reader, int64_t channels, int64_t rows, const T* filters,
                int64_t count, T* sums, int64_t leading) const {
    const int64_t patch = channels_ * grid_.taps(), k = channels * grid_.taps();
    const int64_t width = panel_width<T>(count), panel = k * width + PatchReader<T>::kRoundUp;
    thread_local Workspace<T> memory;
    T* packed = nullptr;
    if (packed_) {
      packed = memory.reserve((count + width - 1) / width * panel);
      reader.pack(channels, width, packed, panel);
    }
    const EvenParts runs(rows, PatchTiling::kRows);
    for (int64_t run = 0; run < runs.count; ++run) {
      const Block<const T> left{filters + runs.begin(run) * patch, patch, false};
      T* const target = sums + runs.begin(run) * leading;
      if (packed_)
        multiply_panels(runs.length(run), count, k, left, packed, panel, target, leading);
      else if constexpr (std::is_same_v<T, float>)
        multiply_strips(reader, channels, runs.length(run), left, target, leading);
    }
  }

  // Where an output pixel of the batch lies.
  std::byte* place(int64_t channel, int64_t pixel) const {
    const int64_t within = pixel % grid_.pixels(), columns = grid_.columns.outputs;
    return out_.at(pixel / grid_.pixels(), channel, within / columns, within % columns);
  }
  // Sums (rows, count) into the output, by stretches that lie in one row of it.
  void store(int64_t begin, int64_t count, int64_t channel, int64_t rows, T* sums) const {
    const int64_t columns = direct_ ? grid_.pixels() : grid_.columns.outputs;
    for (int64_t i = 0; i < count;) {
      const int64_t length = std::min(columns - (begin + i) % columns, count - i);
      for (int64_t row = 0; row < rows; ++row)
        store_with_beta(sums + row * count + i, length, place(channel + row, begin + i),
                        out_.array.dtype(), out_.column_step, out_.beta);
      i += length;
    }
  }

  const Array& images_;
  const PatchGrid& grid_;
  int64_t groups_, filters_, channels_;
  const T* weights_;
  const PatchOutput& out_;
  bool direct_;  // an image's output pixels lie in the order of the grid, in T
  bool packed_;  // patches are
  PatchTiling tiling_;
};

// Few filters: pixels are read where the reader has them.
template <class T, int Filters>
class FewFilters {
  using Line = typename PatchReader<T>::Line;
  using Vector = typename PatchReader<T>::Vector;
  static constexpr int kVectors = 4;  // at a time

 public:
  FewFilters(const Array& images, const PatchGrid& grid, int64_t groups, const T* weights,
             const PatchOutput& out)
      : images_(images),
        grid_(grid),
        groups_(groups),
        channels_(images.size(1) / groups),
        weights_(weights),
        out_(out) {}

  void run() {
    // Rows of an output image and groups of a task.
    constexpr int64_t kPixels = 1 << 12, kWork = 1 << 19;
    const int64_t columns = grid_.columns.outputs;
    const EvenParts rows(grid_.rows.outputs, std::max<int64_t>(kPixels / columns, 1));
    const int64_t work = rows.longest() * columns * channels_ * grid_.taps() * Filters;
    const EvenParts groups(groups_, std::max<int64_t>(kWork / work, 1));
    parallel_tasks(images_.size(0) * rows.count * groups.count, [&](int64_t task) {
      const int64_t part = task / groups.count % rows.count, run = task % groups.count;
      const int64_t image = task / groups.count / rows.count;
      PatchReader<T> reader(images_, grid_);
      const int64_t first = (image * grid_.rows.outputs + rows.begin(part)) * columns;
      reader.select(first, first + rows.length(part) * columns);
      for (int64_t group = groups.begin(run); group < groups.begin(run + 1); ++group) {
        reader.load(group * channels_, channels_);
        multiply(reader, image, rows.begin(part), group);
      }
    });
  }

 private:
  void multiply(const PatchReader<T>& reader, int64_t image, int64_t first_row, int64_t group) {
    const int64_t columns = grid_.columns.outputs;
    const int64_t padded = columns + kVectors * PatchReader<T>::kLanes;
    thread_local Workspace<T> buffer;
    T* const sums = buffer.reserve(Filters * padded);
    for (size_t i = 0; i < reader.lines().size(); ++i) {
      multiply_line(reader, reader.lines()[i], group, sums, padded);
      for (int f = 0; f < Filters; ++f)
        store_with_beta(sums + f * padded, columns,
                        out_.at(image, group * Filters + f, first_row + static_cast<int64_t>(i), 0),
                        out_.array.dtype(), out_.column_step, out_.beta);
    }
  }
  void multiply_line(const PatchReader<T>& reader, const Line& line, int64_t group, T* sums,
                     int64_t leading) const {
    constexpr int64_t kLanes = PatchReader<T>::kLanes;
    for (int64_t i = 0; i < line.count; i += kVectors * kLanes) {
      const int64_t base = line.base + i;
      switch ((line.count - i + kLanes - 1) / kLanes) {
        case 1:
          multiply_vectors<1>(reader, base, group, sums + i, leading);
          break;
        case 2:
          multiply_vectors<2>(reader, base, group, sums + i, leading);
          break;
        case 3:
          multiply_vectors<3>(reader, base, group, sums + i, leading);
          break;
        default:
          multiply_vectors<kVectors>(reader, base, group, sums + i, leading);
      }
    }
  }
  // Sums of some vectors of neighbouring pixels, over all channels.
  template <int Vectors>
  void multiply_vectors(const PatchReader<T>& reader, int64_t base, int64_t group, T* to,
                        int64_t leading) const {
    constexpr int64_t kLanes = PatchReader<T>::kLanes;
    const int64_t patch = channels_ * grid_.taps();
    Vector sums[Filters][Vectors];
#pragma GCC unroll 4
    for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v)
        sums[f][v] = Vector{} + out_.bias_of<T>(group * Filters + f);
    const T* kernel = weights_ + group * Filters * patch;
    for (int64_t c = 0; c < channels_; ++c) {
      const T* const channel = reader.data() + c * reader.channel_pitch() + base;
      for (const int64_t tap : reader.taps()) {
        const T* const from = channel + tap;
        Vector pixels[Vectors];
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v)
          std::memcpy(&pixels[v], from + v * kLanes, sizeof(Vector));
#pragma GCC unroll 4
        for (int f = 0; f < Filters; ++f)
#pragma GCC unroll 4
          for (int v = 0; v < Vectors; ++v) sums[f][v] += kernel[f * patch] * pixels[v];
        ++kernel;
      }
    }
    for (int f = 0; f < Filters; ++f) std::memcpy(to + f * leading, sums[f], sizeof(sums[f]));
  }

  const Array& images_;
  const PatchGrid& grid_;
  int64_t groups_, channels_;
  const T* weights_;
  const PatchOutput& out_;
};

}  // namespace

void multiply_panels(int64_t m, int64_t n, int64_t k, Block<const float> a, const float* b,
                     int64_t panel, float* c, int64_t leading_c) {
  thread_local Workspace<float> buffer;
  multiply_packed(m, n, k, rows_of_a(m, k, a, buffer.reserve(m * k)), {b, panel}, true, c,
                  leading_c);
}
void multiply_panels(int64_t m, int64_t n, int64_t k, Block<const double> a, const double* b,
                     int64_t, double* c, int64_t leading_c) {
  gemm(m, n, k, a, {b, n, false}, true, c, leading_c);
}

void transpose(int64_t rows, int64_t columns, const float* from, int64_t leading, float* to) {
  rows_of_a(rows, columns, {from, leading, true}, to);
}
void transpose(int64_t rows, int64_t columns, const double* from, int64_t leading, double* to) {
  for (int64_t column = 0; column < columns; ++column)
    for (int64_t row = 0; row < rows; ++row)
      to[row * columns + column] = from[column * leading + row];
}

template <class T>
void store_with_beta(T* row, int64_t count, std::byte* target, DType dtype, int64_t step,
                     float beta) {
  if (beta != 0) {
    thread_local Workspace<T> buffer;
    T* const old = buffer.reserve(count);
    load_row(target, dtype, step, count, old);
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) row[i] += old[i];
  }
  if (dtype != dtype_of<T>()) return store_row(row, count, target, dtype, step);
  T* const to = reinterpret_cast<T*>(target);  // runs are short: a call would cost as much
  if (step == 1)
    for (int64_t i = 0; i < count; ++i) to[i] = row[i];
  else
    for (int64_t i = 0; i < count; ++i) to[i * step] = row[i];
}

template <class T>
void multiply_patches(const Array& images, const PatchGrid& grid, int64_t groups, int64_t filters,
                      const T* weights, const PatchOutput& out) {
  if (images.size(0) * grid.pixels() * groups * filters == 0) return;
  switch (filters) {
    case 1:
      return FewFilters<T, 1>(images, grid, groups, weights, out).run();
    case 2:
      return FewFilters<T, 2>(images, grid, groups, weights, out).run();
    case 3:
      return FewFilters<T, 3>(images, grid, groups, weights, out).run();
    default:
      PatchMatmul<T>(images, grid, groups, filters, weights, out).run();
  }
}

#define BINADE_MULTIPLY_PATCHES(T)                                                           \
  template void store_with_beta(T*, int64_t, std::byte*, DType, int64_t, float);             \
  template void multiply_patches(const Array&, const PatchGrid&, int64_t, int64_t, const T*, \
                                 const PatchOutput&);
BINADE_MULTIPLY_PATCHES(float)
BINADE_MULTIPLY_PATCHES(double)
#undef BINADE_MULTIPLY_PATCHES

}  // namespace binade::kernels::cpu
