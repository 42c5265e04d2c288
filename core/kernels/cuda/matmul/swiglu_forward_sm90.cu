// A tile of the product has 64 columns of gate and the same 64 of up, in turns of 16, so that a
// thread has the two values that belong together. The turns are a matter of the shape and the
// strides that CUTLASS is told: column j of the product is (place in a turn, gate or up, turn).
#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

constexpr int kTurn = 16;         // columns of gate, then of up
constexpr int kSubtileRows = 64;  // of the epilogue
constexpr int kSubtileCols = 2 * kTurn;
constexpr int kWarps = 4;  // of the warp group that has the tile

using Columns = cute::Shape<cute::Int<kTurn>, cute::_2, int>;
using Problem = cute::Shape<int, Columns, int, int>;
using SwigluTile =
    cute::Shape<cute::Int<kFusedTileRows>,
                cute::Shape<cute::Int<kTurn>, cute::_2, cute::Int<kSwigluColumns / kTurn>>,
                cute::_64>;
using EpilogueTile =
    cute::Shape<cute::Int<kSubtileRows>, cute::Shape<cute::Int<kTurn>, cute::_2, cute::_1>>;
using WeightStride = cute::Stride<cute::Stride<int64_t, int64_t, int64_t>, cute::_1, int64_t>;
// Of the output that the product does not have.
using OutStride = cute::Stride<int64_t, cute::Stride<cute::_1, int64_t, int64_t>, int64_t>;

// A node of CUTLASS's tree of epilogue operations: rounds and stores gate and up, unless they are
// not wanted, and stores silu(gate)·up of what was rounded.
template <class T>
class StoreSwiglu {
 public:
  using ElementAux = T;  // tells CUTLASS the type of an output that it does not have
  struct SharedStorage {};
  struct Arguments {
    T* pre = nullptr;
    T* hidden = nullptr;
    int64_t ld_pre = 0, ld_hidden = 0;
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

  CUTLASS_HOST_DEVICE StoreSwiglu() {}
  CUTLASS_HOST_DEVICE StoreSwiglu(const Params& params, const SharedStorage&) : params_(&params) {}

  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }

  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(
      const fusion::detail::ProducerLoadArgs<Args...>&) {
    return fusion::detail::EmptyProducerLoadCallbacks{};
  }

  class Callbacks : public fusion::detail::EmptyConsumerStoreCallbacks {
   public:
    // `row` and `col` (of hidden) are those of the thread's first element in the tile.
    CUTLASS_DEVICE Callbacks(const Params& params, int row, int col, int rows, int cols, int lane)
        : params_(params), row_(row), col_(col), rows_(rows), cols_(cols), lane_(lane) {}

    // A thread has 16 elements of a subtile: element i lies in row 8·(i/2 % 2) + lane/4 of its
    // warp's 16, and in column 8·(i/4) + 2·(lane % 4) + i % 2: first 8 of gate, then those of up.
    template <class Accumulator, int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<Accumulator, kCount>&, int, int subtile_row,
                              int subtile_col, const cutlass::Array<float, kCount>& product) {
      static_assert(kCount == kSubtileRows * kSubtileCols / (32 * kWarps));
      const auto rounded =
          cutlass::NumericArrayConverter<T, float, kCount, kRound>::convert(product);
      const auto value = cutlass::NumericArrayConverter<float, T, kCount, kRound>::convert(rounded);
      constexpr int kHalf = kCount / 2;
      cutlass::Array<float, kHalf> hidden;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kHalf; ++i)
        hidden[i] = value[i] * inverse_of_1_plus_exp2(-kLog2E * value[i]) * value[kHalf + i];
      const auto stored = cutlass::NumericArrayConverter<T, float, kHalf, kRound>::convert(hidden);

