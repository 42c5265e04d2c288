// Rearranged copies and their gradients: a thread writes 16 bytes, part of one row or of several.
// What of a row it takes lies in one run of x, wherever that begins, forwards or backwards: two
// 16-byte accesses, shifted together.
#include <bit>

#include <binade/core/half.h>
#include <binade/core/kernels/cuda/common/layout.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/unaligned.cuh>

namespace binade::kernels::cuda {

namespace {

// Dimensions of the contiguous side, out or dx, from the last one on; the other side has strides.
// Index is int32_t where all sizes and positions are narrow.
template <class Index>
struct Axes {
  int dims = 0;
  Index sizes[kMaxDims] = {};  // of the contiguous side
  FastDivisor divisors[kMaxDims];
  int64_t strides[kMaxDims] = {};  // of the other one
  AxisMap maps[kMaxDims];
  FastDivisor repeats[kMaxDims];

  static __device__ __forceinline__ Index quotient(Index n, Index by, FastDivisor divisor) {
    if constexpr (sizeof(Index) == 8) return n / by;
    const auto value = static_cast<uint32_t>(n);
    return static_cast<Index>((__umulhi(value, divisor.multiplier) + value) >> divisor.shift);
  }
  __device__ __forceinline__ Index divide(Index n, int d) const {
    return quotient(n, sizes[d], divisors[d]);
  }
  __device__ __forceinline__ Index unrepeated(Index i, int d) const {
    if (maps[d].repeats == 1) return i;
    return quotient(i, static_cast<Index>(maps[d].repeats), repeats[d]);
  }
  __device__ __forceinline__ Index source(Index i, int d) const {
    const AxisMap& map = maps[d];
    const Index step = unrepeated(i, d), offset = static_cast<Index>(map.offset);
    return position_for(map.reversed ? offset - step : step + offset, static_cast<Index>(map.size),
                        map.beyond);
  }
  // Where row `row` of out begins in x; −1 where it takes nothing from there.
  __device__ __forceinline__ int64_t row_offset(Index row) const {
    int64_t offset = 0;
    bool outside = false;
    for (int d = 1; d < dims; ++d) {
      const Index rest = d + 1 < dims ? divide(row, d) : 0;
      const Index at = source(row - rest * sizes[d], d);
      outside |= at < 0;
      offset += at * strides[d];
      row = rest;
    }
    return outside ? -1 : offset;
  }
};

// Elements [first, last) of `result`, of a row that begins at `from` (null: it takes nothing from
// x); element `first` is the row's number `column`.
template <class Index, class T>
__device__ __forceinline__ void take_run(const Axes<Index>& axes, const T* from, Index column,
                                         int first, int last, T number,
                                         Vec<T, kVecWidth<T>>& result) {
  constexpr int kVec = kVecWidth<T>;
  const AxisMap& map = axes.maps[0];
  const Index size = static_cast<Index>(map.size), offset = static_cast<Index>(map.offset);
  int begin = last, end = last;  // what comes of the run
  const bool is_run = from != nullptr && axes.strides[0] == 1 && map.repeats == 1;
  if (is_run) {
    // Position `start` + i, or `start` − i, is element i's.
    Index start = map.reversed ? offset - column + first : column - first + offset;
    if (map.beyond == Beyond::other_side && !map.reversed) {  // to where the run has most
      if (start + first >= size) start -= size;
      if (start + last <= 0) start += size;
    }
    const Index least = map.reversed ? start - size + 1 : -start;
    const Index limit = map.reversed ? start + 1 : size - start;
    begin = static_cast<int>(min(max(Index{first}, least), Index{last}));
    end = static_cast<int>(max(min(Index{last}, limit), Index{begin}));
    if (map.reversed) {
      const auto run = load_unaligned(from + start - (kVec - 1), kVec - end, kVec - begin);
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (i >= begin && i < end) result[i] = run[kVec - 1 - i];
    } else {
      const auto run = load_unaligned(from + start, begin, end);
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (i >= begin && i < end) result[i] = run[i];
    }
    if (begin == first && end == last) return;
  } else if (from != nullptr && axes.strides[0] == 1 && !map.reversed &&
             map.beyond == Beyond::number && offset == 0) {
    // Each of the run's elements comes `repeats` times, the first one what is left of it.
    const Index start = axes.unrepeated(column, 0), repeats = static_cast<Index>(map.repeats);
    Index came = column - start * repeats;
    auto run = load_unaligned(from + start, 0, static_cast<int>(min(Index{kVec}, size - start)));
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      if (i < first || i >= last) continue;
      result[i] = run[0];
      if (++came < repeats) continue;
      came = 0;
#pragma unroll
      for (int k = 0; k + 1 < kVec; ++k) run[k] = run[k + 1];
    }
    return;
  }
  const auto value_at = [&](int i) {
    const Index at = axes.source(column + (i - first), 0);
    return at < 0 ? number : from[at * axes.strides[0]];
  };
  if (from == nullptr || (is_run && map.beyond == Beyond::number)) {
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i >= first && i < last && (i < begin || i >= end)) result[i] = number;
  } else if (is_run) {  // mostly an element or two
#pragma unroll 1
    for (int place = first; place < last; ++place) {
      if (place >= begin && place < end) continue;
      const T value = value_at(place);
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (i == place) result[i] = value;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i >= first && i < last) result[i] = value_at(i);
  }
}

