// Folds over any dimensions of one or two arrays.
//
// Outputs that are neighbours in memory are folded by a thread for each 16-byte vector of them;
// others by one thread, by a warp (short rows) or by a block (long rows). Few outputs of many
// elements are cut into chunks whose partial results a second kernel folds. How much each thread
// takes, and in which order results meet, follows from the shape and the strides alone.
//
// A source reads elements of one array, or of two side by side. A fold has a State, an identity()
// and says how two states meet; push() takes an element, push_vector() all of a vector's, and
// push_all() one for each of several states. A store takes a state to the output's element.
#pragma once

#include <binade/core/kernels/cuda/reduce/fold_plan.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/column_fold.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>
#include <binade/core/kernels/cuda/reduce/join_neighbours.cuh>

namespace binade::kernels::cuda {

// Elements that a thread folds side by side: a 16-byte vector, of 8-byte elements one, of which a
// warp's access has no need to be wider.
template <class T>
inline constexpr int kFoldWidth = sizeof(T) == 8 ? 1 : kVecWidth<T>;

template <class T, class Compute = ComputeOf<T>>
struct OneSource {
  using C = Compute;
  static constexpr int kInputs = 1;
  static constexpr int kWidth = std::is_floating_point_v<C> || sizeof(C) == 4 ? kFoldWidth<T> : 1;
  const T* x;

  template <int kVec>
  struct Read {
    Vec<T, kVec> x;
    __device__ __forceinline__ C operator[](int i) const { return static_cast<C>(widen(x[i])); }
  };
  template <int kVec>
  __device__ __forceinline__ Read<kVec> read(const int64_t* offset) const {
    return {load_vec<kVec>(x + offset[0])};
  }
  __device__ __forceinline__ C one(const int64_t* offset, int64_t i) const {
    return static_cast<C>(widen(x[offset[0] + i]));
  }
};

template <class C>
struct Pair {
  C a, b;
};
template <class T>
struct PairSource {
  using C = ComputeOf<T>;
  static constexpr int kInputs = 2;
  static constexpr int kWidth = kFoldWidth<T>;
  const T *a, *b;

  template <int kVec>
  struct Read {
    Vec<T, kVec> a, b;
    __device__ __forceinline__ Pair<C> operator[](int i) const {
      return {widen(a[i]), widen(b[i])};
    }
  };
  template <int kVec>
  __device__ __forceinline__ Read<kVec> read(const int64_t* offset) const {
    return {load_vec<kVec>(a + offset[0]), load_vec<kVec>(b + offset[1])};
  }
  __device__ __forceinline__ Pair<C> one(const int64_t* offset, int64_t i) const {
    return {widen(a[offset[0] + i]), widen(b[offset[1] + i])};
  }
};

// What folds share that make a state of each element by value() and let states meet. A vector's
// meet in pairs, which keeps more digits than one after another.
template <class Fold, class S>
struct ValueFold {
  using State = S;
  template <class Element>
  __device__ __forceinline__ void push(State& state, const Element& element) const {
    state = fold()(state, fold().value(element));
  }
  template <int kVec, class Read>
  __device__ __forceinline__ void push_all(State (&states)[kVec], const Read& read) const {
#pragma unroll
    for (int i = 0; i < kVec; ++i) push(states[i], read[i]);
  }
  template <int kVec, class Read>
  __device__ __forceinline__ void push_vector(State& state, const Read& read) const {
    State values[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[i] = fold().value(read[i]);
#pragma unroll
    for (int width = kVec / 2; width > 0; width /= 2)
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] = fold()(values[i], values[i + width]);
    state = fold()(state, values[0]);
  }

