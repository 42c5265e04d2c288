// Running folds within a warp, of any trivially copyable type made of 32-bit words.
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

// join(…join(lane 0's, lane 1's)…, this lane's). All 32 lanes of the warp must take part.
template <class T, class Join>
__device__ __forceinline__ T warp_scan(T value, const Join& join) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T before = shuffle_up(value, distance);
    if (lane >= distance) value = join(before, value);
  }
  return value;
}
// join(this lane's, …join(lane 30's, lane 31's)…).
template <class T, class Join>
__device__ __forceinline__ T warp_scan_back(T value, const Join& join) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T behind = shuffle_down(value, distance);
    if (lane + distance < 32) value = join(value, behind);
  }
  return value;
}

}  // namespace binade::kernels::cuda
