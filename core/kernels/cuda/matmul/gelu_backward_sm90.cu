#include <binade/core/kernels/cuda/matmul/column_sums_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// gelu_tanh'(pre), in f32. With the sigmoid at hand gelu_tanh(pre) is one multiplication away: it
// is what is stored.
template <class T>
struct GeluSlope {
  template <class Sums, int kCount>
  CUTLASS_DEVICE auto operator()(const Sums&, const cutlass::Array<T, kCount>& pre) const {
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
    return ResultAndStored<decltype(derivative), decltype(gelu)>{derivative, gelu};
  }
};

// a·b·gelu'(pre), and the sums of what is stored.
template <class T>
struct Backward {
  using Slope = fusion::Sm90EVT<StoringNode<T, GeluSlope<T>>, fusion::Sm90SrcFetch<T>>;
  using Gradient = fusion::Sm90EVT<fusion::Sm90Compute<cutlass::multiplies, T, float, kRound>,
                                   fusion::Sm90AccFetch, Slope>;
  using Fusion = fusion::Sm90EVT<ColumnSums, Gradient>;

  static void launch(const GeluOperands& x) {
    const typename Slope::Arguments slope{{}, StoreThrough<T, T>::arguments(x.recomputed)};
    FusedMatmul<T, RowMajor, T, Fusion>::launch("fused_matmul_gelu_backward", x, x.pre,
                                                {{{}, slope, {}}, {x.partial_sums}});
  }
};

}  // namespace

void launch_gelu_backward_sm90(const GeluOperands& operands) {
  launch_of_dtype<Backward>(operands);
}

}  // namespace binade::kernels::cuda
