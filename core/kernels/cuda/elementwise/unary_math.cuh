// Which elementary functions the formulas of unary_rules.h call, by the elements' type.
#pragma once

#include <type_traits>

#include <binade/core/kernels/unary_rules.h>

namespace binade::kernels::cuda {

// Approximations that take a few cycles; subnormal numbers are kept (no .ftz).
struct Instructions {
  static __device__ __forceinline__ float exp2(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ __forceinline__ float log2(float x) {
    float y;
    asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
};

// T is the type in memory.
template <class T>
using MathFor = std::conditional_t<sizeof(T) == 2, ShortMath<Instructions>, LibraryMath>;

}  // namespace binade::kernels::cuda
