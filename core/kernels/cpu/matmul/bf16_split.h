// Panels of BF16 parts, for large matmuls of f32, f16 and bf16 on BF16 tiles (amx_tile.h): both
// operands are split into parts as they are packed. Private to this folder.
#pragma once

#include <type_traits>

#include <binade/core/half.h>
#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/block_gemm.h>

namespace binade::kernels::cpu {

// An engine of BlockedMatmul, as VectorEngine (packed_panels.h) is. The parts of a task's rows for
// one step along k, 384 KiB, stay in the second level of the cache.
template <class T>
class Bf16SplitEngine {
 public:
  using Source = T;
  using Packed = uint16_t;
  // Of a number. The kernel has 2 × 2 tiles of the output at a time.
  static constexpr int kParts = std::is_same_v<T, BFloat16> ? 1 : std::is_same_v<T, Half> ? 2 : 3;
  static constexpr int64_t kMostDepth = 512, kStep = 512, kRows = 128;
  static constexpr int64_t kRowStep = 2 * TileKernel::kLines;
  static constexpr int64_t kMostPacked = int64_t{8} << 20;
  static constexpr bool kCopiesRows = true;
  static constexpr int64_t kFewRows = 384;  // whose parts, 1.1 MiB for a step, stay there too

  static int64_t column_step() { return 2 * TileKernel::kLines; }
  static int64_t depth(int64_t k) { return tiles(k) * TileKernel::kDepth * kParts; }

  struct Rows {
    const uint16_t* panels;
    int64_t m, k;
    bool usable;
  };
  bool pack_b(int64_t k, int64_t n, Block<const T> b, Packed* packed) const;
  int64_t row_buffer(int64_t m, int64_t k) const {
    return (m + TileKernel::kLines - 1) / TileKernel::kLines * TileKernel::kLines * depth(k);
  }
  Rows take_rows(int64_t m, int64_t k, Block<const T> a, Packed* buffer, float* sums) const;
  void multiply(const Rows& rows, int64_t n, const Packed* columns, bool accumulate, float* c,
                int64_t leading_c) const;

 private:
  static int64_t tiles(int64_t k) { return (k + TileKernel::kDepth - 1) / TileKernel::kDepth; }
};

}  // namespace binade::kernels::cpu
