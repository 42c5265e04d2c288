// The column sums of what a fused matmul stores (private to this folder).
#pragma once

#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda::sm90 {

// A node of CUTLASS's tree of epilogue operations, which hands on what it is given: the sums of
// each tile's columns, to one row of `partial` (M tiles, N) a tile row. Rows beyond M are zeros.
// CUTLASS's own node keeps the sums of all of a tile in registers, and moves them by addresses
// known at run time only, which puts them into local memory; here those of one subtile are added up
// at a time.
struct ColumnSumsArguments {
  float* partial = nullptr;
};
struct ColumnSumsStorage {
  float sums[Subtile::kWarps][kFusedTileCols];
};
class ColumnSums : public VisitorNode<ColumnSumsArguments, ColumnSumsStorage> {
 public:
  using VisitorNode::VisitorNode;

  class Callbacks : public fusion::detail::EmptyConsumerStoreCallbacks {
   public:
    CUTLASS_DEVICE Callbacks(SharedStorage* shared, float* row, int width, int thread)
        : shared_(shared), row_(row), width_(width), thread_(thread) {}

    template <class Accumulator, class T, int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<Accumulator, kCount>&, int, int subtile_row, int,
                              const cutlass::Array<T, kCount>& values) {
      static_assert(kCount == Subtile::kThreadElements);
      if (row_) {
        const auto wide = cutlass::NumericArrayConverter<float, T, kCount, kRound>::convert(values);
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < kCount; i += 4) CUTLASS_PRAGMA_UNROLL
        for (int c = 0; c < 2; ++c) {
          const float pair = wide[i + c] + wide[i + 2 + c];
          float& sum = sums_[i / 2 + c];
          sum = subtile_row == 0 ? pair : sum + pair;
        }
      }
      return values;
    }

    template <class Buffer, class Synchronise, class Results>
    CUTLASS_DEVICE void reduce(Buffer&&, const Synchronise& synchronise, int subtile_row,
                               int subtile_col, bool is_last, const Results&) {
      if (!row_) return;
      if (subtile_row == kFusedTileRows / Subtile::kRows - 1) {
        const int lane = thread_ % 32;
        const int place = fold_rows(lane);
        shared_->sums[thread_ / 32][subtile_col * Subtile::kCols + 8 * (place / 2) +
                                    2 * (lane % 4) + place % 2] = sums_[0];
      }
      if (!is_last) return;
      synchronise();
      for (int col = thread_; col < width_; col += 32 * Subtile::kWarps) {
        float sum = shared_->sums[0][col];
        CUTLASS_PRAGMA_UNROLL
        for (int warp = 1; warp < Subtile::kWarps; ++warp) sum += shared_->sums[warp][col];
        row_[col] = sum;
      }
    }

   private:
    // Adds up the eight sums of the eight lanes that have the same columns. Each step halves the
    // lanes that share a sum and the sums that a lane has; the last one is left in sums_[0].
    // Returns which one that is.
    CUTLASS_DEVICE int fold_rows(int lane) {
      int place = 0;
      CUTLASS_PRAGMA_UNROLL
      for (int half = 4; half > 0; half /= 2) {
        const bool upper = lane & 4 * half;
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < half; ++i) {
          const float given = upper ? sums_[i] : sums_[i + half];
          const float kept = upper ? sums_[i + half] : sums_[i];
          sums_[i] = kept + __shfl_xor_sync(0xffffffff, given, 4 * half);
        }
        if (upper) place += half;
      }
      return place;
    }

    SharedStorage* shared_;
    float* row_;  // where this tile's sums go, or null
    int width_;   // how many of them are there
    int thread_;
    float sums_[8];
  };

  template <bool kReferenceSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const fusion::detail::ConsumerStoreArgs<Args...>& args) {
    using namespace cute;
    require_subtile(args, [](auto row, auto col) { return make_coord(row, col); });

    const int rows = get<0>(args.problem_shape_mnkl), cols = get<1>(args.problem_shape_mnkl);
    const int tile_row = get<0>(args.tile_coord_mnkl), tile_col = get<1>(args.tile_coord_mnkl);
    const int first_col = tile_col * kFusedTileCols;
    // The last cluster may have a tile beyond the last row.
    const int width = tile_row * kFusedTileRows < rows
                          ? min(cols - first_col, static_cast<int>(kFusedTileCols))
                          : 0;
    float* partial = params_->partial;
    float* row = partial ? partial + int64_t{tile_row} * cols + first_col : nullptr;
    return Callbacks(shared_, row, width, args.thread_idx);
  }
};

}  // namespace binade::kernels::cuda::sm90
