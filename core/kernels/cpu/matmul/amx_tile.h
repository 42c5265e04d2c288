// FP32 matmuls on BF16 tiles (Intel AMX). A number x of 24 significant bits is split exactly into
// three BF16 parts of 8, x = x₀ + x₁ + x₂ with |x₁| ≤ 2⁻⁸·|x| and |x₂| ≤ 2⁻¹⁶·|x|, and the products
// xᵢ·yⱼ with i + j < 3, exact in FP32, are summed in FP32: what is left out is at most 2⁻²³ of x·y,
// 2⁻²⁶ in the root mean square (Henry, Tang & Heinecke, "Leveraging the bfloat16 artificial
// intelligence datatype for higher-precision computations", ARITH 2019). F16 numbers are two parts
// and their four products exact, BF16 numbers one.
//
// The tiles treat subnormal BF16 numbers and sums below 2⁻¹²⁶ as zero: numbers below about 2⁻¹¹⁰
// lose their last parts. Private to this folder.
#pragma once

#include <cstdint>

namespace binade::kernels::cpu {

struct TileKernel {
  static constexpr int64_t kLines = 16, kDepth = 32;  // rows of a or columns of b, and steps of k
  static constexpr int64_t kElements = kLines * kDepth;
  static constexpr int kMostParts = 3;
  // Numbers are split if all are smaller, so that no product or sum of up to 2¹⁵ products overflows
  // (the parts of an infinity would be NaN, and those of an infinite product of either sign).
  static constexpr float kLimit = 0x1p56f;

  // Cuts lines (rows of a, or columns of b) along k into panels of 16 lines, one after another, and
  // these into tiles (16 lines, 32 of k) of every part in turn: the parts of the first 32 of k,
  // those of the next 32 … Missing lines and the last of k are zeros. The source lies by lines
  // `leading` numbers apart, or by k. `sums`, if not null, has room for a multiple of 16 numbers
  // and receives Σ over k of every line. Returns false if some number is not below kLimit (NaN
  // included); then the panels are of no use. BF16 numbers are not split, and all are taken.
  using Split = bool (*)(int64_t lines, int64_t k, const void* from, int64_t leading,
                         uint16_t* panels, float* sums);
  // c (16·rows, 16·columns, by rows) = a · b for up to 2 × 2 tiles, or c += a · b when `add`; a's
  // and b's panels lie `a_panel` and `b_panel` elements apart and are `depth` tiles long. On the
  // way a share of two panels of b that come later is fetched into the second level of the cache,
  // from `ahead` on: the kFetches-th part of `depth` tiles.
  static constexpr int kFetches = 4;
  using Multiply = void (*)(int64_t depth, const uint16_t* a, int64_t a_panel, const uint16_t* b,
                            int64_t b_panel, const uint16_t* ahead, bool add, float* c,
                            int64_t leading_c);

  // [parts − 1: from BF16, F16, F32][whether the source lies by k]
  Split split_a[kMostParts][2], split_b[kMostParts][2];
  // [parts − 1][rows − 1][columns − 1], within a TileScope
  Multiply multiply[kMostParts][2][2];
  void (*configure)();
  void (*release)();
};

// The kernel, or null where the processor has no AMX, the system denies its use or the environment
// has BINADE_AMX=0 (read once).
const TileKernel* tile_kernel();

// The calling thread's tile registers, shaped for `multiply`.
class TileScope {
 public:
  explicit TileScope(const TileKernel& kernel) : kernel_(kernel) { kernel_.configure(); }
  ~TileScope() { kernel_.release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  const TileKernel& kernel_;
};

}  // namespace binade::kernels::cpu
