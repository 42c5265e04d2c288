// The most probable tokens of rows of logits. A block takes a share of a row: each warp finds the
// best of its elements, which lie in registers, and one warp the best of those. Where a row has
// several shares, their best are a row again for the next round.
#include <binade/core/kernels/drafts.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/decode/pass_rows.cuh>
#include <binade/core/kernels/cuda/decode/token_search.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kTopThreads = 256;
constexpr int kPerThread = 8;
constexpr int kShare = kTopThreads * kPerThread;
constexpr int kWarps = kTopThreads / kWarp;

// A logit and its token as one number that grows with the order: 0 is none.
__device__ __forceinline__ uint64_t ranked(float logit, uint32_t token) {
  return uint64_t{key_of(logit)} << 32 | (~0u - token);
}

struct Larger {
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return max(a, b); }
};

// Takes the `count` largest of the warp's values, one after the other; lane 0 gives them to put().
template <int kValues, class Put>
__device__ __forceinline__ void take_largest(uint64_t (&values)[kValues], int count,
                                             const Put& put) {
  for (int i = 0; i < count; ++i) {
    uint64_t mine = 0;
#pragma unroll
    for (const uint64_t value : values) mine = max(mine, value);
    const uint64_t best = warp_reduce(mine, Larger());
#pragma unroll
    for (uint64_t& value : values)
      if (value == best) value = 0;  // values differ, but for those that are none
    if (threadIdx.x % kWarp == 0) put(i, best);
  }
}

// Elements of a row: of logits, or of what an earlier round left.
template <class T>
struct LogitSource {
  const T* data;
  int64_t row_stride;
  __device__ __forceinline__ uint64_t at(int64_t row, int i) const {
    return ranked(widen(data[row * row_stride + i]), static_cast<uint32_t>(i));
  }
};
struct RankedSource {
  const uint64_t* data;
  int64_t row_stride;
  __device__ __forceinline__ uint64_t at(int64_t row, int i) const {
    return data[row * row_stride + i];
  }
};

// Block (share, row): the `count` best of the share, as ranks for the next round or, where the row
// has one share, as tokens.
template <class Source>
__global__ void __launch_bounds__(kTopThreads)
    top_kernel(const Source source, int elements, int count, const int32_t* names,
               int64_t token_stride, uint64_t* best, int32_t* tokens) {
  wait_for_previous();
  const int64_t row = blockIdx.y;
  uint64_t values[kPerThread];
#pragma unroll
  for (int e = 0; e < kPerThread; ++e) {
    const int i = blockIdx.x * kShare + e * kTopThreads + threadIdx.x;
    values[e] = i < elements ? source.at(row, i) : 0;
  }
  __shared__ uint64_t of_warps[kWarps * kMostTopTokens];
  const int warp = threadIdx.x / kWarp;
  take_largest(values, count, [&](int i, uint64_t value) { of_warps[warp * count + i] = value; });
  __syncthreads();
  if (warp > 0) return;
  constexpr int kMerged = kWarps * static_cast<int>(kMostTopTokens) / kWarp;
  uint64_t merged[kMerged];
#pragma unroll
  for (int e = 0; e < kMerged; ++e) {
    const int i = e * kWarp + threadIdx.x;
    merged[e] = i < kWarps * count ? of_warps[i] : 0;
  }
  bool valid = true;
  take_largest(merged, count, [&](int i, uint64_t value) {
    if (best) {
      best[(row * gridDim.x + blockIdx.x) * count + i] = value;
      return;
    }
    const auto key = static_cast<uint32_t>(value >> 32);
    if (i == 0) valid = key != ~0u && key > key_of(-INFINITY);
    const auto column = static_cast<int32_t>(~0u - static_cast<uint32_t>(value));
    tokens[row * token_stride + i] = !valid ? -1 : names ? names[column] : column;
  });
}

template <class Source>
void top_rounds(const Source& source, int64_t rows, int64_t elements, const Array& names,
                const Array& tokens) {
  const int64_t shares = ceil_div(elements, kShare), count = tokens.size(1);
  dim3 grid(one_block_each(shares), one_block_each(rows));
  check(rows < 65536, "the most probable tokens are found for fewer than 65536 rows, got ", rows);
  if (shares == 1) {
    launch_early("top_tokens", top_kernel<Source>, grid, kTopThreads, EarlyOptions{}, source,
                 static_cast<int>(elements), static_cast<int>(count), i32_or_null(names),
                 tokens.stride(0), static_cast<uint64_t*>(nullptr), device_data<int32_t>(tokens));
    return;
  }
  const Workspace<uint64_t> best(rows * shares * count);
  launch_early("top_tokens", top_kernel<Source>, grid, kTopThreads, EarlyOptions{}, source,
               static_cast<int>(elements), static_cast<int>(count),
               static_cast<const int32_t*>(nullptr), int64_t{0}, best.data(),
               static_cast<int32_t*>(nullptr));
  top_rounds(RankedSource{best.data(), shares * count}, rows, shares * count, names, tokens);
}

}  // namespace

void top_tokens(const Array& logits, const Array& names, const Array& tokens) {
  visit_floating(logits.dtype(), "top_tokens", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    if constexpr (std::is_same_v<T, double>)
      fail("top_tokens on the GPU takes f32, f16 and bf16 logits, got f64");
    else
      top_rounds(LogitSource<T>{device_data<const T>(logits), logits.stride(0)}, logits.size(0),
                 logits.size(1), names, tokens);
  });
}

}  // namespace binade::kernels::cuda
