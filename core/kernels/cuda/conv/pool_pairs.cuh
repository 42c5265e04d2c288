// Pooling with windows of two columns that lie side by side, the usual ones: a thread has a 16-byte
// vector of outputs and the two vectors of inputs of each row that belong to it. Rows are windows
// of any kind, from the tables.
#pragma once

#include <binade/core/kernels/cuda/conv/axis_tables.cuh>

namespace binade::kernels::cuda {

// Whether output column c covers input columns 2c and 2c + 1, and rows of outputs are whole
// vectors. outputs: arrays of y's shape.
template <int kVec>
bool pools_pairs(const PoolParams& params, const Array& x,
                 std::initializer_list<const Array*> outputs) {
  const bool by_two = params.adaptive || (params.kernel_w == 2 && params.stride_w == 2 &&
                                          params.padding_w == 0 && params.dilation_w == 1);
  bool aligned = rows_aligned(x.data(), 0, 1);
  for (const Array* y : outputs)
    aligned &=
        rows_aligned(y->data(), 0, 1) && x.size(3) == 2 * y->size(3) && y->size(3) % kVec == 0;
  return by_two && aligned;
}

// kVec neighbouring pairs of a row.
template <int kVec, class T>
struct PairLine {
  Vec<T, kVec> half[2];
  PairLine() = default;
  __device__ __forceinline__ explicit PairLine(const T* data)
      : half{load_vec<kVec>(data), load_vec<kVec>(data + kVec)} {}
  __device__ __forceinline__ auto operator()(int pair, int side) const {
    const int i = 2 * pair + side;
    return widen(half[i / kVec][i % kVec]);
  }
};

// Calls take(line, row of x) for the rows of a window, two of them read at once.
template <int kVec, class T, class Take>
__device__ __forceinline__ void walk_pairs(const Window& rows, int width, const T* image,
                                           const Take& take) {
  for (int64_t h = rows.begin; h < rows.end; h += int64_t{2} * rows.step) {
    const bool has_second = h + rows.step < rows.end;
    const PairLine<kVec, T> first(image + h * width);
    PairLine<kVec, T> second;
    if (has_second) second = PairLine<kVec, T>(image + (h + rows.step) * width);
    take(first, static_cast<int>(h));
    if (has_second) take(second, static_cast<int>(h + rows.step));
  }
}

template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    max_pairs_forward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables,
                      const T* x, T* y, int32_t* indices) {
  using C = ComputeOf<T>;
  grid.for_each<kVec>([&](int64_t plane, int row, int column) {
    const Window rows = tables.rows[row];
    C largest[kVec];
    Vec<int32_t, kVec> best;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      largest[i] = -static_cast<C>(INFINITY);
      best[i] = rows.begin < rows.end ? rows.begin * sizes.width + 2 * (column + i) : -1;
    }
    walk_pairs<kVec>(rows, sizes.width, x + plane * sizes.height * sizes.width + 2 * column,
                     [&](const PairLine<kVec, T>& line, int h) {
#pragma unroll
                       for (int i = 0; i < kVec; ++i)
#pragma unroll
                         for (int side = 0; side < 2; ++side) {
                           const C value = line(i, side);
                           if (!(value > largest[i]) && value == value) continue;  // NaN wins
                           largest[i] = value;
                           best[i] = h * sizes.width + 2 * (column + i) + side;
                         }
                     });
    const int64_t output = (plane * sizes.out_height + row) * sizes.out_width + column;
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) result[i] = narrow<T>(largest[i]);
    store_vec(y + output, result);
    constexpr int kPiece = kVec < 4 ? kVec : 4;
#pragma unroll
    for (int i = 0; i < kVec; i += kPiece)
      store_vec(indices + output + i, reinterpret_cast<const Vec<int32_t, kPiece>&>(best[i]));
  });
}

template <int kVec, class T>
__global__ void __launch_bounds__(kBlock)
    mean_pairs_forward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables,
                       const T* x, T* y) {
  using C = ComputeOf<T>;
  grid.for_each<kVec>([&](int64_t plane, int row, int column) {
    const Window rows = tables.rows[row];
    C sum[kVec];
#pragma unroll
    for (C& s : sum) s = 0;
    walk_pairs<kVec>(rows, sizes.width, x + plane * sizes.height * sizes.width + 2 * column,
                     [&](const PairLine<kVec, T>& line, int) {
#pragma unroll
                       for (int i = 0; i < kVec; ++i) sum[i] += line(i, 0) + line(i, 1);
                     });
    const C count = static_cast<C>(int64_t{2} * rows.count);
    Vec<T, kVec> result;
#pragma unroll
    for (int i = 0; i < kVec; ++i) result[i] = narrow<T>(sum[i] / count);
    store_vec(y + (plane * sizes.out_height + row) * sizes.out_width + column, result);
  });
}

