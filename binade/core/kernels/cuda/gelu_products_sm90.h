// The device part of gelu_products.cpp, which is built where CUTLASS is and runs on devices of
// compute capability 9.0 only.
#pragma once

#include <cstdint>

#include <binade/core/dtype.h>

namespace binade::kernels::cuda {

// out (m, n) of a (m, k) and a weight, all f16 or bf16, 16-byte aligned, with contiguous rows
// `ld_…` elements apart; sizes and distances are multiples of 8.
struct GeluOperands {
  DType dtype;
  int64_t m, n, k;
  const void* a;
  const void* weight;  // (n, k) forward, (k, n) backward
  const void* bias;    // (n), or null
  void* pre;           // (m, n); forward writes it, unless it is null, and backward reads it
  void* out;
  void* gelu_again;  // (m, n), or null: backward writes gelu(pre)
  int64_t ld_a, ld_weight, ld_pre, ld_out, ld_gelu_again;
  float* partial_sums;  // backward, or null: receives (gelu_tile_rows(m), n)
};

inline constexpr int64_t kGeluTileRows = 128, kGeluTileCols = 128;

constexpr int64_t gelu_tile_rows(int64_t m) {
  return (m + kGeluTileRows - 1) / kGeluTileRows;
}

// Queue the product on the current stream.
void launch_gelu_forward_sm90(const GeluOperands& operands);
void launch_gelu_backward_sm90(const GeluOperands& operands);

}  // namespace binade::kernels::cuda
