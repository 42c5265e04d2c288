// A tile of the matmul has 64 columns of gate and the same 64 of up, in turns of 16, so that a
// thread has the two values that belong together. The turns are a matter of the shape and the
// strides that CUTLASS is told: column j of a·b is (place in a turn, gate or up, turn).
#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

constexpr int kTurn = 16;  // columns of gate, then of up
static_assert(Subtile::kCols == 2 * kTurn);

using Columns = cute::Shape<cute::Int<kTurn>, cute::_2, int>;
using Problem = cute::Shape<int, Columns, int, int>;
using SwigluTile =
    cute::Shape<cute::Int<kFusedTileRows>,
                cute::Shape<cute::Int<kTurn>, cute::_2, cute::Int<kSwigluColumns / kTurn>>,
                cute::_64>;
using EpilogueTile =
    cute::Shape<cute::Int<Subtile::kRows>, cute::Shape<cute::Int<kTurn>, cute::_2, cute::_1>>;
using WeightStride = cute::Stride<cute::Stride<int64_t, int64_t, int64_t>, cute::_1, int64_t>;
// Of the output that the matmul does not have.
using OutStride = cute::Stride<int64_t, cute::Stride<cute::_1, int64_t, int64_t>, int64_t>;

// A node of CUTLASS's tree of epilogue operations: rounds and stores gate and up, unless they are
// not wanted, and stores silu(gate)·up of what was rounded.
template <class T>
struct StoreSwigluArguments {
  T* pre = nullptr;
  T* hidden = nullptr;
  int64_t ld_pre = 0, ld_hidden = 0;
};
struct NoStorage {};
template <class T>
class StoreSwiglu : public VisitorNode<StoreSwigluArguments<T>, NoStorage> {
  using Base = VisitorNode<StoreSwigluArguments<T>, NoStorage>;

 public:
  using ElementAux = T;  // tells CUTLASS the type of an output that it does not have
  using Base::Base;
  using typename Base::Params;

  class Callbacks : public fusion::detail::EmptyConsumerStoreCallbacks {
   public:
    // `row` and `col` (of hidden) are those of the thread's first element in the tile.
    CUTLASS_DEVICE Callbacks(const Params& params, int row, int col, int rows, int cols, int lane)
        : params_(params), row_(row), col_(col), rows_(rows), cols_(cols), lane_(lane) {}

    // Of a thread's elements the first 8 are of gate, the others those of up beside them.
    template <class Accumulator, int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<Accumulator, kCount>&, int, int subtile_row,
                              int subtile_col, const cutlass::Array<float, kCount>& sums) {
      static_assert(kCount == Subtile::kThreadElements);
      const auto rounded = cutlass::NumericArrayConverter<T, float, kCount, kRound>::convert(sums);
      const auto value = cutlass::NumericArrayConverter<float, T, kCount, kRound>::convert(rounded);
      constexpr int kHalf = kCount / 2;
      cutlass::Array<float, kHalf> hidden;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kHalf; ++i)
        hidden[i] = value[i] * inverse_of_1_plus_exp2(-kLog2E * value[i]) * value[kHalf + i];
      const auto stored = cutlass::NumericArrayConverter<T, float, kHalf, kRound>::convert(hidden);

      const int row = row_ + subtile_row * Subtile::kRows, col = col_ + subtile_col * kTurn;
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
    require_subtile(args, [](auto row, auto col) {
      return make_coord(row, make_coord(col % Int<kTurn>{}, col / Int<kTurn>{}, _0{}));
    });

    const int lane = args.thread_idx % 32, warp = args.thread_idx / 32;
    const int row = get<0>(args.tile_coord_mnkl) * static_cast<int>(kFusedTileRows) + 16 * warp;
    const int col = get<1, 2>(args.tile_coord_mnkl) * static_cast<int>(kSwigluColumns);
    return Callbacks(*this->params_, row + lane / 4, col, get<0>(args.problem_shape_mnkl),
                     static_cast<int>(size<1>(args.problem_shape_mnkl)) / 2, lane);
  }
};

template <class T>
struct Forward {
  using Fusion = fusion::Sm90EVT<StoreSwiglu<T>, fusion::Sm90AccFetch>;
  // The epilogue leaves no output of its own.
  using Epilogue = EpilogueOf<SwigluTile, EpilogueTile, void, void, OutStride, Fusion>;
  using Mainloop = MainloopOf<T, SwigluTile, WeightStride, Epilogue>;

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
    launch_kernel<Mainloop, Epilogue>("fused_matmul_swiglu", problem, operands,
                                      {{{}, store}, nullptr, {}, nullptr, {}});
  }
};

}  // namespace

void launch_swiglu_forward_sm90(const SwigluForwardOperands& operands) {
  launch_of_dtype<Forward>(operands);
}

}  // namespace binade::kernels::cuda
