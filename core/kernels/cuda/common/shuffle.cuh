// Exchanges within a warp of any trivially copyable type made of 32-bit words. All 32 lanes must
// take part.
#pragma once

#include <cstring>

namespace binade::kernels::cuda {

namespace detail {

template <class T, class Shuffle>
__device__ __forceinline__ T shuffle_words(const T& value, const Shuffle& shuffle) {
  static_assert(sizeof(T) % 4 == 0);
  unsigned words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (unsigned& word : words) word = shuffle(word);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

}  // namespace detail

// The value of lane `lane ^ mask`.
template <class T>
__device__ __forceinline__ T shuffle_xor(const T& value, int mask) {
  return detail::shuffle_words(
      value, [&](unsigned word) { return __shfl_xor_sync(0xffffffffu, word, mask); });
}
// The value of the lane `distance` before this one; below it, the lane's own.
template <class T>
__device__ __forceinline__ T shuffle_up(const T& value, int distance) {
  return detail::shuffle_words(
      value, [&](unsigned word) { return __shfl_up_sync(0xffffffffu, word, distance); });
}
// The value of the lane `distance` behind this one; above lane 31, the lane's own.
template <class T>
__device__ __forceinline__ T shuffle_down(const T& value, int distance) {
  return detail::shuffle_words(
      value, [&](unsigned word) { return __shfl_down_sync(0xffffffffu, word, distance); });
}

}  // namespace binade::kernels::cuda
