// 16 bytes from anywhere, by two aligned accesses.
#pragma once

#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

// Elements [0, 16 / sizeof(T)) from `data` on, wherever it points. Of these only [first, last) are
// wanted: a 16-byte line that has none of them is not touched, and the others may be anything.
template <class T>
__device__ __forceinline__ Vec<T, kVecWidth<T>> load_unaligned(const T* data, int first, int last) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  const int shift = static_cast<int>(address % 16);
  const int split = (16 - shift) / static_cast<int>(sizeof(T));  // where the second line begins
  const auto* line = reinterpret_cast<const uint4*>(address - shift);
  uint4 low{}, high{};
  if (first < min(last, split)) low = line[0];
  if (last > max(first, split)) high = line[1];
  unsigned words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int step = 2; step > 0; step /= 2) {
    if ((shift / 4 & step) == 0) continue;
#pragma unroll
    for (int i = 0; i + step < 8; ++i) words[i] = words[i + step];
  }
  if constexpr (sizeof(T) < 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = __funnelshift_r(words[i], words[i + 1], shift % 4 * 8);
  }
  const uint4 result{words[0], words[1], words[2], words[3]};
  return reinterpret_cast<const Vec<T, kVecWidth<T>>&>(result);
}

}  // namespace binade::kernels::cuda