 private:
  __device__ const Fold& fold() const {
    return *static_cast<const Fold*>(this);
  }
};

// What stores that take states one by one share.
template <class Store>
struct SingleStore {
  template <int kCount, class State>
  __device__ __forceinline__ void store_run(int64_t offset, int count,
                                            const State (&states)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      if (i < count) static_cast<const Store*>(this)->store(offset + i, states[i]);
  }
};

// Out of line: one copy for all outputs of a thread.
template <class C>
__device__ __noinline__ void store_number(Target<C> target, int64_t offset, C value) {
  target.store(offset, value);
}
// A state that is a number, to a target.
template <class C>
struct NumberStore {
  Target<C> target;
  __device__ void store(int64_t offset, C value) const { store_number(target, offset, value); }
  template <int kCount>
  __device__ __forceinline__ void store_run(int64_t offset, int count,
                                            const C (&values)[kCount]) const {
    if (target.template store_vectors<kCount>(offset, count, values)) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      if (i < count) store(offset + i, values[i]);
  }
};

template <int kInputs>
struct Offsets {
  int64_t at[kInputs];
};
// Out of line: a kernel has many places that ask.
template <int kInputs>
__device__ __noinline__ Offsets<kInputs> offsets_in(const Layout& layout, int64_t item) {
  Offsets<kInputs> offsets;
  locate(layout, item, offsets.at);
  return offsets;
}
// Where item `item` of `layout` lies beside `base`.
template <int kInputs>
__device__ __forceinline__ Offsets<kInputs> offsets_from(const int64_t* base, const Layout& layout,
                                                         int64_t item) {
  Offsets<kInputs> offsets;
  if (layout.dims == 1) {
#pragma unroll
    for (int k = 0; k < kInputs; ++k) offsets.at[k] = item * layout.strides[k][0];
  } else {
    offsets = offsets_in<kInputs>(layout, item);
  }
#pragma unroll
  for (int k = 0; k < kInputs; ++k) offsets.at[k] += base[k];
  return offsets;
}

// Calls take(read) for items of `reduced`, [begin, end), every `step`th.
template <int kVec, class Source, class Take>
__device__ __forceinline__ void read_items(const Source& source, const Layout& reduced,
                                           const int64_t* base, int64_t begin, int64_t end,
                                           int64_t step, const Take& take) {
  constexpr int kInFlight = 4;  // reads that do not wait for each other
  for (int64_t item = begin; item < end; item += kInFlight * step) {
    typename Source::template Read<kVec> read[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k) {
      if (item + k * step >= end) continue;
      const auto offsets = offsets_from<Source::kInputs>(base, reduced, item + k * step);
      read[k] = source.template read<kVec>(offsets.at);
    }
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (item + k * step < end) take(read[k]);
  }
}

// kept: out, and the inputs with the reduced dimensions cut to one element. reduced: the inputs
// with the others cut. Task t folds items [s·chunk, (s+1)·chunk) of output o, where t =
// s·outputs + o, by `lanes` threads: 1, a warp or a block. With one split the result goes to the
// store, otherwise to partial[o·splits + s].
template <int kVec, class Source, class Fold, class Store>
__global__ void __launch_bounds__(kBlock)
    fold_kernel(const __grid_constant__ Layout kept, const __grid_constant__ Layout reduced,
                const Source source, const Fold fold, int lanes, int64_t splits, int64_t chunk,
                typename Fold::State* partial, const Store store) {
  using State = typename Fold::State;
  const int64_t task = (int64_t{blockIdx.x} * kBlock + threadIdx.x) >> (31 - __clz(lanes));
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  if (task >= kept.items * splits) return;  // all lanes of a task together
  const int64_t split = splits == 1 ? 0 : task / kept.items, output = task - split * kept.items;
  int64_t offset[1 + Source::kInputs];
  locate(kept, output, offset);
  State result = fold.identity();
  const int64_t begin = split * chunk, end = min(reduced.items, begin + chunk);
  // The last of the vectors of a single dimension may not be whole.
  const int64_t whole = reduced.dims == 1 ? min(end, reduced.numel / kVec) : end;
  read_items<kVec>(source, reduced, offset + 1, begin + lane, whole, lanes,
                   [&](const auto& read) { fold.template push_vector<kVec>(result, read); });
  if (whole < end && (whole - begin) % lanes == lane) {
    const auto offsets = offsets_from<Source::kInputs>(offset + 1, reduced, whole);
    for (int i = 0; i < reduced.numel % kVec; ++i) fold.push(result, source.one(offsets.at, i));
  }
  if (lanes == kWarp) result = warp_reduce(result, fold);
  if (lanes == kBlock) result = block_reduce<kBlock>(result, fold, fold.identity());
  if (lane != 0) return;
  if (splits == 1)
    store.store(offset[0], result);
  else
    partial[output * splits + split] = result;
}

// A block folds the partial results of one output.
template <class Fold, class Store>
__global__ void __launch_bounds__(kBlock)
    finish_fold_kernel(const __grid_constant__ Layout kept, const Fold fold, int64_t splits,
                       const typename Fold::State* partial, const Store store) {
  const int64_t output = blockIdx.x;
  typename Fold::State result = fold.identity();
  for (int64_t s = threadIdx.x; s < splits; s += kBlock)
    result = fold(result, partial[output * splits + s]);
  result = block_reduce<kBlock>(result, fold, fold.identity());
  if (threadIdx.x != 0) return;
  int64_t offset[1];
  locate(kept, output, offset);
  store.store(offset[0], result);
}

// A thread folds kVec neighbouring outputs, an item of `kept`; `reduced` has single elements. Task
// t is item o of split s with t = s·items + o; partial results lie at (s·items + o)·kVec.
template <int kVec, class Source, class Fold, class Store>
__global__ void __launch_bounds__(kBlock)
    fold_neighbours_kernel(const __grid_constant__ Layout kept,
                           const __grid_constant__ Layout reduced, const Source source,
                           const Fold fold, int64_t splits, int64_t chunk,
                           typename Fold::State* partial, const Store store) {
  using State = typename Fold::State;
  const int64_t task = int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (task >= kept.items * splits) return;
  const int64_t split = task / kept.items, item = task - split * kept.items;
  int64_t offset[1 + Source::kInputs];
  locate(kept, item, offset);
  const int count = elements_of<kVec>(kept, item);
  State folded[kVec];
#pragma unroll
  for (State& f : folded) f = fold.identity();
  const int64_t end = min(reduced.items, (split + 1) * chunk);
  const int64_t begin = split * chunk;
  if (count == kVec)
    read_items<kVec>(source, reduced, offset + 1, begin, end, 1,
                     [&](const auto& read) { fold.push_all(folded, read); });
  for (int64_t i = begin; count != kVec && i < end; ++i) {
    const auto offsets = offsets_from<Source::kInputs>(offset + 1, reduced, i);
#pragma unroll
    for (int k = 0; k < kVec; ++k)
      if (k < count) fold.push(folded[k], source.one(offsets.at, k));
  }
  if (splits == 1) {
    store.template store_run<kVec>(offset[0], count, folded);
    return;
  }
#pragma unroll
  for (int i = 0; i < kVec; ++i) partial[task * kVec + i] = folded[i];
}

// Rows of kLength elements that lie behind each other, and so do the outputs: a thread takes 16
// bytes.
template <int kVec, int kLength, class Source, class Fold, class Store>
__global__ void __launch_bounds__(kBlock)
    fold_short_rows_kernel(const __grid_constant__ Layout all, const Source source, const Fold fold,
                           const Store store) {
  using C = typename Source::C;
  const int64_t step = int64_t{gridDim.x} * kBlock;
  for (int64_t item = int64_t{blockIdx.x} * kBlock + threadIdx.x; item < all.items; item += step) {
    const int count = elements_of<kVec>(all, item);
    const int64_t offset[1] = {item * kVec};
    typename Source::template Read<kVec> read;
    if (count == kVec) {
      read = source.template read<kVec>(offset);
    } else {
#pragma unroll
      for (int i = 0; i < kVec; ++i)
        if (i < count) read.x[i] = source.x[offset[0] + i];
    }
    C results[kVec / kLength];
#pragma unroll
    for (int r = 0; r < kVec / kLength; ++r) {
      results[r] = fold.identity();
#pragma unroll
      for (int i = 0; i < kLength; ++i) fold.push(results[r], read[r * kLength + i]);
    }
    store.template store_run<kVec / kLength>(item * (kVec / kLength), count / kLength, results);
  }
}

template <int kVec, class Source, class Fold, class Store>
void fold_neighbours(const char* name, const FoldPlan& plan, const Source& source, const Fold& fold,
                     const Store& store) {
  using State = typename Fold::State;
  const unsigned blocks = one_block_each(ceil_div(plan.kept.items * plan.splits, kBlock));
  const Workspace<State> partial(plan.splits == 1 ? 1 : plan.kept.items * plan.splits * kVec);
  launch(name, fold_neighbours_kernel<kVec, Source, Fold, Store>, blocks, kBlock, 0, plan.kept,
         plan.reduced, source, fold, plan.splits, plan.chunk, partial.data(), store);
  if (plan.splits > 1)
    join_neighbours<kVec>(name, plan.kept, plan.splits, partial.data(), fold, store);
}

// Folds what `source` reads of the inputs that `plan` was made for.
template <class Source, class Fold, class Store>
void fold_all(const char* name, const FoldPlan& plan, const Source& source, const Fold& fold,
              const Store& store) {
  using State = typename Fold::State;
  constexpr int kVec = Source::kWidth;
  if constexpr (kVec > 1)
    if (plan.neighbours) return fold_neighbours<kVec>(name, plan, source, fold, store);
  const auto kernel = plan.reduced.vec == kVec ? fold_kernel<kVec, Source, Fold, Store>
                                               : fold_kernel<1, Source, Fold, Store>;
  const unsigned blocks =
      one_block_each(ceil_div(plan.kept.items * plan.splits * plan.lanes, kBlock));
  const Workspace<State> partial(plan.splits == 1 ? 1 : plan.kept.items * plan.splits);
  launch(name, kernel, blocks, kBlock, 0, plan.kept, plan.reduced, source, fold, plan.lanes,
         plan.splits, plan.chunk, partial.data(), store);
  if (plan.splits > 1)
    launch(name, finish_fold_kernel<Fold, Store>, one_block_each(plan.kept.items), kBlock, 0,
           plan.kept, fold, plan.splits, partial.data(), store);
}

}  // namespace binade::kernels::cuda
