// Exponentials by the device's own instruction, which is of 2.
#pragma once

namespace binade::kernels::cuda {

inline constexpr float kLog2E = 1.44269504f;  // in the scale of scores: exponentials are of 2

// 2^x; 0 where that is no normal number.
__device__ __forceinline__ float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

}  // namespace binade::kernels::cuda
