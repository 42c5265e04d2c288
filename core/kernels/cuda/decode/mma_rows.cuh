// Multiplications of few rows on tensor cores (private to this folder). A lane reads 16 bytes of a
// weight's row at a time, which are the operands of two m16n8k16 multiplications: the order of
// columns inside them does not matter, if only both operands have the same one.
#pragma once

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/tensor_cores.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

inline constexpr int kTile = 8;   // rows of a weight
inline constexpr int kStep = 32;  // columns that a warp multiplies at a time
inline constexpr int kRowUnit = 8;

template <class T>
__device__ __forceinline__ float squares_of(const uint4& words) {
  const auto values = *reinterpret_cast<const Vec<T, 8>*>(&words);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += widen(values.value[i]) * widen(values.value[i]);
  return sum;
}

// What the norm makes of eight columns.
template <class T>
__device__ __forceinline__ void normalise(uint4& words, float rstd, const float (&weight)[8]) {
  auto& values = *reinterpret_cast<Vec<T, 8>*>(&words);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = narrow<T>(widen(values[i]) * rstd * weight[i]);
}

}  // namespace binade::kernels::cuda
