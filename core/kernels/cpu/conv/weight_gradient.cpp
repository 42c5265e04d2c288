#include <binade/core/kernels/cpu/conv/weight_gradient.h>

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/conv/patch_matmul.h>
#include <binade/core/kernels/cpu/conv/strip_matmul.h>
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

namespace binade::kernels::cpu {

namespace {

// Filters of a group up to which neither patches nor gradients are worth packing.
constexpr int64_t kFewFilters = 8;
// Taps that are summed at a time, in a register each.
constexpr int kMostTaps = 10;

__m256 load_part(const float* from, __m256i mask) {
  return _mm256_maskload_ps(from, mask);
}
__m256d load_part(const double* from, __m256i mask) {
  return _mm256_maskload_pd(from, mask);
}
__m256i part_mask(int64_t count, float) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
__m256i part_mask(int64_t count, double) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}

// totals[t] += Σ dy[i] · x[i + taps[t]] over lines, whose gradients follow one another.
template <class T, int Taps>
void multiply_taps(std::span<const typename PatchReader<T>::Line> lines, const T* dy, const T* x,
                   const int64_t* taps, T* totals) {
  using Vector = typename PatchReader<T>::Vector;
  constexpr int64_t kLanes = PatchReader<T>::kLanes;
  Vector sums[Taps];
#pragma GCC unroll 10
  for (int t = 0; t < Taps; ++t) std::memcpy(&sums[t], totals + t * kLanes, sizeof(Vector));
  const int64_t count = lines.front().count, whole = count / kLanes * kLanes;
  const __m256i mask = part_mask(count - whole, T());
  for (const auto& line : lines) {
    const T* const from = x + line.base;
    for (int64_t i = 0; i < whole; i += kLanes) {
      Vector gradient;
      std::memcpy(&gradient, dy + i, sizeof(Vector));
#pragma GCC unroll 10
      for (int t = 0; t < Taps; ++t) {
        Vector pixels;
        std::memcpy(&pixels, from + i + taps[t], sizeof(Vector));
        sums[t] += gradient * pixels;
      }
    }
    if (whole < count) {  // what lies behind the line may be NaN
      const Vector gradient = load_part(dy + whole, mask);
#pragma GCC unroll 10
      for (int t = 0; t < Taps; ++t) sums[t] += gradient * load_part(from + whole + taps[t], mask);
    }
    dy += count;
  }
#pragma GCC unroll 10
  for (int t = 0; t < Taps; ++t) std::memcpy(totals + t * kLanes, &sums[t], sizeof(Vector));
}

template <class T>
using MultiplyTaps = void (*)(std::span<const typename PatchReader<T>::Line>, const T*, const T*,
                              const int64_t*, T*);
template <class T, int... Taps>
constexpr std::array<MultiplyTaps<T>, sizeof...(Taps)> taps_table(
    std::integer_sequence<int, Taps...>) {
  return {&multiply_taps<T, Taps + 1>...};
}
template <class T>
constexpr auto kMultiplyTaps = taps_table<T>(std::make_integer_sequence<int, kMostTaps>());

// A task sums a slice of the batch's rows for some channels of a group; the slices are added up in
// order.
template <class T>
class WeightGradient {
 public:
  WeightGradient(const Array& x, const PatchGrid& grid, int64_t groups, const Array& dy)
      : x_(x),
        grid_(grid),
        groups_(groups),
        dy_(dy),
        channels_(x.size(1) / groups),
        filters_(dy.size(1) / groups),
        taps_(grid.taps()),
        few_(filters_ <= kFewFilters),
        blocks_(channels_, longest_block()),
        slices_(x.size(0) * grid.rows.outputs, longest_slice()) {}

