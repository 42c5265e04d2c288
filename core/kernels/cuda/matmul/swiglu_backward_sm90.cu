#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.cuh>

namespace binade::kernels::cuda {

namespace {

using namespace sm90;

// A node that is given gate and up, and turns the product, the gradient of silu(gate)·up, into that
// of gate, which it hands on, and that of up, which it stores on the way.
template <class T>
class SwigluGradient : public StoreThrough<T, T>::Node {
  using Store = typename StoreThrough<T, T>::Node;

 public:
  using Store::Store;

  template <class StoreCallbacks>
  struct Callbacks : StoreCallbacks {
    template <int kCount>
    CUTLASS_DEVICE auto visit(const cutlass::Array<float, kCount>& product, int vector,
                              int subtile_row, int subtile_col,
                              const cutlass::Array<T, kCount>& gate,
                              const cutlass::Array<T, kCount>& up) {
      using Widen = cutlass::NumericArrayConverter<float, T, kCount, kRound>;
      const auto x = Widen::convert(gate), u = Widen::convert(up);
      cutlass::Array<float, kCount> dgate, dup;
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const float sigmoid = inverse_of_1_plus_exp2(-kLog2E * x[i]);
        const float scaled = product[i] * sigmoid;
        dup[i] = scaled * x[i];
        dgate[i] = scaled * u[i] * fmaf(x[i], 1.0f - sigmoid, 1.0f);
      }
      StoreCallbacks::visit(product, vector, subtile_row, subtile_col, dup);
      return cutlass::NumericArrayConverter<T, float, kCount, kRound>::convert(dgate);
    }
  };

  template <bool kReferenceSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const fusion::detail::ConsumerStoreArgs<Args...>& args) {
    auto callbacks = Store::template get_consumer_store_callbacks<kReferenceSource>(args);
    return Callbacks<decltype(callbacks)>{callbacks};
  }
};

template <class T>
struct Backward {
  using Fusion =
      fusion::Sm90EVT<SwigluGradient<T>, fusion::Sm90SrcFetch<T>, typename LoadBeside<T>::Node>;

  static void launch(const SwigluBackwardOperands& x) {
    FusedProduct<T, RowMajor, T, Fusion>::launch(
        "swiglu_backward_product", x, x.gate,
        {{}, LoadBeside<T>::arguments(x.up), StoreThrough<T, T>::arguments(x.dup)});
  }
};

}  // namespace

void launch_swiglu_backward_sm90(const SwigluBackwardOperands& operands) {
  if (operands.dtype == DType::f16)
    Backward<cutlass::half_t>::launch(operands);
  else
    Backward<cutlass::bfloat16_t>::launch(operands);
}

}  // namespace binade::kernels::cuda
