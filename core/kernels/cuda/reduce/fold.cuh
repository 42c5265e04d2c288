// Folds over any dimensions of one or two arrays.
//
// Outputs that are neighbours in memory are folded by a thread for each 16-byte vector of them;
// others by one thread, by a warp (short rows) or by a block (long rows). Few outputs of many
// elements are cut into chunks whose partial results a second kernel folds. How much each thread
// takes, and in which order results meet, follows from the shape and the strides alone.
#pragma once

#include <binade/core/kernels/cuda/reduce/fold_plan.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/column_fold.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

namespace binade::kernels::cuda {

// What of an element, or of two, is folded.
struct Itself {
  template <class C>
  __device__ __forceinline__ C operator()(C x) const {
    return x;
  }
};

// A source gives the terms of an item: `layout` has its inputs from operand `first` on.
template <class T, class Term = Itself>
struct OneSource {
  using C = ComputeOf<T>;
  static constexpr int kInputs = 1;
  static constexpr int kWidth =
      std::is_floating_point_v<C> || std::is_same_v<T, bool> ? kVecWidth<T> : 1;
  const T* x;

  template <int kVec>
  __device__ __forceinline__ void load(const Layout& layout, int first, const int64_t* offset,
                                       int count, C (&terms)[kVec]) const {
    const Vec<T, kVec> values = load_item<kVec>(layout, first, x, offset[0], count);
#pragma unroll
    for (int i = 0; i < kVec; ++i) terms[i] = Term()(widen(values[i]));
  }
};

template <class A, class B, class Term>
struct PairSource {
  using C = ComputeOf<A>;
  static constexpr int kInputs = 2;
  static constexpr int kWidth = kVecWidth<A>;
  const A* a;
  const B* b;

  template <int kVec>
  __device__ __forceinline__ void load(const Layout& layout, int first, const int64_t* offset,
                                       int count, C (&terms)[kVec]) const {
    const Vec<A, kVec> left = load_item<kVec>(layout, first, a, offset[0], count);
    const Vec<B, kVec> right = load_item<kVec>(layout, first + 1, b, offset[1], count);
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      terms[i] = Term()(widen(left[i]), static_cast<C>(widen(right[i])));
  }
};

// Items of `reduced`, [begin, end), every `step`th, folded into `folded`. The elements of an item
// are neighbours in `layout`: `reduced` itself, or the outputs' layout where each has one of its
// own. base: the offsets of the outputs' inputs.
template <int kVec, class Source, class Fold>
__device__ __forceinline__ void fold_items(const Source& source, const Layout& reduced,
                                           const Layout& layout, int first, const int64_t* base,
                                           int64_t begin, int64_t end, int64_t step, int outputs,
                                           const Fold& fold, typename Source::C (&folded)[kVec]) {
#pragma unroll 4
  for (int64_t item = begin; item < end; item += step) {
    int64_t offset[Source::kInputs];
    locate(reduced, item, offset);
#pragma unroll
    for (int k = 0; k < Source::kInputs; ++k) offset[k] += base[k];
    const int count = outputs != 0 ? outputs : elements_of<kVec>(reduced, item);
    typename Source::C terms[kVec];
    source.template load<kVec>(layout, first, offset, count, terms);
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i < count) folded[i] = fold(folded[i], terms[i]);
  }
}

// kept: out, and the inputs with the reduced dimensions cut to one element. reduced: the inputs
// with the others cut. Task t folds items [s·chunk, (s+1)·chunk) of output o, where t =
// s·outputs + o. With one split the result goes to the target, otherwise to partial[o·splits + s].
template <int kLanes, int kVec, class Source, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_kernel(const __grid_constant__ Layout kept, const __grid_constant__ Layout reduced,
                const Source source, const Fold fold, int64_t splits, int64_t chunk,
                typename Source::C* partial, Target<typename Source::C> target) {
  using C = typename Source::C;
  const int64_t task = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (task >= kept.items * splits) return;  // all lanes of a task together
  const int64_t split = task / kept.items, output = task - split * kept.items;
  int64_t offset[1 + Source::kInputs];
  locate(kept, output, offset);
  C folded[kVec];
#pragma unroll
  for (C& f : folded) f = fold.identity();
  fold_items<kVec>(source, reduced, reduced, 0, offset + 1, split * chunk + lane,
                   min(reduced.items, (split + 1) * chunk), kLanes, 0, fold, folded);
  C result = folded[0];
#pragma unroll
  for (int i = 1; i < kVec; ++i) result = fold(result, folded[i]);
  if constexpr (kLanes == kWarp) result = warp_reduce(result, fold);
  if constexpr (kLanes == kBlock) result = block_reduce<kBlock>(result, fold, fold.identity());
  if (lane != 0) return;
  if (splits == 1)
    target.store(offset[0], result);
  else
    partial[output * splits + split] = result;
}

// A warp folds the partial results of one output.
template <class C, class Fold>
__global__ void __launch_bounds__(kBlock)
    finish_fold_kernel(const __grid_constant__ Layout kept, const Fold fold, int64_t splits,
                       const C* partial, Target<C> target) {
  const int64_t output = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (output >= kept.items) return;
  C result = fold.identity();
  for (int64_t s = lane; s < splits; s += kWarp)
    result = fold(result, partial[output * splits + s]);
  result = warp_reduce(result, fold);
  if (lane != 0) return;
  int64_t offset[2];
  locate(kept, output, offset);
  target.store(offset[0], result);
}

