// Attention of up to 16 queries against keys that a warp has in registers, on tensor cores (private
// to this folder): both multiplications take them as they lie in the cache (Dao et al. 2022,
// "FlashAttention"; the running softmax is that of Milakov & Gimelshein 2018).
#pragma once

#include <binade/core/kernels/cuda/decode/attend.cuh>
#include <binade/core/kernels/cuda/decode/mma_rows.cuh>

namespace binade::kernels::cuda {

inline constexpr int kWarpKeys = 16;   // that a warp has at a time
inline constexpr int kQueryRows = 16;  // of a tile of queries
inline constexpr float kNoScore = -INFINITY;

// Floats that a share of the keys, or a warp, leaves of a query: sums, the largest score, the
// total.
__host__ __device__ constexpr int share_floats(int dim) {
  return dim + 4;
}
template <int kDim>
__device__ __forceinline__ Merged part_of(const float* share, int d) {
  return {share[kDim], share[kDim + 1], share[d]};
}

// The lowest n bits of a warp's keys.
__device__ __forceinline__ unsigned lowest_keys(int n) {
  return (1u << max(0, min(n, kWarpKeys))) - 1;
}
// Which of a warp's keys a query sees, the lowest bit that of key `from`: of a prefix of `length`
// tokens those from `first` on, of the pending ones those of `sees`, and none from `stop` on.
__device__ __forceinline__ unsigned seen_keys(int from, int stop, int length, int first,
                                              uint64_t sees) {
  const int old = length - from;
  const unsigned pending = old >= kWarpKeys ? 0
                           : old >= 0       ? static_cast<unsigned>(sees << old)
                                            : static_cast<unsigned>(sees >> -old);
  return ((lowest_keys(old) & ~lowest_keys(first - from)) | pending) & lowest_keys(stop - from);
}
// Of these, keys 2 · (lane % 4) + {0, 1, 8, 9}: bits 0 to 3.
__device__ __forceinline__ unsigned lane_keys(unsigned keys) {
  const unsigned own = keys >> (threadIdx.x % 4 * 2);
  return (own & 3) | (own >> 6 & 12);
}

// The keys and values of kWarpKeys tokens. A lane has, of 8 dimensions at a time, keys lane / 4 and
// 8 more (dimensions 8 · (lane % 4) of each 32), and values of keys 2 · (lane % 4) + {0, 1, 8, 9}
// (dimensions 8 · (lane / 4) of each 64).
template <int kDim>
struct WarpKeys {
  static_assert(kDim % 64 == 0);
  static constexpr int kKeySteps = kDim / 32, kValueSteps = kDim / 64;
  uint4 keys[2][kKeySteps], values[4][kValueSteps];

  __device__ static __forceinline__ int key_of(int i) {  // whose key i the lane has
    return i * 8 + threadIdx.x % kWarp / 4;
  }
  __device__ static __forceinline__ int value_of(int i) {
    return threadIdx.x % 4 * 2 + i % 2 + i / 2 * 8;
  }
  // row_of(kind, token) is where the key (0) or value (1) of one of them lies, or null: nothing is
  // read.
  template <class RowOf>
  __device__ __forceinline__ void load(const RowOf& row_of) {
    const int key_at = threadIdx.x % 4 * 8, value_at = threadIdx.x % kWarp / 4 * 8;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const auto* row = row_of(0, key_of(i));
#pragma unroll
      for (int s = 0; s < kKeySteps; ++s)
        if (row) keys[i][s] = *reinterpret_cast<const uint4*>(row + s * 32 + key_at);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto* row = row_of(1, value_of(i));
#pragma unroll
      for (int s = 0; s < kValueSteps; ++s)
        if (row) values[i][s] = *reinterpret_cast<const uint4*>(row + s * 64 + value_at);
    }
  }
  // Rows of `stride` elements; those behind the last one are the last.
  template <class T>
  __device__ __forceinline__ void load(const T* key_rows, int key_stride, const T* value_rows,
                                       int value_stride, int last) {
    const int key_at = threadIdx.x % 4 * 8, value_at = threadIdx.x % kWarp / 4 * 8;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const T* row = key_rows + int64_t{min(key_of(i), last)} * key_stride + key_at;
#pragma unroll
      for (int s = 0; s < kKeySteps; ++s)
        keys[i][s] = *reinterpret_cast<const uint4*>(row + s * 32);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const T* row = value_rows + int64_t{min(value_of(i), last)} * value_stride + value_at;
#pragma unroll
      for (int s = 0; s < kValueSteps; ++s)
        values[i][s] = *reinterpret_cast<const uint4*>(row + s * 64);
    }
  }
  // Makes zeros of values whose bit, that of lane_keys(), is not set: what nobody sees need not be
  // a number.
  __device__ __forceinline__ void keep_values(unsigned bits) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if ((bits >> i & 1) == 0)
#pragma unroll
        for (uint4& words : values[i]) words = make_uint4(0, 0, 0, 0);
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& key : keys)
#pragma unroll
      for (uint4& words : key) words = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (auto& value : values)
#pragma unroll
      for (uint4& words : value) words = make_uint4(0, 0, 0, 0);
  }
};

