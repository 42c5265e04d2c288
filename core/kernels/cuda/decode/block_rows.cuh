// What the kernels for halves of a layer share (private to this folder): rows that a cluster of
// blocks adds up and norms, and multiplications with weights in shared memory.
#pragma once

#include <binade/core/kernels/cuda/decode/cluster.cuh>
#include <binade/core/kernels/cuda/decode/mma_rows.cuh>

namespace binade::kernels::cuda {

inline constexpr int kBlockWarps = 8, kBlockThreads = kBlockWarps * kWarp;

// Rows of a residual stream, in parts, and the norm that they go through.
template <class T>
struct StreamRows {
  const T* x;          // (rows, columns)
  const float* parts;  // (part_count, rows, columns)
  int part_count;
  const float* norm;
  float eps;
  T* sum;  // where the rows go, added up; x where they are
  int rows, columns;
};

// Steps that cover so many columns.
__host__ __device__ constexpr int steps_of(int columns) {
  return (columns + kStep - 1) / kStep;
}
// Bytes from row to row of halves in shared memory: lanes of two rows next to each other then read
// from all banks.
__host__ __device__ constexpr int row_bytes(int columns) {
  return 2 * kStep * (steps_of(columns) | 1);
}

// Consecutive pieces of shared memory.
struct Pieces {
  int end = 0;
  __host__ __device__ int take(int bytes) {
    const int begin = end;
    end += (bytes + 127) / 128 * 128;
    return begin;
  }
};

// Units of eight rows that kernels are made for: 8, 16 or 64 rows.
inline constexpr int kFewUnits = 2, kMostUnits = 8;
// Blocks on a multiprocessor: what more rows need of registers leaves room for one.
template <int kUnits>
inline constexpr int kBlocksAtOnce = kUnits > kFewUnits ? 1 : 2;
// Warps of a block that share the columns of a tile: in a block's first multiplication, which is
// long and narrow, and in its second. Each leaves results in shared memory.
__host__ __device__ constexpr int first_splits(int units) {
  return units > kFewUnits ? 2 : kBlockWarps;
}
inline constexpr int kSecondSplits = 2;

__host__ __device__ constexpr int result_bytes(int splits, int rows, int tiles) {
  return splits * rows * tiles * kTile * static_cast<int>(sizeof(float));
}

// Of the sums of squares that the norm of rows needs.
__host__ __device__ constexpr int square_bytes(int rows) {
  return rows * kCluster * static_cast<int>(sizeof(float));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// A barrier of kBlockThreads threads: those that multiply, or those that read the cache beside
// them.
enum class Party : int { multiply = 1, attend = 2 };
__device__ __forceinline__ void block_sync(Party party = Party::multiply) {
  asm volatile("bar.sync %0, %1;" ::"r"(static_cast<int>(party)), "n"(kBlockThreads) : "memory");
}

// Copies rows of a weight: row r from row_at(r), or zeros where that is null. Of `columns` so many
// are `there`; zeros follow, up to a whole step.
template <class T, class RowAt>
__device__ __forceinline__ void copy_weight(const T* weight, unsigned char* to, int rows,
                                            int columns, int there, const RowAt& row_at) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int stride = row_bytes(columns), pieces = steps_of(columns) * kStep / 8;
  for (int r = warp; r < rows; r += kBlockWarps) {
    const T* row = row_at(r);
    const uint32_t at = shared_address(to) + r * stride;
    for (int c = lane; c < pieces; c += kWarp) {
      const bool zeros = row == nullptr || c * 8 >= there;
      copy_beside(at + c * 16, zeros ? weight : row + c * 8, zeros);
    }
  }
}
__device__ __forceinline__ void copy_norm(const float* weight, float* to, int columns) {
  for (int i = threadIdx.x; i < columns / 4; i += kBlockThreads)
    copy_beside(shared_address(to + i * 4), weight + i * 4, false);
}

// Zeros behind the columns of rows, up to a whole step.
__device__ __forceinline__ void clear_ends(unsigned char* x, int rows, int columns) {
  const int stride = row_bytes(columns), end = 2 * kStep * steps_of(columns);
  for (int i = threadIdx.x; i < rows * (end - 2 * columns) / 16; i += kBlockThreads) {
    const int each = (end - 2 * columns) / 16;
    *reinterpret_cast<uint4*>(x + i / each * stride + 2 * columns + i % each * 16) =
        make_uint4(0, 0, 0, 0);
  }
}

struct Quotient {
  int quotient, rest;
};
// For 0 ≤ i < 2^20 and n > 0: the error of the division is less than the distance to an integer.
__device__ __forceinline__ Quotient divide(int i, int n) {
  const int q = static_cast<int>(__fdividef(static_cast<float>(i) + 0.5f, static_cast<float>(n)));
  return {q, i - q * n};
}

// Adds up rows of a stream and norms them, in `x` of all blocks of the cluster. A short row alone
// is added up by each block; of others a block adds up its share of the columns, and the blocks
// give each other their squares, then what the norm makes of their columns.
template <class T>
class NormedRows {
 public:
  // weight and `squares`, square_bytes(rows), are in shared memory, as x is.
  __device__ __forceinline__ NormedRows(const StreamRows<T>& rows, int block, bool first_cluster,
                                        const float* weight, float* squares, unsigned char* x)
      : in_(rows),
        rank_(block),
        each_((rows.columns / kRun + kCluster - 1) / kCluster),
        stride_(row_bytes(rows.columns)),
        mean_(1.0f / static_cast<float>(rows.columns)),
        alone_(rows.rows == 1 && rows.columns <= kAlone * kBlockThreads),
        writes_sum_(first_cluster && rows.sum != rows.x && (!alone_ || block == 0)),
        weight_(weight),
        squares_(squares),
        x_(x) {}
  // Whether make() waits for the cluster, twice.
  __device__ __forceinline__ bool together() const { return !alone_; }
  // Behind copies_done() for the weight. All kBlockThreads that multiply; behind it x can be read.
  __device__ __forceinline__ void make() const {
    if (alone_)
      make_alone();
    else
      make_together();
  }