  void run(const Array& dweight, float beta) {
    T* const sums = partial_.reserve(slices_.count * groups_ * group_size());
    parallel_tasks(slices_.count * groups_ * blocks_.count, [&](int64_t task) {
      const int64_t block = task % blocks_.count, group = task / blocks_.count % groups_;
      const int64_t slice = task / blocks_.count / groups_;
      T* const own = sums + (slice * groups_ + group) * group_size();
      if (few_)
        multiply_few(slice, group, block, own);
      else
        multiply(slice, group, block, own);
    });
    const int64_t all = groups_ * group_size();
    constexpr int64_t kGrain = 1 << 15;
    if (slices_.count > 1)
      parallel_for(all, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t slice = 1; slice < slices_.count; ++slice) {
          const T* const from = sums + slice * all;
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) sums[i] += from[i];
        }
      });
    constexpr int64_t kFilters = 16;
    const EvenParts parts(filters_, kFilters);
    parallel_tasks(groups_ * parts.count, [&](int64_t task) {
      const int64_t group = task / parts.count, part = task % parts.count;
      store(group, parts.begin(part), parts.length(part), dweight, beta);
    });
  }

 private:
  static constexpr int64_t kLanes = PatchReader<T>::kLanes;
  static constexpr int64_t kTasks = 16, kMostBlocks = 8, kFewestRows = 192;
  static constexpr int64_t kPartial = 1 << 22;  // numbers of all slices
  static constexpr int64_t kPixels = 256;       // multiplied at a time …
  static constexpr int64_t kMostPixels = 4096;  // … or, with few filters, read at a time
  // Numbers of patches: in the second level of the cache.
  static constexpr int64_t kPacked = 1 << 15;

  int64_t group_size() const {
    return channels_ * taps_ * filters_;
  }
  int64_t rows_of_a_step() const {
    return std::max<int64_t>(kPixels / std::max<int64_t>(grid_.columns.outputs, 1), 1);
  }
  // Blocks of channels read dy once more each, slices add up the weight once more: some of both.
  int64_t longest_block() const {
    const int64_t fewest = few_ ? 1 : std::max<int64_t>(kFewestRows / taps_, 1);
    const int64_t wanted = few_ ? kTasks : kMostBlocks;
    return std::max(fewest, (channels_ * groups_ + wanted - 1) / wanted);
  }
  int64_t longest_slice() const {
    const int64_t rows = x_.size(0) * grid_.rows.outputs;
    const int64_t all = std::max<int64_t>(groups_ * group_size(), 1);
    const int64_t slices = std::clamp<int64_t>(
        kPartial / all, 1, (kTasks + groups_ * blocks_.count - 1) / (groups_ * blocks_.count));
    return std::max((rows + slices - 1) / slices, rows_of_a_step());
  }

  // Pixels [begin, end) of the batch, those of one image at a time: body(image, first pixel in the
  // image, first pixel of all, count).
  template <class Body>
  void for_each_image(int64_t begin, int64_t end, const Body& body) const {
    for (int64_t pixel = begin; pixel < end;) {
      const int64_t image = pixel / grid_.pixels(), first = pixel % grid_.pixels();
      const int64_t count = std::min(grid_.pixels() - first, end - pixel);
      body(image, first, pixel - begin, count);
      pixel += count;
    }
  }
  MatrixView gradients(int64_t image, int64_t group) const {
    const int64_t offset = (image * dy_.size(1) + group * filters_) * grid_.pixels();
    return {static_cast<std::byte*>(dy_.data()) + offset * size_of(dy_.dtype()), dy_.dtype(),
            grid_.pixels(), 1};
  }

  // own (channels · taps, filters) from channels of the block: patches, by rows, times dy, packed.
  void multiply(int64_t slice, int64_t group, int64_t block, T* own) {
    thread_local Workspace<T> gradient_memory, converted;
    PatchReader<T> reader(x_, grid_);
    const int64_t first = blocks_.begin(block), last = blocks_.begin(block + 1);
    std::fill(own + first * taps_ * filters_, own + last * taps_ * filters_, T(0));
    const int64_t width = panel_width<T>(filters_), columns = grid_.columns.outputs;
    const int64_t panels = (filters_ + width - 1) / width;
    const EvenParts steps(slices_.length(slice), rows_of_a_step());
    const int64_t longest = steps.longest() * columns;
    T* const packed = gradient_memory.reserve(panels * width * longest);
    const EvenParts parts(last - first, std::max<int64_t>(kPacked / (taps_ * longest), 1));
    for (int64_t step = 0; step < steps.count; ++step) {
      const int64_t begin = (slices_.begin(slice) + steps.begin(step)) * columns;
      const int64_t count = steps.length(step) * columns;
      for_each_image(
          begin, begin + count, [&](int64_t image, int64_t pixel, int64_t place, int64_t length) {
            const Block<const T> given = block_of(gradients(image, group), 0, pixel, filters_,
                                                  length, converted.reserve(filters_ * length));
            pack_gradients(given, length, count, place, packed);
          });
      reader.select(begin, begin + count);
      const auto runs = reader.runs();
      for (int64_t part = 0; part < parts.count; ++part) {
        const int64_t channel = first + parts.begin(part);
        reader.load(group * channels_ + channel, parts.length(part));
        multiply_step(reader, runs, parts.length(part), count, packed,
                      own + channel * taps_ * filters_);
      }
    }
  }
  // sums (channels · taps, filters) += the loaded channels' patches, by rows, times dy, packed.
  void multiply_step(PatchReader<T>& reader, std::span<const typename PatchReader<T>::Line> runs,
                     int64_t channels, int64_t count, const T* packed, T* sums) const {
    const int64_t panel = panel_width<T>(filters_) * count, rows = channels * taps_;
    if constexpr (std::is_same_v<T, float>) {
      if (worth_reading_runs(count / static_cast<int64_t>(runs.size())))
        return multiply_runs(reader, runs, channels, filters_, packed, panel, sums);
    }
    thread_local Workspace<T> memory;
    T* const patches = memory.reserve(rows * count + PatchReader<T>::kRoundUp);
    reader.pack(channels, count, patches, rows * count);
    multiply_panels(rows, filters_, count, {patches, count, false}, packed, panel, sums, filters_);
  }
  // dy (filters, length) of pixels from `place` on, out of `count`, as the panels' rows.
  void pack_gradients(Block<const float> given, int64_t length, int64_t count, int64_t place,
                      float* packed) const {
    const int64_t width = micro_kernel().columns;
    for (int64_t filter = 0; filter < filters_; filter += width)
      pack_b(length, std::min(width, filters_ - filter), given.from(filter, 0).flipped(),
             packed + filter * count + place * width);
  }
  void pack_gradients(Block<const double> given, int64_t length, int64_t, int64_t place,
                      double* packed) const {
    for (int64_t i = 0; i < length; ++i)
      for (int64_t filter = 0; filter < filters_; ++filter)
        packed[(place + i) * filters_ + filter] = *given.from(filter, i).data;
  }

  // own (filters, channels · taps) from channels of the block: a register for each tap.
  void multiply_few(int64_t slice, int64_t group, int64_t block, T* own) {
    thread_local Workspace<T> converted;
    PatchReader<T> reader(x_, grid_);
    const int64_t first = blocks_.begin(block), count = blocks_.length(block);
    const int64_t columns = grid_.columns.outputs;
    std::vector<T> sums(static_cast<size_t>(filters_ * count * taps_ * kLanes));
    const EvenParts steps(slices_.length(slice), std::max<int64_t>(kMostPixels / columns, 1));
    for (int64_t step = 0; step < steps.count; ++step) {
      const int64_t begin = (slices_.begin(slice) + steps.begin(step)) * columns;
      const int64_t end = begin + steps.length(step) * columns;
      reader.select(begin, end);
      reader.load(group * channels_ + first, count);
      size_t line = 0;
      for_each_image(begin, end, [&](int64_t image, int64_t pixel, int64_t, int64_t length) {
        const Block<const T> given = block_of(gradients(image, group), 0, pixel, filters_, length,
                                              converted.reserve(filters_ * length));
        const auto part = static_cast<size_t>(length / columns);
        for (int64_t c = 0; c < count; ++c)
          for (int64_t filter = 0; filter < filters_; ++filter)
            multiply_lines(reader, std::span(reader.lines()).subspan(line, part), c,
                           given.from(filter, 0).data,
                           sums.data() + (filter * count + c) * taps_ * kLanes);
        line += part;
      });
    }
    for (int64_t filter = 0; filter < filters_; ++filter)
      for (int64_t i = 0; i < count * taps_; ++i) {
        const T* const sum = sums.data() + (filter * count * taps_ + i) * kLanes;
        T total = 0;
        for (int64_t lane = 0; lane < kLanes; ++lane) total += sum[lane];
        own[(filter * channels_ + first) * taps_ + i] = total;
      }
  }
  void multiply_lines(const PatchReader<T>& reader,
                      std::span<const typename PatchReader<T>::Line> lines, int64_t channel,
                      const T* dy, T* sums) const {
    const T* const x = reader.data() + channel * reader.channel_pitch();
    const EvenParts parts(taps_, kMostTaps);
    for (int64_t part = 0; part < parts.count; ++part)
      kMultiplyTaps<T>[static_cast<size_t>(parts.length(part) - 1)](
          lines, dy, x, reader.taps().data() + parts.begin(part),
          sums + parts.begin(part) * kLanes);
  }

  // The gradients of some filters of a group.
  void store(int64_t group, int64_t first, int64_t filters, const Array& dweight, float beta) {
    thread_local Workspace<T> memory;
    const int64_t patch = channels_ * taps_;
    T* rows = partial_.reserve(0) + group * group_size() + first * patch;
    if (!few_) {
      const T* const own = partial_.data() + group * group_size() + first;
      rows = memory.reserve(filters * patch);
      transpose(filters, patch, own, filters_, rows);
    }
    store_with_beta(rows, filters * patch,
                    static_cast<std::byte*>(dweight.data()) +
                        (group * filters_ + first) * patch * size_of(dweight.dtype()),
                    dweight.dtype(), 1, beta);
  }

  const Array& x_;
  const PatchGrid& grid_;
  int64_t groups_;
  const Array& dy_;
  int64_t channels_, filters_, taps_;  // of a group; of a channel's kernel
  bool few_;
  EvenParts blocks_;  // of a group's channels
  EvenParts slices_;  // of the rows of all output images
  Workspace<T> partial_;
};

}  // namespace

template <class T>
void patch_weight_gradient(const Array& x, const PatchGrid& grid, int64_t groups, const Array& dy,
                           const Array& dweight, float beta) {
  WeightGradient<T>(x, grid, groups, dy).run(dweight, beta);
}

template void patch_weight_gradient<float>(const Array&, const PatchGrid&, int64_t, const Array&,
                                           const Array&, float);
template void patch_weight_gradient<double>(const Array&, const PatchGrid&, int64_t, const Array&,
                                            const Array&, float);

}  // namespace binade::kernels::cpu
