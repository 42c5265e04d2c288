// What the kernels of attention over splits share (private to this folder). A block of four warps
// owns 64 rows of a head, 16 a warp, and streams the tiles of its list through shared memory: the
// next one is on its way while the last is multiplied.
#pragma once

#include <binade/core/kernels/cuda/attention/split_tiles.cuh>
#include <binade/core/kernels/cuda/common/async_copy.cuh>
#include <binade/core/kernels/cuda/common/exponential.cuh>
#include <binade/core/kernels/cuda/common/tensor_cores.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

inline constexpr int kWarpRows = 16;  // that one multiplication has
inline constexpr int kSplitThreads = kSplitTile / kWarpRows * kWarp;

struct SplitProblem {
  int queries, keys, dim;
  int group;  // query heads of a key head
  float scale;
  SlotTable query_slots, key_slots;
};

inline SplitProblem split_problem(const Array& q, const Array& k, const AttentionParams& params) {
  return {static_cast<int>(q.size(2)),      static_cast<int>(k.size(2)),
          static_cast<int>(q.size(3)),      static_cast<int>(q.size(1) / k.size(1)),
          static_cast<float>(params.scale), slot_table(params.splits.queries),
          slot_table(params.splits.keys)};
}

// Rows (B, H, T, D), contiguous along D.
template <class T>
struct HeadRows {
  T* data;
  int64_t batch, head, row;  // strides

  __device__ __forceinline__ T* at(int b, int h, int i) const {
    return data + b * batch + h * head + i * row;
  }
};
template <class T>
HeadRows<T> head_rows(const Array& x) {
  return {device_data<T>(x), x.stride(0), x.stride(1), x.stride(2)};
}

// Calls body(integral_constant) with the size that heads of `dim` are padded to, on the chip only.
template <class Body>
void visit_head_size(int64_t dim, const Body& body) {
  if (dim <= 32) return body(std::integral_constant<int, 32>());
  if (dim <= 64) return body(std::integral_constant<int, 64>());
  return body(std::integral_constant<int, 128>());
}

// Rows of a tile in shared memory are 16 bytes apart, so that eight of them lie in different banks.
template <int kDim>
inline constexpr int kTileStride = kDim * 2 + 16;

template <int kDim>
struct alignas(16) RowTile {
  unsigned char bytes[kSplitTile * kTileStride<kDim>];
};

struct alignas(16) SlotTile {
  Slot slots[kSplitTile];

  __device__ __forceinline__ int32_t* word(int field, int i) {
    return reinterpret_cast<int32_t*>(slots + i) + field;
  }
};