// A warp's running softmax for the queries of a tile, 8 · kHalves of them: a lane has rows lane / 4
// and 8 more, each with the same largest score as the other lanes of its row.
template <int kDim, int kHalves>
struct WarpSoftmax {
  static constexpr int kTiles = kDim / 8;
  float largest[2] = {kNoScore, kNoScore}, total[2] = {0, 0};
  float sums[kTiles][4] =
      {};  // of tile n: dimensions 64 · (n / 8) + 8 · (2 · (lane % 4) + e) + n % 8

  // queries: rows of `stride` bytes in shared memory, the first `rows` of which count. Bit 4 · r +
  // e of `seen` says whether the lane's query r sees key 2 · (lane % 4) + {0, 1, 8, 9}[e] of the
  // warp's. scale: with log2(e). first: nothing was seen before.
  template <class T>
  __device__ __forceinline__ void attend(const WarpKeys<kDim>& at, const unsigned char* queries,
                                         int stride, int rows, float scale, unsigned seen,
                                         bool first) {
    const int lane = threadIdx.x % kWarp, own_row = lane / 4;
    const T* kind = nullptr;
    float scores[2][4] = {};
#pragma unroll
    for (int s = 0; s < WarpKeys<kDim>::kKeySteps; ++s) {
      const unsigned char* from = queries + own_row * stride + s * 64 + lane % 4 * 16;
      uint4 upper = make_uint4(0, 0, 0, 0), lower = upper;
      if (own_row < rows) upper = *reinterpret_cast<const uint4*>(from);
      if (kHalves == 2 && own_row + 8 < rows)
        lower = *reinterpret_cast<const uint4*>(from + 8 * stride);
      const uint32_t one[4] = {upper.x, lower.x, upper.y, lower.y};
      const uint32_t two[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(scores[i], kind, one, at.keys[i][s].x, at.keys[i][s].y);
        multiply_add(scores[i], kind, two, at.keys[i][s].z, at.keys[i][s].w);
      }
    }
    uint32_t high[4] = {}, low[4] = {};  // of the weights, as one half and what it leaves
#pragma unroll
    for (int r = 0; r < kHalves; ++r) {
      float most = largest[r], score[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        score[e] = seen >> (4 * r + e) & 1 ? scores[e / 2][r * 2 + e % 2] * scale : kNoScore;
        most = fmaxf(most, score[e]);
      }
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      const float base = most == kNoScore ? 0 : most;  // nothing seen so far: weights of 0
      float weights[4], added = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        weights[e] = power_of_two(score[e] - base);
        added += weights[e];
      }
      if (first) {
        total[r] = added;  // of this lane's keys until finish()
      } else {
        const float factor = power_of_two(largest[r] - base);
        total[r] = total[r] * factor + added;
#pragma unroll
        for (auto& sum : sums) {
          sum[r * 2] *= factor;
          sum[r * 2 + 1] *= factor;
        }
      }
      largest[r] = most;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Vec<T, 2> near{narrow<T>(weights[2 * i]), narrow<T>(weights[2 * i + 1])};
        const Vec<T, 2> rest{narrow<T>(weights[2 * i] - widen(near.value[0])),
                             narrow<T>(weights[2 * i + 1] - widen(near.value[1]))};
        high[i * 2 + r] = *reinterpret_cast<const uint32_t*>(&near);
        low[i * 2 + r] = *reinterpret_cast<const uint32_t*>(&rest);
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      // Dimension n % 8 of four vectors of eight.
      const auto word_of = [&](int i) {
        const uint4& words = at.values[i][n / 8];
        return n % 8 / 2 == 0   ? words.x
               : n % 8 / 2 == 1 ? words.y
               : n % 8 / 2 == 2 ? words.z
                                : words.w;
      };
      constexpr unsigned kLower = 0x5410, kUpper = 0x7632;
      const unsigned half = n % 2 == 0 ? kLower : kUpper;
      const uint32_t b0 = __byte_perm(word_of(0), word_of(1), half);
      const uint32_t b1 = __byte_perm(word_of(2), word_of(3), half);
      multiply_add(sums[n], kind, high, b0, b1);
      multiply_add(sums[n], kind, low, b0, b1);
    }
  }

  // Makes totals those of whole rows.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (float& t : total) {
      t += __shfl_xor_sync(0xffffffffu, t, 1);
      t += __shfl_xor_sync(0xffffffffu, t, 2);
    }
  }

  // Writes what the warp has of the first `rows` queries, share_floats() each, to 16-byte aligned
  // shared memory.
  __device__ __forceinline__ void leave(int rows, float* to) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int r = 0; r < kHalves; ++r) {
      const int row = lane / 4 + r * 8;
      if (row >= rows) continue;
      float* of_row = to + row * share_floats(kDim);
#pragma unroll
      for (int n = 0; n < kTiles; n += 4)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int i = r * 2 + e;
          *reinterpret_cast<float4*>(of_row + n / 8 * 64 + (lane % 4 * 2 + e) * 8 + n % 8) =
              make_float4(sums[n][i], sums[n + 1][i], sums[n + 2][i], sums[n + 3][i]);
        }
      if (lane % 4 != 0) continue;
      *reinterpret_cast<float2*>(of_row + kDim) = make_float2(largest[r], total[r]);
    }
  }
};

}  // namespace binade::kernels::cuda
