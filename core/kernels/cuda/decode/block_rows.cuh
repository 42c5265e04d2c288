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

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

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

// Adds up rows of a stream, in `x` of all blocks of the cluster. Where they are little to read each
// block adds up all by itself, otherwise its share of the columns; then nobody may read before the
// cluster's next barrier.
template <class T>
struct RowsInParts {
  static constexpr int kColumns = 4, kPartsAtOnce = 16;
  static constexpr int kLittle = 32 * 1024;  // bytes

  const StreamRows<T>& in;
  int rank, units, each, stride;
  bool alone, writes_sum;
  Quotient first;  // the first that this thread adds up: row, unit

  __device__ __forceinline__ RowsInParts(const StreamRows<T>& rows, int block, bool first_cluster)
      : in(rows), rank(block), units(in.columns / kColumns), stride(row_bytes(in.columns)) {
    alone = in.rows * in.columns * (in.part_count * 4 + 2) <= kLittle;
    each = alone ? units : (units + kCluster - 1) / kCluster;
    writes_sum = first_cluster && in.sum != in.x && (!alone || rank == 0);
    first = divide(threadIdx.x, each);
  }
  __device__ __forceinline__ void add_up(unsigned char* x) const {
    Quotient at = first;
    for (int i = threadIdx.x; i < in.rows * each; i += kBlockThreads) {
      if (i != threadIdx.x) at = divide(i, each);
      const int unit = at.rest + (alone ? 0 : rank * each);
      if (unit < units) add_up(at.quotient, unit, x);
    }
  }

 private:
  __device__ __forceinline__ void add_up(int row, int unit, unsigned char* x) const {
    const int64_t size = int64_t{in.rows} * in.columns;
    const int64_t at = int64_t{row} * in.columns + unit * kColumns;
    auto values = load_vec<kColumns>(in.x + at);
    float sums[kColumns] = {};
    for (int begin = 0; begin < in.part_count; begin += kPartsAtOnce) {
      float4 parts[kPartsAtOnce];
#pragma unroll
      for (int p = 0; p < kPartsAtOnce; ++p)
        parts[p] = begin + p < in.part_count
                       ? *reinterpret_cast<const float4*>(in.parts + (begin + p) * size + at)
                       : make_float4(0, 0, 0, 0);
      if (begin == 0) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[c] = widen(values[c]);
      }
#pragma unroll
      for (int p = 0; p < kPartsAtOnce; ++p) {
        sums[0] += parts[p].x;
        sums[1] += parts[p].y;
        sums[2] += parts[p].z;
        sums[3] += parts[p].w;
      }
    }
    if (in.part_count > 0) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) values[c] = narrow<T>(sums[c]);
    }
    if (writes_sum) store_vec(in.sum + at, values);
    const uint2 words = *reinterpret_cast<const uint2*>(&values);
    unsigned char* to = x + row * stride + unit * kColumns * 2;
    if (alone)
      *reinterpret_cast<uint2*>(to) = words;
    else
      for_each_block(to, [&](uint32_t address) { put_words(address, words); });
  }
};

// The norm of rows in shared memory, in place; `weight` in shared memory, too. Several warps take a
// row where there are few: each adds up its squares, and norms some of its columns. All threads.
template <class T>
__device__ __forceinline__ void norm_rows(const StreamRows<T>& in, const float* weight,
                                          unsigned char* x) {
  constexpr int kAtOnce = 4;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int stride = row_bytes(in.columns), pieces = in.columns / 8;
  const int warps = in.rows == 1 ? 8 : in.rows == 2 ? 4 : in.rows <= 4 ? 2 : 1;  // a row
  const int own = warp % warps, together = kBlockWarps / warps;                  // rows
  const float share = 1.0f / static_cast<float>(in.columns);
  for (int first = 0; first < in.rows; first += together) {
    const int row = first + warp / warps;
    uint4* words = reinterpret_cast<uint4*>(x + row * stride);
    float squares = 0;
    for (int begin = lane; begin < pieces && row < in.rows; begin += kAtOnce * kWarp) {
      uint4 some[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        some[i] = begin + i * kWarp < pieces ? words[begin + i * kWarp] : make_uint4(0, 0, 0, 0);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) squares += squares_of<T>(some[i]);
    }
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2)
      squares += __shfl_xor_sync(0xffffffffu, squares, mask);
    const float rstd = rsqrtf(squares * share + in.eps);
    if (warps > 1) __syncthreads();  // the others have read
    for (int c = own * kWarp + lane; c < pieces && row < in.rows; c += warps * kWarp) {
      const float4* at = reinterpret_cast<const float4*>(weight) + 2 * c;
      const float4 a = at[0], b = at[1];
      const float weights[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
      normalise<T>(words[c], rstd, weights);
    }
  }
  __syncthreads();
}

// results[split][row][8 · tiles] of x·weightᵀ, both in shared memory with rows of `stride` bytes:
// the sums of each split's columns.
template <int kUnits, int kSplits, class T>
__device__ __forceinline__ void multiply_rows(const unsigned char* x, int rows,
                                              const unsigned char* weight, int stride, int tiles,
                                              int steps, float* results) {
  // Enough under way at a time to hide what one of them takes.
  constexpr bool kFew = kUnits <= kFewUnits;
  constexpr int kRowTiles = (kUnits + 1) / 2, kTilesAtOnce = kFew ? 4 : 2;
  constexpr int kChains = kFew ? 2 : 1, kStepsAtOnce = kFew ? 3 : 1;
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
