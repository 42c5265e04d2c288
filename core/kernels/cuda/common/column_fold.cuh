// Folding the columns of a matrix whose rows are contiguous: bias gradients, gradients of the
// norms' weights. A block takes 16-byte vectors of neighbouring columns, a warp a row at a time,
// and leaves one partial result a column; a second kernel folds the partials. Both orders follow
// from the shape alone.
#pragma once

#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>
#include <binade/core/kernels/cuda/common/vec_dtype.cuh>

namespace binade::kernels::cuda {

template <class C>
struct SumFold {
  __device__ C identity() const { return C(0); }
  __device__ __forceinline__ C operator()(C a, C b) const { return a + b; }
};

// Where a result goes: element o of the output, divided, added to what is there.
template <class C>
struct Target {
  void* out = nullptr;
  DType dtype = DType::f32;
  int64_t divisor = 1;  // not 1 for means only
  bool accumulate = false;
  __device__ void store(int64_t offset, C value) const {
    if (divisor != 1) value /= static_cast<C>(divisor);
    if (accumulate) value += load_as<C>(out, offset, dtype);
    store_as(out, offset, dtype, value);
  }
  // `count` of kCount neighbours, as vectors; false, and nothing is stored, where they are none.
  template <int kCount>
  __device__ __forceinline__ bool store_vectors(int64_t offset, int count,
                                                const C (&values)[kCount]) const {
    if constexpr (std::is_floating_point_v<C>) {
      const int64_t bytes = kCount * item_bytes(dtype);
      const int64_t start = reinterpret_cast<int64_t>(out) + offset * item_bytes(dtype);
      const bool plain = divisor == 1 && !accumulate && is_float(dtype);
      if (plain && count == kCount && start % (bytes < 16 ? bytes : 16) == 0) {
        store_run_as<kCount>(out, offset, dtype, values);
        return true;
      }
    }
    return false;
  }