      const int row = row_ + subtile_row * kSubtileRows, col = col_ + subtile_col * kTurn;
      const auto* words = reinterpret_cast<const uint32_t*>(&rounded);
      if (params_.pre) {
        store(params_.pre, params_.ld_pre, row, col, words);
        store(params_.pre, params_.ld_pre, row, cols_ + col, words + kHalf / 2);
      }
      store(params_.hidden, params_.ld_hidden, row, col,
            reinterpret_cast<const uint32_t*>(&stored));
      return rounded;
    }

   private:
    // A thread's pairs of columns: two in each of its two rows. Its four neighbours exchange them
    // for 8 columns in a line each, 16 bytes.
    CUTLASS_DEVICE void store(T* out, int64_t ld, int row, int col, const uint32_t* pairs) const {
      uint32_t word[4] = {pairs[0], pairs[2], pairs[1], pairs[3]};  // (row, pair of columns)
      transpose_in_quad(word);
      row += 8 * (lane_ % 4 / 2);
      col += 8 * (lane_ % 2);
      if (row < rows_)
        *reinterpret_cast<uint4*>(out + row * ld + col) =
            make_uint4(word[0], word[1], word[2], word[3]);
    }

    // Of the 4 × 4 words of four neighbouring lanes, word k of lane q becomes word q of lane k.
    CUTLASS_DEVICE void transpose_in_quad(uint32_t (&word)[4]) const {
      CUTLASS_PRAGMA_UNROLL
      for (int bit = 1; bit <= 2; bit *= 2) {
        const bool upper = lane_ & bit;
        CUTLASS_PRAGMA_UNROLL
        for (int k = 0; k < 4; ++k) {
          if (k & bit) continue;
          const uint32_t given = upper ? word[k] : word[k | bit];
          const uint32_t got = __shfl_xor_sync(0xffffffff, given, bit);
          (upper ? word[k] : word[k | bit]) = got;
        }
      }
    }

    const Params& params_;
    int row_, col_;
    int rows_, cols_;  // of hidden
    int lane_;
  };

  template <bool kReferenceSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const fusion::detail::ConsumerStoreArgs<Args...>& args) {
    using namespace cute;
    // What visit() takes for granted.
    CUTE_STATIC_ASSERT_V(size(args.tiled_copy) == Int<32 * kWarps>{});
    CUTE_STATIC_ASSERT_V(size<0>(args.epi_tile) == Int<kSubtileRows>{});
    CUTE_STATIC_ASSERT_V(size<1>(args.epi_tile) == Int<kSubtileCols>{});
    const auto place = [](auto row, auto in_turn, auto which) {
      return make_coord(row, make_coord(in_turn, which, _0{}));
    };
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<1>{}) == place(_0{}, _1{}, _0{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<2>{}) == place(_8{}, _0{}, _0{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<4>{}) == place(_0{}, _8{}, _0{}));
    CUTE_STATIC_ASSERT_V(args.tCcD(Int<8>{}) == place(_0{}, _0{}, _1{}));

    const int lane = args.thread_idx % 32, warp = args.thread_idx / 32;
    const int row = get<0>(args.tile_coord_mnkl) * static_cast<int>(kFusedTileRows) + 16 * warp;
    const int col = get<1, 2>(args.tile_coord_mnkl) * static_cast<int>(kSwigluColumns);
    return Callbacks(*params_, row + lane / 4, col, get<0>(args.problem_shape_mnkl),
                     static_cast<int>(size<1>(args.problem_shape_mnkl)) / 2, lane);
  }

 private:
  const Params* params_ = nullptr;
};

template <class T>
struct Forward {
  using Fusion = fusion::Sm90EVT<StoreSwiglu<T>, fusion::Sm90AccFetch>;
  // Like FusedProduct's, with an epilogue that leaves no output of its own.
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, SwigluTile, Cluster, EpilogueTile, float,
      float, void, OutStride, kAlignment, void, OutStride, kAlignment, EpilogueSchedule,
      Fusion>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, T, RowMajor, kAlignment, T, WeightStride,
      kAlignment, float, SwigluTile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedPingpong>::CollectiveOp;

  static void launch(const SwigluForwardOperands& x) {
    typename Mainloop::Arguments operands{
        static_cast<const T*>(x.a.data), {}, static_cast<const T*>(x.weight.data), {}};
    cute::get<0>(operands.dA) = x.a.ld;
    cute::get<0>(operands.dB) =
        cute::make_stride(x.weight.ld, x.n * x.weight.ld, kTurn * x.weight.ld);
    const typename StoreSwiglu<T>::Arguments store{static_cast<T*>(x.pre.data),
                                                   static_cast<T*>(x.out.data), x.pre.ld, x.out.ld};
    const Problem problem{static_cast<int>(x.m), Columns{{}, {}, static_cast<int>(x.n / kTurn)},
                          static_cast<int>(x.k), 1};
    launch_product<Mainloop, Epilogue>("swiglu_product", problem, operands,
                                       {{{}, store}, nullptr, {}, nullptr, {}});
  }
};

}  // namespace

void launch_swiglu_forward_sm90(const SwigluForwardOperands& operands) {
  if (operands.dtype == DType::f16)
    Forward<cutlass::half_t>::launch(operands);
  else
    Forward<cutlass::bfloat16_t>::launch(operands);
}

}  // namespace binade::kernels::cuda