// A thread folds kVec neighbouring outputs, an item of `kept`; `reduced` has single elements. Task
// t is item o of split s with t = s·items + o; partial results lie at (s·items + o)·kVec.
template <int kVec, class Source, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_neighbours_kernel(const __grid_constant__ Layout kept,
                           const __grid_constant__ Layout reduced, const Source source,
                           const Fold fold, int64_t splits, int64_t chunk,
                           typename Source::C* partial, Target<typename Source::C> target) {
  using C = typename Source::C;
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (task >= kept.items * splits) return;
  const int64_t split = task / kept.items, item = task - split * kept.items;
  int64_t offset[1 + Source::kInputs];
  locate(kept, item, offset);
  const int count = elements_of<kVec>(kept, item);
  C folded[kVec];
#pragma unroll
  for (C& f : folded) f = fold.identity();
  fold_items<kVec>(source, reduced, kept, 1, offset + 1, split * chunk,
                   min(reduced.items, (split + 1) * chunk), 1, count, fold, folded);
  if (splits == 1) {
    target.template store_run<kVec>(offset[0], count, folded);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVec; ++i) partial[task * kVec + i] = folded[i];
}

// A thread an output, in the order of the partial results.
template <int kVec, class C, class Fold>
__global__ void __launch_bounds__(kBlock)
    finish_neighbours_kernel(const __grid_constant__ Layout kept, const Fold fold, int64_t splits,
                             const C* partial, Target<C> target) {
  const int64_t width = kept.items * kVec;
  const int64_t output = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (output >= width) return;
  const int64_t item = output / kVec;
  const int place = static_cast<int>(output % kVec);
  if (place >= elements_of<kVec>(kept, item)) return;
  C result = fold.identity();
#pragma unroll 8
  for (int64_t s = 0; s < splits; ++s) result = fold(result, partial[s * width + output]);
  int64_t offset[1];
  locate(kept, item, offset);
  target.store(offset[0] + place, result);
}

// Rows of kLength elements that lie behind each other, and so do the outputs: a thread takes 16
// bytes.
template <int kVec, int kLength, class Source, class Fold>
__global__ void __launch_bounds__(kBlock)
    fold_short_rows_kernel(const __grid_constant__ Layout all, const Source source, const Fold fold,
                           Target<typename Source::C> target) {
  using C = typename Source::C;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < all.items; item += step) {
    const int count = elements_of<kVec>(all, item);
    const int64_t offset[1] = {item * kVec};
    C terms[kVec], results[kVec / kLength];
    source.template load<kVec>(all, 0, offset, count, terms);
#pragma unroll
    for (int r = 0; r < kVec / kLength; ++r) {
      results[r] = terms[r * kLength];
#pragma unroll
      for (int i = 1; i < kLength; ++i) results[r] = fold(results[r], terms[r * kLength + i]);
    }
    target.template store_run<kVec / kLength>(item * (kVec / kLength), count / kLength, results);
  }
}

template <int kVec, class Source, class Fold>
void fold_neighbours(const char* name, const FoldPlan& plan, const Source& source, const Fold& fold,
                     const Target<typename Source::C>& target) {
  using C = typename Source::C;
  const unsigned blocks = one_block_each(ceil_div(plan.kept.items * plan.splits, kBlock));
  const Workspace<C> partial(plan.splits == 1 ? 1 : plan.kept.items * plan.splits * kVec);
  launch(name, fold_neighbours_kernel<kVec, Source, Fold>, blocks, kBlock, 0, plan.kept,
         plan.reduced, source, fold, plan.splits, plan.chunk, partial.data(), target);
  if (plan.splits > 1)
    launch(name, finish_neighbours_kernel<kVec, C, Fold>,
           one_block_each(ceil_div(plan.kept.items * kVec, kBlock)), kBlock, 0, plan.kept, fold,
           plan.splits, partial.data(), target);
}

// Folds what `source` makes of the inputs that `plan` was made for.
template <class Source, class Fold>
void fold_all(const char* name, const FoldPlan& plan, const Source& source, const Fold& fold,
              const Target<typename Source::C>& target) {
  using C = typename Source::C;
  constexpr int kVec = Source::kWidth;
  if constexpr (kVec > 1)
    if (plan.neighbours) return fold_neighbours<kVec>(name, plan, source, fold, target);
  const auto kernel = plan.lanes == 1            ? fold_kernel<1, 1, Source, Fold>
                      : plan.lanes == kWarp      ? fold_kernel<kWarp, 1, Source, Fold>
                      : plan.reduced.vec == kVec ? fold_kernel<kBlock, kVec, Source, Fold>
                                                 : fold_kernel<kBlock, 1, Source, Fold>;
  const unsigned blocks =
      one_block_each(ceil_div(plan.kept.items * plan.splits * plan.lanes, kBlock));
  const Workspace<C> partial(plan.splits == 1 ? 1 : plan.kept.items * plan.splits);
  launch(name, kernel, blocks, kBlock, 0, plan.kept, plan.reduced, source, fold, plan.splits,
         plan.chunk, partial.data(), target);
  if (plan.splits > 1)
    launch(name, finish_fold_kernel<C, Fold>,
           one_block_each(ceil_div(plan.kept.items * kWarp, kBlock)), kBlock, 0, plan.kept, fold,
           plan.splits, partial.data(), target);
}

}  // namespace binade::kernels::cuda