 private:
  static constexpr int kAlone = 4, kRun = 8;  // columns that a thread adds up
  static constexpr int kLanes = 16;           // that take a row together
  static constexpr int kBatch = 4;            // of parts under way at a time

  // The columns from `at` on of the stream, rounded.
  template <int kColumns>
  __device__ __forceinline__ Vec<T, kColumns> add_up(int64_t at) const {
    auto values = load_vec<kColumns>(in_.x + at);
    if (in_.part_count == 0) {
      if (writes_sum_) store_vec(in_.sum + at, values);
      return values;
    }
    constexpr int kBatches = kColumns == kAlone ? 4 : 2;
    const int64_t size = int64_t{in_.rows} * in_.columns;
    float sums[kColumns];
    for (int begin = 0; begin < in_.part_count; begin += kBatch * kBatches) {
      float4 parts[kBatches][kBatch][kColumns / 4];
#pragma unroll
      for (int b = 0; b < kBatches; ++b) {
        if (begin + b * kBatch >= in_.part_count) break;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          const int part = min(begin + b * kBatch + i, in_.part_count - 1);
#pragma unroll
          for (int c = 0; c < kColumns / 4; ++c)
            parts[b][i][c] = reinterpret_cast<const float4*>(in_.parts + part * size + at)[c];
        }
      }
      if (begin == 0) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[c] = widen(values[c]);
      }
#pragma unroll
      for (int b = 0; b < kBatches; ++b) {
        if (begin + b * kBatch >= in_.part_count) break;
#pragma unroll
        for (int i = 0; i < kBatch; ++i) {
          if (begin + b * kBatch + i >= in_.part_count) break;
#pragma unroll
          for (int c = 0; c < kColumns / 4; ++c) {
            sums[4 * c] += parts[b][i][c].x;
            sums[4 * c + 1] += parts[b][i][c].y;
            sums[4 * c + 2] += parts[b][i][c].z;
            sums[4 * c + 3] += parts[b][i][c].w;
          }
        }
      }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[c] = narrow<T>(sums[c]);
    if (writes_sum_) store_vec(in_.sum + at, values);
    return values;
  }
  template <int kColumns>
  __device__ static __forceinline__ float squares_of_run(const Vec<T, kColumns>& values) {
    float sum = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sum += widen(values.value[c]) * widen(values.value[c]);
    return sum;
  }
  template <int kColumns>
  __device__ __forceinline__ void norm(Vec<T, kColumns>& values, float rstd, int column) const {
#pragma unroll
    for (int c = 0; c < kColumns / 4; ++c) {
      const float4 weight = reinterpret_cast<const float4*>(weight_ + column)[c];
      values[4 * c] = narrow<T>(widen(values[4 * c]) * rstd * weight.x);
      values[4 * c + 1] = narrow<T>(widen(values[4 * c + 1]) * rstd * weight.y);
      values[4 * c + 2] = narrow<T>(widen(values[4 * c + 2]) * rstd * weight.z);
      values[4 * c + 3] = narrow<T>(widen(values[4 * c + 3]) * rstd * weight.w);
    }
  }
  // From eight sums of squares.
  __device__ __forceinline__ float rstd_of(const float* squares) const {
    static_assert(kCluster == 8 && kBlockWarps == 8);
    const float4 a = reinterpret_cast<const float4*>(squares)[0],
                 b = reinterpret_cast<const float4*>(squares)[1];
    const float sum = ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
    return rsqrtf(sum * mean_ + in_.eps);
  }