// Writes vector `item` of out, whose first `before` elements lie outside it. T is as wide as an
// element, whatever the bits mean. whole: only if no row ends in it.
template <class Index, class T>
__device__ __forceinline__ void write_vector(const Axes<Index>& axes, Index numel, int before,
                                             Index item, bool whole, T number, const T* x, T* out) {
  constexpr int kVec = kVecWidth<T>;
  int first = item == 0 ? before : 0;
  const Index place = item * kVec - before + first;  // of element `first`
  const int last = static_cast<int>(min(Index{kVec}, numel - place + first)), head = first;
  Index row = axes.divide(place, 0);
  Index column = place - row * axes.sizes[0];
  if (whole && column + (last - first) > axes.sizes[0]) return;
  Vec<T, kVec> result;
  while (true) {
    const int64_t start = axes.row_offset(row);
    const int end = static_cast<int>(min(Index{last}, axes.sizes[0] - column + first));
    take_run(axes, start < 0 ? nullptr : x + start, column, first, end, number, result);
    if (end == last) break;
    first = end;
    column = 0;
    ++row;
  }
  T* const to = out + (item * kVec - before);
  if (last - head == kVec) {
    store_vec(to, result);
  } else {
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i >= head && i < last) to[i] = result[i];
  }
}

// Elements outside out of the first vector, where `lead` of out lie before its first whole one.
template <class T>
__host__ __device__ constexpr int before_first(int lead) {
  return lead == 0 ? 0 : kVecWidth<T> - lead;
}

template <class Index, class T>
__global__ void __launch_bounds__(kBlock)
    rearrange_kernel(const __grid_constant__ Axes<Index> axes, Index numel, int lead, T number,
                     const T* x, T* out) {
  constexpr int kVec = kVecWidth<T>;
  const int before = before_first<T>(lead);
  const Index items = (numel + before + kVec - 1) / kVec;
  const Index step = static_cast<Index>(gridDim.x * kBlock);
  for (Index item = static_cast<Index>(blockIdx.x * kBlock + threadIdx.x); item < items;
       item += step)
    write_vector(axes, numel, before, item, false, number, x, out);
}

