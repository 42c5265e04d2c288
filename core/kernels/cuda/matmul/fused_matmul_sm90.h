// The device part of fused_matmul.cpp, which is built where CUTLASS is and runs on devices of
// compute capability 9.0 only.
#pragma once

#include <cstdint>

#include <binade/core/dtype.h>

namespace binade::kernels::cuda {

// A matrix in memory: contiguous rows `ld` elements apart; null: not there.
struct RowMatrix {
  void* data = nullptr;
  int64_t ld = 0;
};

// out (m, n) of a (m, k) and a weight, all f16 or bf16, 16-byte aligned; sizes and distances of
// rows are multiples of 8.
struct FusedOperands {
  DType dtype;
  int64_t m, n, k;
  RowMatrix a, weight, out;
};

// The weight is (n, k) forward, (k, n) backward.
struct GeluOperands : FusedOperands {
  const void* bias;      // forward: (n), or null
  RowMatrix pre;         // (m, n); forward writes it, if it is there, and backward reads it
  RowMatrix recomputed;  // (m, n), or null: backward writes gelu(pre)
  float* partial_sums;   // backward, or null: receives (fused_tile_rows(m), n)
};

// The weight is (n, k) forward, (k, n) backward.
struct ReluOperands : FusedOperands {
  const void* bias;     // forward: (n), or null
  RowMatrix y;          // backward: (m, n), ReLU's output
  float* partial_sums;  // backward, or null: receives (fused_tile_rows(m), n)
};

// `out` is silu(gate)·up; the weight is (2 n, k), the gate's rows before those of up, and n a
// multiple of kSwigluColumns.
struct SwigluForwardOperands : FusedOperands {
  RowMatrix pre;  // (m, 2 n), gate beside up, or null
};

// `out` is the gradient of the gate; the weight is (k, n).
struct SwigluBackwardOperands : FusedOperands {
  RowMatrix gate, up, dup;  // (m, n)
};

inline constexpr int64_t kFusedTileRows = 128, kFusedTileCols = 128;
inline constexpr int64_t kSwigluColumns = 64;  // of a tile of SwiGLU's forward matmul

constexpr int64_t fused_tile_rows(int64_t m) {
  return (m + kFusedTileRows - 1) / kFusedTileRows;
}

// Queue the kernel on the current stream.
void launch_gelu_forward_sm90(const GeluOperands& operands);
void launch_gelu_backward_sm90(const GeluOperands& operands);
void launch_relu_forward_sm90(const ReluOperands& operands);
void launch_relu_backward_sm90(const ReluOperands& operands);
void launch_swiglu_forward_sm90(const SwigluForwardOperands& operands);
void launch_swiglu_backward_sm90(const SwigluBackwardOperands& operands);

}  // namespace binade::kernels::cuda