  __device__ __forceinline__ void make_alone() const {
    const int column = threadIdx.x * kAlone;
    const bool mine = column < in_.columns;
    Vec<T, kAlone> values{};
    if (mine) values = add_up<kAlone>(column);
    float sum = mine ? squares_of_run(values) : 0;
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    if (threadIdx.x % kWarp == 0) squares_[threadIdx.x / kWarp] = sum;
    block_sync();
    if (mine) {
      norm(values, rstd_of(squares_), column);
      store_vec(reinterpret_cast<T*>(x_) + column, values);
    }
    block_sync();
  }

  __device__ __forceinline__ void make_together() const {
    constexpr int kRows = kBlockThreads / kLanes;  // at a time
    const int lane = threadIdx.x % kLanes, end = min((rank_ + 1) * each_, in_.columns / kRun);
    const auto place = [&](int row, int run) { return x_ + row * stride_ + run * kRun * 2; };
    for (int first = 0; first < in_.rows; first += kRows) {
      const int row = first + threadIdx.x / kLanes;
      float sum = 0;
      for (int run = rank_ * each_ + lane; run < end && row < in_.rows; run += kLanes) {
        const auto values = add_up<kRun>(int64_t{row} * in_.columns + run * kRun);
        sum += squares_of_run(values);
        *reinterpret_cast<Vec<T, kRun>*>(place(row, run)) =
            values;  // this thread comes back for it
      }
#pragma unroll
      for (int mask = kLanes / 2; mask > 0; mask /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, mask);
      if (lane == 0 && row < in_.rows)
        for_each_block(squares_ + row * kCluster + rank_,
                       [&](uint32_t address) { put_word(address, __float_as_uint(sum)); });
    }
    cluster_sync();
    for (int row = threadIdx.x / kLanes; row < in_.rows; row += kRows) {
      const float rstd = rstd_of(squares_ + row * kCluster);
      for (int run = rank_ * each_ + lane; run < end; run += kLanes) {
        auto values = *reinterpret_cast<Vec<T, kRun>*>(place(row, run));
        norm(values, rstd, run * kRun);
        for_each_block(place(row, run), [&](uint32_t address) {
          put_vector(address, *reinterpret_cast<const uint4*>(&values));
        });
      }
    }
    cluster_sync();
  }

