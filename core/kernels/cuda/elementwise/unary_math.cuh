// Which elementary functions the formulas of unary_rules.h call, by the elements' type.
#pragma once

#include <type_traits>

#include <binade/core/kernels/unary_rules.h>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

// Approximations. Those that keep subnormal numbers (no .ftz) take a few cycles, for which each is
// some instructions; the others are single instructions, for elements of f16: what is subnormal as
// a float is 0 as a half.
template <bool kSubnormal>
struct Instructions {
  static constexpr bool kBeyondHalf = kSubnormal;
#define BINADE_INSTRUCTION(function, name)                    \
  static __device__ __forceinline__ float function(float x) { \
    float y;                                                  \
    if constexpr (kSubnormal)                                 \
      asm(name ".f32 %0, %1;" : "=f"(y) : "f"(x));            \
    else                                                      \
      asm(name ".ftz.f32 %0, %1;" : "=f"(y) : "f"(x));        \
    return y;                                                 \
  }
  BINADE_INSTRUCTION(exp2, "ex2.approx")
  BINADE_INSTRUCTION(log2, "lg2.approx")
  BINADE_INSTRUCTION(reciprocal, "rcp.approx")
#undef BINADE_INSTRUCTION
};

// T is the type in memory.
template <class T>
using InstructionsFor = Instructions<!std::is_same_v<T, __half>>;
template <class T>
using MathFor = std::conditional_t<sizeof(T) == 2, ShortMath<InstructionsFor<T>>, LibraryMath>;

}  // namespace binade::kernels::cuda
