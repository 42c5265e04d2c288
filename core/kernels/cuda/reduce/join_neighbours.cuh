// The last step of folds whose outputs are neighbours in memory, and were cut into splits.
#pragma once

#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

// items: of kVec outputs each. A block takes 32 outputs, each of its 8 warps every 8th of their
// partial results; those of split s of item o lie at (s·items + o)·kVec.
template <int kVec, class Fold, class Store>
__global__ void __launch_bounds__(kBlock)
    join_neighbours_kernel(const __grid_constant__ Layout items, int64_t splits,
                           const typename Fold::State* partial, const Fold fold,
                           const Store store) {
  using State = typename Fold::State;
  constexpr int kWarps = kBlock / kWarp;
  __shared__ State totals[kWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t width = items.items * kVec, output = int64_t{blockIdx.x} * kWarp + lane;
  State result = fold.identity();
  if (output < width) {
#pragma unroll 4
    for (int64_t s = warp; s < splits; s += kWarps)
      result = fold(result, partial[s * width + output]);
  }
  totals[warp][lane] = result;
  __syncthreads();
  const int64_t item = output / kVec;
  const int place = static_cast<int>(output % kVec);
  if (warp != 0 || output >= width || place >= elements_of<kVec>(items, item)) return;
  for (int w = 1; w < kWarps; ++w) result = fold(result, totals[w][lane]);
  int64_t offset[1];
  locate(items, item, offset);
  store.store(offset[0] + place, result);
}

template <int kVec, class Fold, class Store>
void join_neighbours(const char* name, const Layout& items, int64_t splits,
                     const typename Fold::State* partial, const Fold& fold, const Store& store) {
  launch(name, join_neighbours_kernel<kVec, Fold, Store>,
         one_block_each(ceil_div(items.items * kVec, kWarp)), kBlock, 0, items, splits, partial,
         fold, store);
}

}  // namespace binade::kernels::cuda
