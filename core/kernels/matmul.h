// Matmuls. Half inputs multiply with f32 accumulation on both devices.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// What is fused behind a matmul. Arrays left undefined are not used.
struct MatmulEpilogue {
  float beta = 0;     // out = beta·out + a·b; 0 or 1
  Array bias;         // (N): added to every row before the activation
  bool relu = false;  // instead of `gelu`; keeps NaN, as UnaryOp::relu does
  bool gelu = false;  // tanh form; then pre_activation, if defined, receives the value before it
  // (…, M, N), out's dtype; written with `gelu`, read with `dgelu` and `drelu`
  Array pre_activation;
  bool dgelu = false;  // out = (a·b) · gelu_tanh'(pre_activation)
  // out = a·b where pre_activation, or relu of it, is above 0 or NaN, else 0. Two-dimensional
  // matmuls only, without bias, beta or another activation.
  bool drelu = false;
  // (…, M, N), out's dtype, memory of its own; with `dgelu`: receives gelu_tanh(pre_activation),
  // rounded once. A matmul that reads the one can store the other on the way.
  Array recomputed_gelu;
  // (N), two-dimensional matmuls only: receives the sums over M of what out holds afterwards. f32
  // (f64 for f64 matmuls).
  Array out_sums;
  // (M), two-dimensional matmuls only: receives (+ a_sums_beta·) the sums of a's rows over K, in
  // f32 sums. With a = dyᵀ these are the bias gradient beside the weight gradient.
  Array a_sums;
  float a_sums_beta = 0;
};

// out (…, M, N) = a (…, M, K) · b (…, K, N), all of one floating dtype, with equal leading
// dimensions (a or b may be expanded: stride 0). out's dtype may be f32 for half inputs. a and b
// may be transposed views: no transpose is materialised as long as one of the last two strides
// is 1.
BINADE_KERNEL(matmul, const Array& a, const Array& b, const Array& out,
              const MatmulEpilogue& epilogue)

// The two halves of a SwiGLU layer that meet a matmul. All arrays of one floating dtype, with
// contiguous rows, the outputs apart from the inputs. Large ones on Hopper GPUs are one kernel
// each.
//
// hidden (M, H) = silu(gate)·up for (gate, up) = x (M, K) · weightᵀ, weight (2H, K), after their
// rounding to the dtype; both side by side in pre (M, 2H), unless that is undefined.
BINADE_KERNEL(matmul_swiglu, const Array& x, const Array& weight, const Array& pre,
              const Array& hidden)
// dgate and dup (M, H): the gradients of gate and up (M, H), as swiglu_backward (elementwise.h)
// makes them of dy (M, K) · weight (K, H), whose rounding to the dtype is left out where the device
// does it in one kernel.
BINADE_KERNEL(matmul_swiglu_backward, const Array& dy, const Array& weight, const Array& gate,
              const Array& up, const Array& dgate, const Array& dup)

}  // namespace binade::kernels