// A streamed tile: keys and values, or queries and their gradients with the statistics of each.
template <int kDim>
struct SplitStage {
  RowTile<kDim> left, right;
  SlotTile slots;  // where the tile is mixed
  float logsumexp[kSplitTile], inner[kSplitTile];
};
template <int kDim, int kOwn>
struct SplitMemory {
  RowTile<kDim> own[kOwn];
  SplitStage<kDim> stages[2];
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

// Begins to copy a tile, of whose rows there are `count`, and `dim` columns; zeros beyond.
template <int kDim, class T>
__device__ __forceinline__ void start_rows(RowTile<kDim>& to, const T* rows, int64_t stride,
                                           int count, int dim) {
  constexpr int kPieces = kDim / 8, kRowsAtOnce = kSplitThreads / kPieces;
  const int first = threadIdx.x / kPieces, at = threadIdx.x % kPieces;
  const uint32_t address = shared_address(to.bytes) + first * kTileStride<kDim> + at * 16;
  const T* const from = rows + first * stride + at * 8;
#pragma unroll
  for (int row = 0; row < kSplitTile; row += kRowsAtOnce) {
    const bool there = first + row < count && at * 8 < dim;
    copy_beside(address + row * kTileStride<kDim>, there ? from + row * stride : rows, !there);
  }
}
// The slots of a tile of a row with `count`; those behind its end are spare.
__device__ __forceinline__ void start_slots(SlotTile& to, const SlotTable& slots, int batch,
                                            int first, int count) {
  const int at = threadIdx.x % kSplitTile;
#pragma unroll
  for (int n = 0; n < kSlotFields * kSplitTile / kSplitThreads; ++n) {
    const int field = n * (kSplitThreads / kSplitTile) + threadIdx.x / kSplitTile;
    if (first + at < count)
      copy_word_beside(shared_address(to.word(field, at)), slots.field(batch, field) + first + at);
    else
      *to.word(field, at) = -1;
  }
}
__device__ __forceinline__ void start_floats(float (&to)[kSplitTile], const float* from,
                                             int count) {
  const int i = threadIdx.x;
  if (i >= kSplitTile) return;
  if (i < count)
    copy_word_beside(shared_address(to + i), from + i);
  else
    to[i] = 0;
}

// Begins to copy a tile of a head's keys and values and, where it is mixed, its slots.
template <int kDim, class T>
__device__ __forceinline__ void start_keys(SplitStage<kDim>& stage, const SplitProblem& p,
                                           const HeadRows<const T>& k, const HeadRows<const T>& v,
                                           int batch, int key_head, SeenTile seen) {
  const int first = seen.first(), count = p.keys - first;
  start_rows(stage.left, k.at(batch, key_head, first), k.row, count, p.dim);
  start_rows(stage.right, v.at(batch, key_head, first), v.row, count, p.dim);
  if (seen.mixed()) start_slots(stage.slots, p.key_slots, batch, first, p.keys);
}

// Calls start(i, stage) and then use(i, stage) for each of `count` tiles.
template <class Stage, class Start, class Use>
__device__ __forceinline__ void stream_tiles(Stage (&stages)[2], int count, const Start& start,
                                             const Use& use) {
  if (count > 0) start(0, stages[0]);
  close_copies();
  for (int i = 0; i < count; ++i) {
    if (i + 1 < count) start(i + 1, stages[(i + 1) % 2]);
    close_copies();
    copies_done<1>();
    __syncthreads();
    use(i, stages[i % 2]);
    __syncthreads();
  }
}

// Makes a streamed mixed tile ready: its slots for meets(), and zeros of what lies in spare ones,
// which need not be a number. Behind a barrier for all.
template <bool kRowsAsk, int kDim>
__device__ __forceinline__ void prepare_mixed(SplitStage<kDim>& stage) {
  static_assert(kSplitThreads == 2 * kSplitTile);  // two threads a slot
  const int row = threadIdx.x / 2, at = row * kTileStride<kDim> + threadIdx.x % 2 * kDim;
  const Slot slot = stage.slots.slots[row];
  __syncwarp();
  if (threadIdx.x % 2 == 0) stage.slots.slots[row] = kRowsAsk ? asked(slot) : asking(slot);
  if (slot.sample < 0) {
    if (threadIdx.x % 2 == 0) stage.inner[row] = 0;
#pragma unroll
    for (int byte = 0; byte < kDim; byte += 16) {
      *reinterpret_cast<uint4*>(stage.left.bytes + at + byte) = make_uint4(0, 0, 0, 0);
      *reinterpret_cast<uint4*>(stage.right.bytes + at + byte) = make_uint4(0, 0, 0, 0);
    }
  }
  __syncthreads();
}

// A warp's 16 rows as the left operand.
template <int kDim>
struct WarpRows {
  uint32_t words[kDim / 16][4];

  __device__ __forceinline__ void load(const RowTile<kDim>& tile) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    const uint32_t address = shared_address(tile.bytes) +
                             (warp * kWarpRows + lane % 16) * kTileStride<kDim> + lane / 16 * 16;
#pragma unroll
    for (int s = 0; s < kDim / 16; ++s) load_matrices(words[s], address + s * 32);
  }
};

// sums = products of a warp's rows with rows [first, first + 8 · kTiles) of a tile.
template <class T, int kDim, int kTiles>
__device__ __forceinline__ void multiply_rows(float (&sums)[kTiles][4], const WarpRows<kDim>& rows,
                                              const RowTile<kDim>& tile, int first) {
  const int lane = threadIdx.x % kWarp;
  const T* const kind = nullptr;
  const uint32_t address = shared_address(tile.bytes) +
                           (first + lane / 16 * 8 + lane % 8) * kTileStride<kDim> +
                           lane / 8 % 2 * 16;
#pragma unroll
  for (auto& of_tile : sums)
#pragma unroll
    for (float& sum : of_tile) sum = 0;
#pragma unroll
  for (int s = 0; s < kDim / 16; ++s)
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t words[4];
      load_matrices(words, address + n * 8 * kTileStride<kDim> + s * 32);
      multiply_add(sums[n], kind, rows.words[s], words[0], words[1]);
      multiply_add(sums[n + 1], kind, rows.words[s], words[2], words[3]);
    }
}

