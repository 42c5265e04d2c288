#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// A node of CUTLASS's tree of epilogue operations, which hands on what it is given: the sums of
// each tile's columns, to one row of `partial` (M tiles, N) a tile row. Rows beyond M are zeros.
// CUTLASS's own node keeps the sums of all of a tile in registers, and moves them by addresses
// known at run time only, which puts them into local memory; here those of one subtile are added up
// at a time.
class ColumnSums {
 public:
  static constexpr int kWarps = 4;  // of the warp group that has the tile
  static constexpr int kSubtileRows = 64, kSubtileCols = 32;

  struct SharedStorage {
    float sums[kWarps][kFusedTileCols];
  };
  struct Arguments {
    float* partial = nullptr;
  };
  using Params = Arguments;

  template <class Problem>
  static constexpr Params to_underlying_arguments(const Problem&, const Arguments& arguments,
                                                  void*) {
    return arguments;
  }
  template <class Problem>
  static bool can_implement(const Problem&, const Arguments&) {
    return true;
  }
  template <class Problem>
  static size_t get_workspace_size(const Problem&, const Arguments&) {
    return 0;
  }
  template <class Problem>
  static cutlass::Status initialize_workspace(const Problem&, const Arguments&, void*, cudaStream_t,
                                              cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }

  CUTLASS_HOST_DEVICE ColumnSums() {}
  CUTLASS_HOST_DEVICE ColumnSums(const Params& params, const SharedStorage& shared)
      : partial_(params.partial), shared_(const_cast<SharedStorage*>(&shared)) {}

  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }

  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(
      const fusion::detail::ProducerLoadArgs<Args...>&) {
    return fusion::detail::EmptyProducerLoadCallbacks{};
  }

  class Callbacks : public fusion::detail::EmptyConsumerStoreCallbacks {
   public:
    CUTLASS_DEVICE Callbacks(SharedStorage* shared, float* row, int width, int thread)
        : shared_(shared), row_(row), width_(width), thread_(thread) {}

    // A thread has 16 elements of a subtile: element i lies in row 8·(i/2 % 2) + lane/4 of its
    // warp's 16, and in column 8·(i/4) + 2·(lane % 4) + i % 2.
    template <class Accumulator, class T, int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<Accumulator, kCount>&, int, int subtile_row, int,
                              const cutlass::Array<T, kCount>& values) {
      static_assert(kCount == kSubtileRows * kSubtileCols / (32 * kWarps));
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
      if (subtile_row == kFusedTileRows / kSubtileRows - 1) {
        const int lane = thread_ % 32;
        const int place = fold_rows(lane);
        shared_->sums[thread_ / 32][subtile_col * kSubtileCols + 8 * (place / 2) + 2 * (lane % 4) +
                                    place % 2] = sums_[0];
      }
      if (!is_last) return;
      synchronise();
      for (int col = thread_; col < width_; col += 32 * kWarps) {
        float sum = shared_->sums[0][col];
        CUTLASS_PRAGMA_UNROLL
        for (int warp = 1; warp < kWarps; ++warp) sum += shared_->sums[warp][col];
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
    // What visit() takes for granted.
    CUTE_STATIC_ASSERT_V(size(args.tiled_copy) == Int<32 * kWarps>{});
    CUTE_STATIC_ASSERT_V(size<0>(args.epi_tile) == Int<kSubtileRows>{});
    CUTE_STATIC_ASSERT_V(size<1>(args.epi_tile) == Int<kSubtileCols>{});
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<1>{}) == make_coord(_0{}, _1{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<2>{}) == make_coord(_8{}, _0{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<4>{}) == make_coord(_0{}, _8{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<8>{}) == make_coord(_0{}, _16{}));

    const int rows = get<0>(args.problem_shape_mnkl), cols = get<1>(args.problem_shape_mnkl);
    const int tile_row = get<0>(args.tile_coord_mnkl), tile_col = get<1>(args.tile_coord_mnkl);
    const int first_col = tile_col * kFusedTileCols;
    // The last cluster may have a tile beyond the last row.
    const int width = tile_row * kFusedTileRows < rows
                          ? min(cols - first_col, static_cast<int>(kFusedTileCols))
                          : 0;
    float* row = partial_ ? partial_ + int64_t{tile_row} * cols + first_col : nullptr;
    return Callbacks(shared_, row, width, args.thread_idx);
  }

 private:
  float* partial_ = nullptr;
  SharedStorage* shared_ = nullptr;
};

// A node that is given pre and hands on gelu_tanh'(pre), in f32. With the sigmoid at hand
// gelu_tanh(pre) is one multiplication away: it is stored on the way, unless its address is null.
template <class T>
class GeluSlope : public StoreThrough<T, T>::Node {
  using Store = typename StoreThrough<T, T>::Node;

 public:
  using Store::Store;

  template <class StoreCallbacks>
  struct Callbacks : StoreCallbacks {
    template <class Accumulator, int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<Accumulator, kCount>& product, int vector,
                              int subtile_row, int subtile_col,
                              const cutlass::Array<T, kCount>& pre) {
      constexpr float kSlope = 1.5957691216057308f;
      const auto x = cutlass::NumericArrayConverter<float, T, kCount, kRound>::convert(pre);
      cutlass::Array<float, kCount> gelu, derivative;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const GeluSigmoid sigmoid(x[i]);
        const float slope = fmaf(sigmoid.square, 3 * 0.044715f * kSlope, kSlope);
        const float rest = (1.0f - sigmoid.value) * x[i] * slope;
        gelu[i] = x[i] * sigmoid.value;
        derivative[i] = fmaf(sigmoid.value, rest, sigmoid.value);
      }
      StoreCallbacks::visit(product, vector, subtile_row, subtile_col, gelu);
      return derivative;
    }
  };

  template <bool kReferenceSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const fusion::detail::ConsumerStoreArgs<Args...>& args) {
    auto callbacks = Store::template get_consumer_store_callbacks<kReferenceSource>(args);
    return Callbacks<decltype(callbacks)>{callbacks};
  }
};

// product · gelu'(pre), and the sums of what is stored.
template <class T>
struct Backward {
  using Slope = fusion::Sm90EVT<GeluSlope<T>, fusion::Sm90SrcFetch<T>>;
  using Product = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, T, float, kRound>,
                                  fusion::Sm90AccFetch, Slope>;
  using Fusion = fusion::Sm90EVT<ColumnSums, Product>;

  static void launch(const GeluOperands& x) {
    const typename Slope::Arguments slope{{}, StoreThrough<T, T>::arguments(x.recomputed)};
    FusedProduct<T, RowMajor, T, Fusion>::launch("gelu_backward_product", x, x.pre,
                                                 {{{}, slope, {}}, {x.partial_sums}});
  }
};

}  // namespace

void launch_gelu_backward_sm90(const GeluOperands& operands) {
  if (operands.dtype == DType::f16)
    Backward<cutlass::half_t>::launch(operands);
  else
    Backward<cutlass::bfloat16_t>::launch(operands);
}

}  // namespace binade::kernels::cuda
