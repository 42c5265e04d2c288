// Which elementary functions the formulas of unary_rules.h call, by the elements' type.
#pragma once

#include <type_traits>

#include <binade/core/kernels/unary_rules.h>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

// Approximations that take a few cycles; subnormal numbers are kept (no .ftz), for which each of
// them is some instructions.
struct Instructions {
  static constexpr bool kBeyondHalf = true;
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

// The single instructions, for elements of f16: what is subnormal as a float is 0 as a half.
struct HalfInstructions {
  static constexpr bool kBeyondHalf = false;
  static __device__ __forceinline__ float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ __forceinline__ float log2(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
};

// T is the type in memory.
template <class T>
using InstructionsFor =
    std::conditional_t<std::is_same_v<T, __half>, HalfInstructions, Instructions>;
template <class T>
using MathFor = std::conditional_t<sizeof(T) == 2, ShortMath<InstructionsFor<T>>, LibraryMath>;

}  // namespace binade::kernels::cuda