// The same for rows of at least two vectors that begin beside them. A vector in which a row ends
// takes two runs of x, for which its whole warp would wait: a block, which has `each` vectors a
// thread, writes those behind the others.
template <class T>
__global__ void __launch_bounds__(kBlock)
    rearrange_ends_kernel(const __grid_constant__ Axes<int32_t> axes, int32_t numel, int lead,
                          int each, T number, const T* x, T* out) {
  constexpr int kVec = kVecWidth<T>;
  const int before = before_first<T>(lead), items = (numel + before + kVec - 1) / kVec;
  const int begin = static_cast<int>(blockIdx.x) * (each * kBlock);
  const int stop = min(items, begin + each * kBlock), width = axes.sizes[0];
  const auto row_of = [&](int item) {  // that its first element in out is of
    return axes.divide(max(0, min(numel - 1, item * kVec - before)), 0);
  };
  const int first_row = row_of(begin), last_row = row_of(stop);
  for (int turn = 0;; ++turn) {
    const bool has_end = turn >= each;
    int item = begin + turn * kBlock + static_cast<int>(threadIdx.x);
    if (has_end) {
      const int rows = first_row + (turn - each) * kBlock;
      if (rows >= last_row) break;
      const int end = min(rows + static_cast<int>(threadIdx.x), last_row) * width + width;
      item = end >= numel || (end + before) % kVec == 0 ? stop : (end + before) / kVec;
    }
    if (item < stop) write_vector(axes, numel, before, item, !has_end, number, x, out);
  }
}

template <class Index>
struct OutputSizes {
  Index sizes[kMaxDims] = {};
};

// Where the tth combination of readers of row `row` of dx begins in dy, and how many there are.
template <class Index>
__device__ __forceinline__ int64_t reader_of_row(const Axes<Index>& axes,
                                                 const OutputSizes<Index>& outputs, Index row,
                                                 int64_t t, int64_t& combinations) {
  int64_t offset = 0;
  combinations = 1;
  for (int d = 1; d < axes.dims; ++d) {
    const Index rest = d + 1 < axes.dims ? axes.divide(row, d) : 0;
    const AxisReaders<Index> readers(axes.maps[d], row - rest * axes.sizes[d], outputs.sizes[d]);
    const Index count = readers.count();
    Index k = 0;
    if (count > 1) {
      k = static_cast<Index>(t % count);
      t /= count;
    }
    offset += readers.at(k) * axes.strides[d];
    combinations *= count;
    row = rest;
  }
  return offset;
}

// Adds to element i of `sum` what the line of dy holds of element column + i of its row of dx.
template <int kRun, class Index, class T>
__device__ __forceinline__ void add_line(const Axes<Index>& axes, Index width, const T* line,
                                         Index column, ComputeOf<T> (&sum)[kRun]) {
  const AxisMap& map = axes.maps[0];
  const Index size = static_cast<Index>(map.size), front = static_cast<Index>(-map.offset);
  const Index start = column + front;
  // Only elements as near to an edge as the padding is wide have readers beside their own.
  const Index margin = max(front, width - size - front);
  const bool own_run =
      kRun == kVecWidth<T> && axes.strides[0] == 1 && start >= 0 && start + kRun <= width;
  if constexpr (kRun == kVecWidth<T>) {
    if (own_run) {
      const auto run = load_unaligned(line + start, 0, kRun);
#pragma unroll
      for (int i = 0; i < kRun; ++i) sum[i] += widen(run[i]);
      if (margin <= 0 || (column > margin && column + kRun + margin < size)) return;
    }
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const Index j = column + i;
    if (own_run && j > margin && j + margin < size - 1) continue;
    const AxisReaders<Index> readers(map, j, width);
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      if (own_run && part == 1) continue;
      for (Index k = readers.begin[part]; k < readers.end[part]; ++k)
        sum[i] += widen(line[k * axes.strides[0]]);
    }
  }
}

