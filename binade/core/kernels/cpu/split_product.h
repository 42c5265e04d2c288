// f32 products on BF16 tiles (amx_tile.h): both operands are split into parts as they are packed.
// Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/amx_tile.h>
#include <binade/core/kernels/cpu/matmul_gemm.h>

namespace binade::kernels::cpu {

// An engine of PackedProduct, as VectorEngine (packed_product.h) is. The rows of a task and their
// parts for one step along k are 768 KiB: they stay in the second level of the cache.
class SplitEngine {
 public:
  using Packed = uint16_t;
  static constexpr int64_t kMostDepth = 512, kStep = 512, kRows = 128;
  static constexpr int64_t kRowStep = 2 * TileKernel::kLines;
  static constexpr int64_t kMostPacked = int64_t{8} << 20;
  static constexpr bool kCopiesRows = true;

  // Operands that were `dtype` before they were converted to f32.
  explicit SplitEngine(DType dtype)
      : parts_(dtype == DType::bf16  ? 1
               : dtype == DType::f16 ? 2
                                     : 3) {}
  static int64_t column_step() { return 2 * TileKernel::kLines; }
  int64_t depth(int64_t k) const { return tiles(k) * TileKernel::kDepth * parts_; }

  struct Rows {
    const uint16_t* panels;
    int64_t m, k;
    bool usable;
  };
  bool pack_b(int64_t k, int64_t n, Block<const float> b, Packed* packed) const;
  int64_t row_buffer(int64_t m, int64_t k) const {
    return (m + TileKernel::kLines - 1) / TileKernel::kLines * TileKernel::kLines * depth(k);
  }
  Rows take_rows(int64_t m, int64_t k, Block<const float> a, Packed* buffer, float* sums) const;
  void multiply(const Rows& rows, int64_t n, const Packed* columns, bool accumulate, float* c,
                int64_t leading_c) const;

 private:
  static int64_t tiles(int64_t k) { return (k + TileKernel::kDepth - 1) / TileKernel::kDepth; }

  int parts_;
};

}  // namespace binade::kernels::cpu
