#include <binade/core/kernels/cuda/matmul/column_sums_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// x where it is above 0 or NaN, else 0. CUTLASS's own ReLU, like the library's, makes 0 of NaN.
template <class Fragment>
struct Relu;
template <int kCount>
struct Relu<cutlass::Array<float, kCount>> {
  using Fragment = cutlass::Array<float, kCount>;
  __device__ __forceinline__ Fragment operator()(const Fragment& x) const {
    Fragment y;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) y[i] = x[i] <= 0 ? 0.0f : x[i];
    return y;
  }
};

// The sums where ReLU's output is above 0 or NaN, else 0.
template <class Fragment>
struct WhereAbove;
template <int kCount>
struct WhereAbove<cutlass::Array<float, kCount>> {
  using Fragment = cutlass::Array<float, kCount>;
  __device__ __forceinline__ Fragment operator()(const Fragment& sums, const Fragment& y) const {
    Fragment masked;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) masked[i] = y[i] <= 0 ? 0.0f : sums[i];
    return masked;
  }
};

template <class T>
struct Forward {
  using AddBias =
      fusion::Sm90EVT<fusion::Sm90Compute<cutlass::plus, float, float, kRound>,
                      fusion::Sm90AccFetch, fusion::Sm90RowBroadcast<0, Tile, T, float>>;
  using Fusion = fusion::Sm90EVT<fusion::Sm90Compute<Relu, T, float, kRound>, AddBias>;

  static void launch(const ReluOperands& x) {
    const typename AddBias::Arguments add_bias{{}, {static_cast<const T*>(x.bias)}, {}};
    FusedMatmul<T, ColumnMajor, void, Fusion>::launch("fused_matmul_relu", x, {}, {add_bias, {}});
  }
};

template <class T>
struct Backward {
  using Gradient = fusion::Sm90EVT<fusion::Sm90Compute<WhereAbove, T, float, kRound>,
                                   fusion::Sm90AccFetch, fusion::Sm90SrcFetch<T>>;
  using Fusion = fusion::Sm90EVT<ColumnSums, Gradient>;

  static void launch(const ReluOperands& x) {
    FusedMatmul<T, RowMajor, T, Fusion>::launch("fused_matmul_relu_backward", x, x.y,
                                                {{{}, {}, {}}, {x.partial_sums}});
  }
};

}  // namespace

void launch_relu_forward_sm90(const ReluOperands& operands) {
  launch_of_dtype<Forward>(operands);
}

void launch_relu_backward_sm90(const ReluOperands& operands) {
  launch_of_dtype<Backward>(operands);
}

}  // namespace binade::kernels::cuda