// Rows of dx hold whole runs.
template <int kRun, class Index, class T>
__global__ void __launch_bounds__(kBlock)
    rearrange_backward_kernel(const __grid_constant__ Axes<Index> axes,
                              const __grid_constant__ OutputSizes<Index> outputs, Index numel,
                              const T* dy, T* dx) {
  const Index step = static_cast<Index>(gridDim.x * kBlock);
  for (Index item = static_cast<Index>(blockIdx.x * kBlock + threadIdx.x); item < numel / kRun;
       item += step) {
    const Index row = axes.divide(item * kRun, 0), column = item * kRun - row * axes.sizes[0];
    ComputeOf<T> sum[kRun];
#pragma unroll
    for (auto& s : sum) s = 0;
    int64_t combinations = 1;
    for (int64_t t = 0; t < combinations; ++t) {
      const int64_t line = reader_of_row(axes, outputs, row, t, combinations);
      if (combinations > 0) add_line<kRun>(axes, outputs.sizes[0], dy + line, column, sum);
    }
    Vec<T, kRun> result;
#pragma unroll
    for (int i = 0; i < kRun; ++i) result[i] = narrow<T>(sum[i]);
    store_vec(dx + item * kRun, result);
  }
}

// Whether a dimension of these sizes is copied as it is.
bool is_whole(const AxisMap& map, int64_t size, int64_t other) {
  return map.size == size && other == size && map.offset == 0 && map.repeats == 1 && !map.reversed;
}

// Sizes of the contiguous side and of the other one, its strides, and the maps between them, from
// the last dimension on. Dimensions that are copied whole, and lie behind each other on the other
// side, are one.
struct WideAxes {
  int dims = 0;
  int64_t sizes[kMaxDims], others[kMaxDims], strides[kMaxDims];
  AxisMap maps[kMaxDims];

  WideAxes(const Array& contiguous, const Array& other, std::span<const AxisMap> all) {
    for (int d = contiguous.dims() - 1; d >= 0; --d) {
      const AxisMap& map = all[static_cast<size_t>(d)];
      const int64_t size = contiguous.size(d);
      const int last = dims - 1;
      if (last >= 0 && is_whole(map, size, other.size(d)) &&
          is_whole(maps[last], sizes[last], others[last]) &&
          other.stride(d) == strides[last] * sizes[last]) {
        maps[last].size = others[last] = sizes[last] *= size;
        continue;
      }
      maps[dims] = map;
      sizes[dims] = size;
      others[dims] = other.size(d);
      strides[dims++] = other.stride(d);
    }
    if (dims > 0) return;
    dims = 1;  // a single element
    sizes[0] = others[0] = strides[0] = maps[0].size = 1;
  }

  // Whether positions and sums of a few of them are 32-bit numbers.
  bool narrow(int64_t numel) const {
    constexpr int64_t kMost = int64_t{1} << 29;
    bool result = numel <= INT32_MAX - 64;
    for (int d = 0; d < dims; ++d)
      result &= std::max({sizes[d], others[d], maps[d].size, maps[d].offset, -maps[d].offset,
                          maps[d].repeats}) <= kMost;
    return result;
  }

  template <class Index>
  Axes<Index> as() const {
    Axes<Index> axes;
    axes.dims = dims;
    for (int d = 0; d < dims; ++d) {
      axes.sizes[d] = static_cast<Index>(sizes[d]);
      axes.strides[d] = strides[d];
      axes.maps[d] = maps[d];
      if constexpr (sizeof(Index) == 4) {
        axes.divisors[d] = FastDivisor::of(sizes[d]);
        axes.repeats[d] = FastDivisor::of(maps[d].repeats);
      }
    }
    return axes;
  }
};

