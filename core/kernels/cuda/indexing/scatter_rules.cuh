// How elements that go to one place make its new value.
#pragma once

#include <binade/core/kernels/indexing.h>
#include <binade/core/kernels/cuda/common/numeric.cuh>

namespace binade::kernels::cuda {

// State is what a thread carries from element to element, in their order.
template <class T>
struct Assigning {
  using State = T;
  __device__ State start(T) const { return T(); }
  __device__ State join(State, T element) const { return element; }
  __device__ T finish(State state, int64_t) const { return state; }
};
template <class T>
struct Folding {
  using State = ComputeOf<T>;
  ScatterFold fold;
  bool include_self;
  __device__ State start(T self) const {
    if (include_self) return widen(self);
    switch (fold) {
      case ScatterFold::prod:
        return State(1);
      case ScatterFold::max:
        if constexpr (std::is_floating_point_v<State>)
          return -static_cast<State>(INFINITY);
        else
          return INT64_MIN;
      case ScatterFold::min:
        if constexpr (std::is_floating_point_v<State>)
          return static_cast<State>(INFINITY);
        else
          return INT64_MAX;
      default:
        return State(0);
    }
  }
  __device__ State join(State state, T element) const {
    const State x = widen(element);
    switch (fold) {
      case ScatterFold::prod:
        return state * x;
      case ScatterFold::max:
        return Max()(state, x);
      case ScatterFold::min:
        return Min()(state, x);
      default:
        return state + x;
    }
  }
  __device__ T finish(State state, int64_t count) const {
    if (fold == ScatterFold::mean) state /= static_cast<State>(count + (include_self ? 1 : 0));
    return narrow<T>(state);
  }
};

// out at position 0 of the dimension, as wide as index: where the places that it names begin.
inline Array start_of(const Array& out, int dim, const Array& index) {
  Array start = out;
  for (int d = 0; d < out.dims(); ++d) start = start.slice(d, 0, d == dim ? 1 : index.size(d));
  return start.expand(index.shape());
}

// Folds the elements of each row of source along `dim` in shared memory; false, and nothing is
// done, where that does not fit or does not pay. `rule` says how, whatever its type.
bool fold_in_rows(const Array& out, int dim, const Array& index, const Array& source,
                  const Folding<float>& rule);

}  // namespace binade::kernels::cuda
