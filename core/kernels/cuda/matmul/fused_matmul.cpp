#include <binade/core/kernels/cuda/matmul/fused_matmul.h>

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <limits>

#include <binade/core/cuda/runtime.h>
#include <binade/core/kernels/reduce.h>

#include <binade/core/kernels/cuda/common/device_pointer.h>
#include <binade/core/kernels/cuda/matmul/fused_matmul_sm90.h>

namespace binade::kernels::cuda {

namespace {

// Where it is not, the functions of fused_matmul_sm90.h are missing.
constexpr bool kBuilt = BINADE_HAVE_CUTLASS != 0;

// What TMA can move: contiguous rows, all at multiples of 16 bytes, sizes of 32 bits.
bool fits(const Array& x, DType dtype) {
  return x.dims() == 2 && x.dtype() == dtype && x.stride(1) == 1 && x.stride(0) >= x.size(1) &&
         x.stride(0) % 8 == 0 && x.size(0) > 0 && x.size(1) > 0 && x.size(1) % 8 == 0 &&
         x.size(0) <= std::numeric_limits<int>::max() - kFusedTileRows &&
         x.size(1) <= std::numeric_limits<int>::max() - kFusedTileCols &&
         std::bit_cast<uintptr_t>(x.data()) % 16 == 0;
}

bool applies(const Array& a, std::initializer_list<const Array*> others) {
  if (!kBuilt || !is_half(a.dtype())) return false;
  const auto& device = binade::cuda::device_properties();
  if (device.major != 9 || device.minor != 0) return false;
  if (!fits(a, a.dtype())) return false;
  return std::all_of(others.begin(), others.end(),
                     [&](const Array* x) { return !x->defined() || fits(*x, a.dtype()); });
}

RowMatrix matrix_of(const Array& x) {
  return x.defined() ? RowMatrix{device_pointer(x), x.stride(0)} : RowMatrix{};
}

FusedOperands operands_of(const Array& a, const Array& weight, const Array& out) {
  return {a.dtype(),    out.size(0),       out.size(1),   a.size(1),
          matrix_of(a), matrix_of(weight), matrix_of(out)};
}

// The sums that a kernel leaves for each row of tiles, until they are added up.
class ColumnSums {
 public:
  ColumnSums(const Array& sums, const FusedOperands& operands) : sums_(sums) {
    if (!sums.defined()) return;
    partial_ = Array::empty({fused_tile_rows(operands.m), operands.n}, DType::f32, sums.device());
  }
  float* partial() const {
    return partial_.defined() ? static_cast<float*>(partial_.data()) : nullptr;
  }
  void finish() const {
    if (sums_.defined()) reduce(ReduceOp::sum, partial_, sums_.unsqueeze(0), 0);
  }

 private:
  Array sums_, partial_;
};

bool fits_bias(const Array& bias, const Array& x) {
  return !bias.defined() || (bias.dtype() == x.dtype() && bias.is_contiguous());
}

}  // namespace

bool fused_matmul_gelu(const Array& x, const Array& weight, const Array& bias, const Array& pre,
                       const Array& out) {
  if (!applies(x, {&weight, &pre, &out}) || !fits_bias(bias, x)) return false;
  GeluOperands operands{operands_of(x, weight, out)};
  operands.pre = matrix_of(pre);
  if (bias.defined()) operands.bias = device_pointer(bias);
  if constexpr (kBuilt) launch_gelu_forward_sm90(operands);
  return true;
}

bool fused_matmul_gelu_backward(const Array& dy, const Array& weight, const Array& pre,
                                const Array& out, const Array& column_sums,
                                const Array& recomputed_gelu) {
  if (!applies(dy, {&weight, &pre, &out, &recomputed_gelu})) return false;
  GeluOperands operands{operands_of(dy, weight, out)};
  operands.pre = matrix_of(pre);
  operands.recomputed = matrix_of(recomputed_gelu);
  const ColumnSums sums(column_sums, operands);
  operands.partial_sums = sums.partial();
  if constexpr (kBuilt) launch_gelu_backward_sm90(operands);
  sums.finish();
  return true;
}

bool fused_matmul_relu(const Array& x, const Array& weight, const Array& bias, const Array& out) {
  if (!applies(x, {&weight, &out}) || !fits_bias(bias, x)) return false;
  ReluOperands operands{operands_of(x, weight, out)};
  if (bias.defined()) operands.bias = device_pointer(bias);
  if constexpr (kBuilt) launch_relu_forward_sm90(operands);
  return true;
}

bool fused_matmul_relu_backward(const Array& dy, const Array& weight, const Array& y,
                                const Array& out, const Array& column_sums) {
  if (!applies(dy, {&weight, &y, &out})) return false;
  ReluOperands operands{operands_of(dy, weight, out)};
  operands.y = matrix_of(y);
  const ColumnSums sums(column_sums, operands);
  operands.partial_sums = sums.partial();
  if constexpr (kBuilt) launch_relu_backward_sm90(operands);
  sums.finish();
  return true;
}

bool fused_matmul_swiglu(const Array& x, const Array& weight, const Array& pre,
                         const Array& hidden) {
  if (!applies(x, {&weight, &pre, &hidden}) || hidden.size(1) % kSwigluColumns != 0) return false;
  SwigluForwardOperands operands{operands_of(x, weight, hidden)};
  operands.pre = matrix_of(pre);
  if constexpr (kBuilt) launch_swiglu_forward_sm90(operands);
  return true;
}

bool fused_matmul_swiglu_backward(const Array& dy, const Array& weight, const Array& gate,
                                  const Array& up, const Array& dgate, const Array& dup) {
  if (!applies(dy, {&weight, &gate, &up, &dgate, &dup})) return false;
  SwigluBackwardOperands operands{operands_of(dy, weight, dgate)};
  operands.gate = matrix_of(gate);
  operands.up = matrix_of(up);
  operands.dup = matrix_of(dup);
  if constexpr (kBuilt) launch_swiglu_backward_sm90(operands);
  return true;
}

}  // namespace binade::kernels::cuda
