#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// gelu(pre), pre = a·b + bias, which is stored on the way.
template <class T>
struct Forward {
  using StorePre = StoreThrough<T, void>;
  using AddBias =
      fusion::Sm90EVT<fusion::Sm90Compute<cutlass::plus, float, float, kRound>,
                      fusion::Sm90AccFetch, fusion::Sm90RowBroadcast<0, Tile, T, float>>;
  using Fusion = fusion::Sm90EVT<fusion::Sm90Compute<Gelu, T, float, kRound>,
                                 fusion::Sm90EVT<typename StorePre::Node, AddBias>>;

  static void launch(const GeluOperands& x) {
    const typename AddBias::Arguments add_bias{{}, {static_cast<const T*>(x.bias)}, {}};
    FusedMatmul<T, ColumnMajor, void, Fusion>::launch("fused_matmul_gelu", x, {},
                                                      {{add_bias, StorePre::arguments(x.pre)}, {}});
  }
};

}  // namespace

void launch_gelu_forward_sm90(const GeluOperands& operands) {
  launch_of_dtype<Forward>(operands);
}

}  // namespace binade::kernels::cuda