 private:
  static __device__ constexpr int64_t item_bytes(DType dtype) {
    return dtype == DType::f64 || dtype == DType::i64    ? 8
           : dtype == DType::f32 || dtype == DType::i32  ? 4
           : dtype == DType::f16 || dtype == DType::bf16 ? 2
                                                         : 1;
  }
  static __device__ constexpr bool is_float(DType dtype) {
    return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 ||
           dtype == DType::bf16;
  }
};

// What is folded: kVec neighbours of a row of x (rows, cols). A source reads them and then gives
// their values, each place once, so that it may make and store them on the way.
template <int kVec, class T>
struct RowSource {
  using Element = T;
  using Read = Vec<T, kVec>;
  static constexpr int kWidth = kVec;
  static constexpr int kInFlight = 8;  // reads of a thread that do not wait for each other
  const T* x;
  int64_t row_stride;
  __device__ __forceinline__ Read read(int64_t row, int64_t col) const {
    return load_vec<kVec>(x + row * row_stride + col);
  }
  __device__ __forceinline__ Vec<T, kVec> values(const Read& read, int64_t, int64_t) const {
    return read;
  }
};

// Block (t, s) folds rows [s·chunk, (s+1)·chunk) of the columns of tile t (kWarp·kVec of them) into
// partial (splits, cols). Warp w takes every 8th row, beginning with the chunk's row w.
template <class Source, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_columns_kernel(Source source, int64_t rows, int64_t cols, int64_t chunk, Fold fold,
                        ComputeOf<typename Source::Element>* partial) {
  using T = typename Source::Element;
  using C = ComputeOf<T>;
  constexpr int kVec = Source::kWidth;
  constexpr int kWarps = kBlock / kWarp;
  constexpr int kInFlight = Source::kInFlight;
  __shared__ C shared[kWarps][kVec][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t col = (int64_t{blockIdx.x} * kWarp + lane) * kVec;
  C folded[kVec];
#pragma unroll
  for (C& f : folded) f = fold.identity();
  if (col < cols) {
    const int64_t first = int64_t{blockIdx.y} * chunk, end = min(rows, first + chunk);
    int64_t row = first + warp;
    for (; row + (kInFlight - 1) * kWarps < end; row += kInFlight * kWarps) {
      typename Source::Read read[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) read[i] = source.read(row + i * kWarps, col);
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const Vec<T, kVec> values = source.values(read[i], row + i * kWarps, col);
#pragma unroll
        for (int j = 0; j < kVec; ++j) folded[j] = fold(folded[j], widen(values[j]));
      }
    }
    for (; row < end; row += kWarps) {
      const Vec<T, kVec> values = source.values(source.read(row, col), row, col);
#pragma unroll
      for (int j = 0; j < kVec; ++j) folded[j] = fold(folded[j], widen(values[j]));
    }
  }
#pragma unroll
  for (int j = 0; j < kVec; ++j) shared[warp][j][lane] = folded[j];
  __syncthreads();
  // The block's columns in their order, one a thread.
  for (int c = threadIdx.x; c < kWarp * kVec; c += kBlock) {
    const int64_t place = int64_t{blockIdx.x} * kWarp * kVec + c;
    if (place >= cols) continue;
    C result = shared[0][c % kVec][c / kVec];
    for (int w = 1; w < kWarps; ++w) result = fold(result, shared[w][c % kVec][c / kVec]);
    partial[blockIdx.y * cols + place] = result;
  }
}

// Targets whose partial results lie behind each other.
template <class C>
struct FoldTargets {
  static constexpr int kMost = 3;
  Target<C> target[kMost] = {};
  int count = 0;
};

// Element c·out_stride of target t from the `count` rows of partial (targets, count, cols). A block
// takes 32 columns, each of its 8 warps every 8th row.
template <class C, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_partials_kernel(const C* partial, int64_t count, int64_t cols, int64_t out_stride,
                         Fold fold, FoldTargets<C> targets) {
  partial += blockIdx.y * count * cols;
  constexpr int kWarps = kBlock / kWarp;
  __shared__ C total[kWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t col = int64_t{blockIdx.x} * kWarp + lane;
  C result = fold.identity();
  if (col < cols) {
#pragma unroll 8
    for (int64_t i = warp; i < count; i += kWarps) result = fold(result, partial[i * cols + col]);
  }
  total[warp][lane] = result;
  __syncthreads();
  if (warp != 0 || col >= cols) return;
  for (int w = 1; w < kWarps; ++w) result = fold(result, total[w][lane]);
  targets.target[blockIdx.y].store(col * out_stride, result);
}

template <class C, class Fold>
void fold_partials(const C* partial, int64_t count, int64_t cols, int64_t out_stride,
                   const Fold& fold, const FoldTargets<C>& targets) {
  launch("fold_partials", fold_partials_kernel<C, Fold>,
         dim3(one_block_each(ceil_div(cols, kWarp)), static_cast<unsigned>(targets.count)), kBlock,
         0, partial, count, cols, out_stride, fold, targets);
}

// The columns of `source` (rows, cols), whose rows hold whole vectors.
template <class Source, class Fold>
void fold_columns(const char* name, const Source& source, int64_t rows, int64_t cols,
                  int64_t out_stride, const Fold& fold,
                  const Target<ComputeOf<typename Source::Element>>& target) {
  using C = ComputeOf<typename Source::Element>;
  constexpr int kVec = Source::kWidth;
  constexpr int64_t kWarps = kBlock / kWarp;
  constexpr int64_t kWantedBlocks = 2048;  // a few waves on any device
  const int64_t tiles = ceil_div(cols, kWarp * kVec);
  const int64_t splits = std::clamp<int64_t>(ceil_div(kWantedBlocks, tiles), 1,
                                             std::min<int64_t>(ceil_div(rows, 4 * kWarps), 512));
  const int64_t chunk = ceil_div(rows, splits);
  const Workspace<C> partial(splits * cols);
  launch(name, fold_columns_kernel<Source, Fold>,
         dim3(one_block_each(tiles), static_cast<unsigned>(splits)), kBlock, 0, source, rows, cols,
         chunk, fold, partial.data());
  fold_partials(partial.data(), splits, cols, out_stride, fold, FoldTargets<C>{{target}, 1});
}

}  // namespace binade::kernels::cuda
