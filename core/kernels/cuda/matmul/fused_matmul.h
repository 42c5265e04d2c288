// Matmuls with an activation in their epilogue for Hopper, through CUTLASS: cuBLASLt's with GELU
// take half as long again as the matmul alone, these little more; its ReLU loses NaN, and SwiGLU it
// has none. f16 or
// bf16, f32 sums. Each returns false, having queued nothing, where it does not apply: on other
// devices, without CUTLASS at build time, for rows that are not contiguous, and for sizes,
// distances of rows or addresses that are not multiples of 8 elements.
//
// They run in a fixed order: equal inputs give equal bits.
#pragma once

#include <binade/core/array.h>

namespace binade::kernels::cuda {

// pre (M, N) = x (M, K) · weightᵀ + bias and out (M, N) = gelu_tanh of that before its rounding,
// for weight (N, K). All of one dtype; bias (N) and pre may be undefined.
bool fused_matmul_gelu(const Array& x, const Array& weight, const Array& bias, const Array& pre,
                       const Array& out);

// out (M, N) = (dy (M, K) · weight (K, N)) · gelu_tanh'(pre (M, N)), all of one dtype. What follows
// may be undefined: column_sums (N), f32, receives the sums over M of what out holds,
// recomputed_gelu (M, N) gelu_tanh(pre). out, pre and recomputed_gelu must be apart.
bool fused_matmul_gelu_backward(const Array& dy, const Array& weight, const Array& pre,
                                const Array& out, const Array& column_sums,
                                const Array& recomputed_gelu);

// out (M, N) = x (M, K) · weightᵀ + bias where that is above 0 or NaN, else 0, for weight (N, K).
// All of one dtype; bias (N) may be undefined.
bool fused_matmul_relu(const Array& x, const Array& weight, const Array& bias, const Array& out);

// out (M, N) = dy (M, K) · weight (K, N) where y (M, N) is above 0 or NaN, else 0, all of one
// dtype; out and y must be apart. column_sums (N), f32, unless it is undefined, receives the sums
// over M of what out holds.
bool fused_matmul_relu_backward(const Array& dy, const Array& weight, const Array& y,
                                const Array& out, const Array& column_sums);

// hidden (M, N) = silu(gate)·up for (gate, up) = x (M, K) · weightᵀ, weight (2 N, K), of what their
// rounding leaves; both side by side in pre (M, 2 N), unless that is undefined. All of one dtype,
// the outputs apart from the inputs and from each other. N must be a multiple of 64.
bool fused_matmul_swiglu(const Array& x, const Array& weight, const Array& pre,
                         const Array& hidden);

// dgate and dup (M, N): the gradients of h = silu(gate)·up for dh = dy (M, K) · weight (K, N),
// which is rounded to f32 only. gate, up (M, N), all of one dtype, the outputs apart from the
// inputs.
bool fused_matmul_swiglu_backward(const Array& dy, const Array& weight, const Array& gate,
                                  const Array& up, const Array& dgate, const Array& dup);

}  // namespace binade::kernels::cuda