template <class T>
__device__ __forceinline__ uint32_t two_halves(float a, float b) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&both);
  } else {
    const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t*>(&both);
  }
}

// sums += weights · rows [first, first + 8 · kTiles) of a tile; the weights are rounded to T.
template <class T, int kDim, int kTiles>
__device__ __forceinline__ void add_weighted_rows(float (&sums)[kDim / 8][4],
                                                  const float (&weights)[kTiles][4],
                                                  const RowTile<kDim>& tile, int first) {
  const int lane = threadIdx.x % kWarp;
  const T* const kind = nullptr;
  const uint32_t address =
      shared_address(tile.bytes) + (first + lane % 16) * kTileStride<kDim> + lane / 16 * 16;
#pragma unroll
  for (int s = 0; s < kTiles / 2; ++s) {
    const auto &left = weights[2 * s], &right = weights[2 * s + 1];
    const uint32_t own[4] = {two_halves<T>(left[0], left[1]), two_halves<T>(left[2], left[3]),
                             two_halves<T>(right[0], right[1]), two_halves<T>(right[2], right[3])};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      uint32_t words[4];
      load_matrices_transposed(words, address + s * 16 * kTileStride<kDim> + n * 16);
      multiply_add(sums[n], kind, own, words[0], words[1]);
      multiply_add(sums[n + 1], kind, own, words[2], words[3]);
    }
  }
}

// Which pairs of a lane's two rows and columns [first, first + 8 · kTiles) of a tile see each
// other: bit 4 · n + 2 · r + e is that of row r and the lane's column e of eight. kRowsAsk: the
// rows are the queries. Slots are ready for meets().
template <bool kRowsAsk, int kTiles>
__device__ __forceinline__ uint32_t seen_pairs(const Slot (&rows)[2], const SlotTile& columns,
                                               int first) {
  static_assert(4 * kTiles <= 32);
  uint32_t seen = 0;
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const Slot column = columns.slots[first + n * 8 + threadIdx.x % 4 * 2 + e];
#pragma unroll
      for (int r = 0; r < 2; ++r)
        if (kRowsAsk ? meets(rows[r], column) : meets(column, rows[r]))
          seen |= 1u << (4 * n + 2 * r + e);
    }
  return seen;
}
// Makes −∞ of the scores of the other pairs.
template <int kTiles>
__device__ __forceinline__ void hide_unseen(float (&scores)[kTiles][4], uint32_t seen) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if ((seen >> (4 * n + e) & 1) == 0) scores[n][e] = -INFINITY;
}

// A lane's two rows of those that a block owns.
struct LaneRows {
  int first;      // of the warp, in the whole row
  Slot slots[2];  // ready for meets()

  __device__ __forceinline__ LaneRows(bool rows_ask, const SlotTable& table, int batch, int tile,
                                      int count)
      : first(tile * kSplitTile + static_cast<int>(threadIdx.x) / kWarp * kWarpRows) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Slot slot = slot_or_spare(table, batch, place(r), count);
      slots[r] = rows_ask ? asking(slot) : asked(slot);
    }
  }
  __device__ __forceinline__ int place(int r) const {
    return first + static_cast<int>(threadIdx.x) % kWarp / 4 + 8 * r;
  }
};

// rows[place(r)] = sums · factors[r], zeros where the factor is 0; `rows` is that of place 0.
template <int kDim, class T>
__device__ __forceinline__ void store_rows(const LaneRows& own, const float (&sums)[kDim / 8][4],
                                           const float (&factors)[2], T* rows, int64_t stride,
                                           int count, int dim) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (own.place(r) >= count) continue;
    T* const row = rows + own.place(r) * stride;
    const float factor = factors[r];
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int column = n * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
      const float a = sums[n][r * 2], b = sums[n][r * 2 + 1];
      if (column < dim)
        *reinterpret_cast<uint32_t*>(row + column) =
            factor == 0 ? 0 : two_halves<T>(a * factor, b * factor);
    }
  }
}

#endif

}  // namespace binade::kernels::cuda