template <class T>
void rearrange_bits(const Array& x, std::span<const AxisMap> maps, T number, const Array& out) {
  const WideAxes axes(out, x, maps);
  T* const to = device_data<T>(out);
  const auto behind = static_cast<int>(reinterpret_cast<uintptr_t>(to) % 16);
  const int lead = behind == 0 ? 0 : (16 - behind) / static_cast<int>(sizeof(T));
  const int64_t items = ceil_div(out.numel(), kVecWidth<T>) + 1;
  const T* const from = device_data<const T>(x);
  const bool narrow = axes.narrow(out.numel());
  if constexpr (sizeof(T) == 2 || sizeof(T) == 4) {  // others are too rare for a kernel
    constexpr int kVec = kVecWidth<T>;
    if (narrow && axes.sizes[0] >= 2 * kVec && (lead != 0 || axes.sizes[0] % kVec != 0)) {
      constexpr int64_t kManyThreads = int64_t{1} << 18;
      const auto each = static_cast<int>(std::clamp<int64_t>(items / kManyThreads, 1, 8));
      return launch("rearrange", rearrange_ends_kernel<T>,
                    one_block_each(ceil_div(items, int64_t{each} * kBlock)), kBlock, 0,
                    axes.as<int32_t>(), static_cast<int32_t>(out.numel()), lead, each, number, from,
                    to);
    }
  }
  const auto run = [&]<class Index>(Index numel) {
    launch("rearrange", rearrange_kernel<Index, T>, grid_for(items), kBlock, 0, axes.as<Index>(),
           numel, lead, number, from, to);
  };
  narrow ? run(static_cast<int32_t>(out.numel())) : run(out.numel());
}

template <class T>
void typed_rearrange_backward(const Array& dy, std::span<const AxisMap> maps, const Array& dx) {
  const WideAxes axes(dx, dy, maps);
  constexpr int kVec = kVecWidth<T>;
  const bool runs = axes.sizes[0] % kVec == 0 && rows_aligned(dx.data(), 0, 1);
  const unsigned grid = grid_for(runs ? dx.numel() / kVec : dx.numel());
  const auto run = [&]<class Index>(Index numel) {
    OutputSizes<Index> outputs;
    for (int d = 0; d < axes.dims; ++d) outputs.sizes[d] = static_cast<Index>(axes.others[d]);
    const auto kernel = [&] {  // 64-bit positions are too rare for a kernel of vectors
      if constexpr (sizeof(Index) == 4)
        if (runs) return rearrange_backward_kernel<kVec, Index, T>;
      return rearrange_backward_kernel<1, Index, T>;
    }();
    launch("rearrange_backward", kernel, grid, kBlock, 0, axes.as<Index>(), outputs, numel,
           device_data<const T>(dy), device_data<T>(dx));
  };
  axes.narrow(dx.numel()) ? run(static_cast<int32_t>(dx.numel())) : run(dx.numel());
}

}  // namespace

void rearrange(const Array& x, std::span<const AxisMap> maps, double number, const Array& out) {
  if (out.numel() == 0) return;
  switch (out.dtype()) {
    case DType::f64:
      return rearrange_bits(x, maps, std::bit_cast<uint64_t>(number), out);
    case DType::f32:
      return rearrange_bits(x, maps, std::bit_cast<uint32_t>(static_cast<float>(number)), out);
    case DType::f16:
      return rearrange_bits(x, maps, Half(static_cast<float>(number)).bits, out);
    case DType::bf16:
      return rearrange_bits(x, maps, BFloat16(static_cast<float>(number)).bits, out);
    case DType::i64:
      return rearrange_bits(x, maps, static_cast<uint64_t>(static_cast<int64_t>(number)), out);
    case DType::i32:
      return rearrange_bits(x, maps, static_cast<uint32_t>(static_cast<int32_t>(number)), out);
    case DType::u8:
      return rearrange_bits(x, maps, static_cast<uint8_t>(number), out);
    case DType::boolean:
      return rearrange_bits(x, maps, static_cast<uint8_t>(number != 0), out);
  }
}

void rearrange_backward(const Array& dy, std::span<const AxisMap> maps, const Array& dx) {
  if (dx.numel() == 0) return;
  visit_floating(dx.dtype(), "rearrange_backward", [&](auto tag) {
    typed_rearrange_backward<DeviceOf<decltype(tag)>>(dy, maps, dx);
  });
}

}  // namespace binade::kernels::cuda
