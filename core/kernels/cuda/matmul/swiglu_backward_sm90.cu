#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// Turns the sums, the gradient of silu(gate)·up, into that of gate, which is handed on, and that of
// up, which is stored.
template <class T>
struct SwigluGradient {
  template <int kCount>
  CUTLASS_DEVICE auto operator()(const cutlass::Array<float, kCount>& dhidden,
                                 const cutlass::Array<T, kCount>& gate,
                                 const cutlass::Array<T, kCount>& up) const {
    using Widen = cutlass::NumericArrayConverter<float, T, kCount, kRound>;
    const auto x = Widen::convert(gate), u = Widen::convert(up);
    cutlass::Array<float, kCount> dgate, dup;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const float sigmoid = inverse_of_1_plus_exp2(-kLog2E * x[i]);
      const float scaled = dhidden[i] * sigmoid;
      dup[i] = scaled * x[i];
      dgate[i] = scaled * u[i] * fmaf(x[i], 1.0f - sigmoid, 1.0f);
    }
    const auto rounded = cutlass::NumericArrayConverter<T, float, kCount, kRound>::convert(dgate);
    return ResultAndStored<cutlass::Array<T, kCount>, decltype(dup)>{rounded, dup};
  }
};

template <class T>
struct Backward {
  using Fusion = fusion::Sm90EVT<StoringNode<T, SwigluGradient<T>>, fusion::Sm90SrcFetch<T>,
                                 typename LoadBeside<T>::Node>;

  static void launch(const SwigluBackwardOperands& x) {
    FusedMatmul<T, RowMajor, T, Fusion>::launch(
        "fused_matmul_swiglu_backward", x, x.gate,
        {{}, LoadBeside<T>::arguments(x.up), StoreThrough<T, T>::arguments(x.dup)});
  }
};

}  // namespace

void launch_swiglu_backward_sm90(const SwigluBackwardOperands& operands) {
  launch_of_dtype<Backward>(operands);
}

}  // namespace binade::kernels::cuda