  const StreamRows<T>& in_;
  int rank_, each_, stride_;
  float mean_;
  bool alone_, writes_sum_;
  const float* weight_;
  float* squares_;
  unsigned char* x_;
};
// results[split][row][8 · tiles] of x·weightᵀ, both in shared memory with rows of `stride` bytes:
// the sums of each split's columns.
template <int kUnits, int kSplits, class T>
__device__ __forceinline__ void multiply_rows(const unsigned char* x, int rows,
                                              const unsigned char* weight, int stride, int tiles,
                                              int steps, float* results) {
  // Enough under way at a time to hide what one of them takes.
  constexpr bool kFew = kUnits <= kFewUnits;
  constexpr int kRowTiles = (kUnits + 1) / 2, kTilesAtOnce = kFew ? 4 : 2;
  constexpr int kChains = 1, kStepsAtOnce = kFew ? 3 : 1;
  constexpr int kGroups = kBlockWarps / kSplits;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int split = warp % kSplits, group = warp / kSplits;
  const int own_row = lane / 4, width = tiles * kTile;
  const unsigned char* own_x = x + own_row * stride + lane % 4 * 16;
  const unsigned char* own_weight = weight + own_row * stride + lane % 4 * 16;
  const auto load = [](const unsigned char* from) { return *reinterpret_cast<const uint4*>(from); };
  for (int first = group; first < tiles; first += kTilesAtOnce * kGroups) {
    float sums[kTilesAtOnce][kRowTiles][kChains][4] = {};
    int tile_at[kTilesAtOnce];  // beyond the last one: that again, for nothing
#pragma unroll
    for (int j = 0; j < kTilesAtOnce; ++j)
      tile_at[j] = min(first + j * kGroups, tiles - 1) * kTile * stride;
    for (int begin = split; begin < steps; begin += kStepsAtOnce * kSplits) {
      uint4 of_rows[kStepsAtOnce][2 * kRowTiles], of_tiles[kStepsAtOnce][kTilesAtOnce];
#pragma unroll
      for (int i = 0; i < kStepsAtOnce; ++i) {
        const int at = min(begin + i * kSplits, steps - 1) * kStep * 2;
#pragma unroll
        for (int u = 0; u < 2 * kRowTiles; ++u)
          of_rows[i][u] = u < kUnits && u * kRowUnit + own_row < rows
                              ? load(own_x + u * kRowUnit * stride + at)
                              : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < kTilesAtOnce; ++j) of_tiles[i][j] = load(own_weight + tile_at[j] + at);
      }
#pragma unroll
      for (int i = 0; i < kStepsAtOnce; ++i) {
        if (begin + i * kSplits >= steps) break;
#pragma unroll
        for (int j = 0; j < kTilesAtOnce; ++j)
#pragma unroll
          for (int r = 0; r < kRowTiles; ++r) {
            const uint4 &upper = of_rows[i][2 * r], &lower = of_rows[i][2 * r + 1];
            const uint4& words = of_tiles[i][j];
            const uint32_t one[4] = {upper.x, lower.x, upper.y, lower.y};
            const uint32_t two[4] = {upper.z, lower.z, upper.w, lower.w};
            multiply_add(sums[j][r][0], static_cast<const T*>(nullptr), one, words.x, words.y);
            multiply_add(sums[j][r][kChains - 1], static_cast<const T*>(nullptr), two, words.z,
                         words.w);
          }
      }
    }
#pragma unroll
    for (int j = 0; j < kTilesAtOnce; ++j) {
      const int tile = first + j * kGroups;
      if (tile >= tiles) break;
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        const int row = u * kRowUnit + own_row;
        if (row >= rows) continue;
        float2 sum = make_float2(0, 0);
#pragma unroll
        for (int c = 0; c < kChains; ++c) {
          sum.x += sums[j][u / 2][c][u % 2 * 2];
          sum.y += sums[j][u / 2][c][u % 2 * 2 + 1];
        }
        *reinterpret_cast<float2*>(results + (split * rows + row) * width + tile * kTile +
                                   lane % 4 * 2) = sum;
      }
    }
  }
}

// What multiply_rows() left for a row and two of its 8 · tiles columns.
template <int kSplits>
__device__ __forceinline__ float2 result_at(const float* results, int rows, int tiles, int row,
                                            int column) {
  float2 sum = make_float2(0, 0);
#pragma unroll
  for (int split = 0; split < kSplits; ++split) {
    const float2 of_split =
        *reinterpret_cast<const float2*>(results + (split * rows + row) * tiles * kTile + column);
    sum.x += of_split.x;
    sum.y += of_split.y;
  }
  return sum;
}

// Adds up the results of a block's last multiplication into its part of the outputs, from column
// `begin` on.
template <class T>
__device__ __forceinline__ void write_part(const float* results, int rows, int tiles, int begin,
                                           int outputs, const T* bias, float* part) {
  const int pairs = tiles * kTile / 2;
  for (int i = threadIdx.x; i < rows * pairs; i += kBlockThreads) {
    const Quotient at = divide(i, pairs);
    const int to = begin + 2 * at.rest;
    if (to >= outputs) continue;
    float2 sum = result_at<kSecondSplits>(results, rows, tiles, at.quotient, 2 * at.rest);
    if (bias) {
      sum.x += widen(bias[to]);
      sum.y += widen(bias[to + 1]);
    }
    *reinterpret_cast<float2*>(part + int64_t{at.quotient} * outputs + to) = sum;
  }
}

#endif

}  // namespace binade::kernels::cuda