// What a row of outputs gives to the rows of dx that it covers: a Line is read once for all of
// them.
template <int kVec, class T>
struct MaxPairs {
  using C = ComputeOf<T>;
  const T* dy;
  const int32_t* indices;
  struct Line {
    Vec<T, kVec> given;
    Vec<int32_t, kVec> best;
  };
  __device__ __forceinline__ Line read(int64_t output, int) const {
    constexpr int kPiece = kVec < 4 ? kVec : 4;
    Line line;
    line.given = load_vec<kVec>(dy + output);
#pragma unroll
    for (int i = 0; i < kVec; i += kPiece) {
      const auto piece = load_vec<kPiece>(indices + output + i);
#pragma unroll
      for (int k = 0; k < kPiece; ++k) line.best[i + k] = piece[k];
    }
    return line;
  }
  // place: of the first of the 2·kVec neighbours.
  __device__ __forceinline__ void give(const Line& line, int place, C (&sum)[2 * kVec]) const {
#pragma unroll
    for (int i = 0; i < 2 * kVec; ++i)
      if (line.best[i / 2] == place + i) sum[i] += widen(line.given[i / 2]);
  }
};
template <int kVec, class T>
struct MeanPairs {
  using C = ComputeOf<T>;
  const T* dy;
  struct Line {
    C share[kVec];
  };
  __device__ __forceinline__ Line read(int64_t output, int rows) const {
    const auto given = load_vec<kVec>(dy + output);
    Line line;
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      line.share[i] = widen(given[i]) / static_cast<C>(int64_t{2} * rows);
    return line;
  }
  __device__ __forceinline__ void give(const Line& line, int, C (&sum)[2 * kVec]) const {
#pragma unroll
    for (int i = 0; i < 2 * kVec; ++i) sum[i] += line.share[i / 2];
  }
};

// A thread has 2·kVec columns of kPairRows rows of dx. grid: of the outputs' columns.
inline constexpr int kPairRows = 4;
template <int kVec, class Rule, class T>
__global__ void __launch_bounds__(kBlock)
    pairs_backward(const RunGrid grid, const ImageSizes sizes, const PoolTables tables,
                   const Rule rule, T* dx) {
  using C = ComputeOf<T>;
  grid.for_each<kVec>([&](int64_t plane, int group, int column) {
    typename Rule::Line line;
    int in_line = -1;  // the row of outputs that `line` is of
    for (int r = 0; r < kPairRows; ++r) {
      const int row = group * kPairRows + r;
      if (row >= sizes.height) break;
      const Cover cover = tables.row_covers[row];
      C sum[2 * kVec];
#pragma unroll
      for (C& s : sum) s = 0;
      for (int oh = cover.begin; oh < cover.end; ++oh) {
        if (oh != in_line)
          line = rule.read((plane * sizes.out_height + oh) * sizes.out_width + column,
                           tables.rows[oh].count);
        in_line = oh;
        rule.give(line, row * sizes.width + 2 * column, sum);
      }
      T* const to = dx + (plane * sizes.height + row) * sizes.width + 2 * column;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Vec<T, kVec> result;
#pragma unroll
        for (int i = 0; i < kVec; ++i) result[i] = narrow<T>(sum[half * kVec + i]);
        store_vec(to + half * kVec, result);
      }
    }
  });
}

template <int kVec, template <int, class> class Rule, class T>
void run_pairs_backward(const char* name, const ImageSizes& sizes, const PoolTables& tables,
                        const Rule<kVec, T>& rule, const Array& dx) {
  const int64_t groups = ceil_div(sizes.height, kPairRows);
  const RunGrid grid(dx.size(0) * dx.size(1) * groups * sizes.out_width, groups, sizes.out_width,
                     kVec);
  launch(name, pairs_backward<kVec, Rule<kVec, T>, T>, grid_for(grid.items), kBlock, 0, grid, sizes,
         tables, rule, device_data<T>(dx));
}

}  // namespace binade::kernels::cuda
