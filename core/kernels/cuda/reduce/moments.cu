// Means and squared distances from them in one pass: a thread moves its mean from element to
// element (Welford 1962), or takes a vector's own; these, and two threads', meet by their counts
// (Chan, Golub & LeVeque 1983). Neither loses digits beside a large mean.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/elementwise/unary_math.cuh>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

template <class C>
struct Moments {
  C count, mean, squares;
};
template <class C>
struct MomentsFold {
  using State = Moments<C>;
  __device__ State identity() const { return {C(0), C(0), C(0)}; }
  __device__ __forceinline__ void push(State& state, C x) const {
    const C count = state.count + C(1);
    add(state, x, count, inverse(count));
  }
  // All states have taken equally many elements.
  template <int kVec, class Read>
  __device__ __forceinline__ void push_all(State (&states)[kVec], const Read& read) const {
    const C count = states[0].count + C(1), share = inverse(count);
#pragma unroll
    for (int i = 0; i < kVec; ++i) add(states[i], read[i], count, share);
  }
  template <int kVec, class Read>
  __device__ __forceinline__ void push_vector(State& state, const Read& read) const {
    C mean = C(0);  // of numbers divided first: their sum could overflow
#pragma unroll
    for (int i = 0; i < kVec; ++i) mean += read[i] * C(1.0 / kVec);
    State own{C(kVec), mean, C(0)};
#pragma unroll
    for (int i = 0; i < kVec; ++i) own.squares += (read[i] - mean) * (read[i] - mean);
    state = (*this)(state, own);
  }
  __device__ __forceinline__ State operator()(const State& a, const State& b) const {
    const C count = a.count + b.count;
    if (count == C(0)) return a;
    const C apart = b.mean - a.mean, share = b.count * inverse(count);
    return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
  }

 private:
  static __device__ __forceinline__ C inverse(C count) {
    if constexpr (std::is_same_v<C, float>)
      return Instructions<true>::reciprocal(count);
    else
      return C(1) / count;
  }
  __device__ __forceinline__ void add(State& state, C x, C count, C share) const {
    const C before = x - state.mean;
    state.count = count;
    state.mean += before * share;
    state.squares += before * (x - state.mean);
  }
};
template <class C>
struct MomentsStore : SingleStore<MomentsStore<C>> {
  C *mean, *squares;
  __device__ __forceinline__ void store(int64_t offset, const Moments<C>& moments) const {
    mean[offset] = moments.mean;
    squares[offset] = moments.squares;
  }
};

}  // namespace

void moments(const Array& x, const Array& mean, const Array& squares) {
  if (mean.numel() == 0) return;
  visit_floating(x.dtype(), "moments", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    fold_all("moments", FoldPlan(mean, {&x}, kFoldWidth<T>), OneSource<T>{device_data<T>(x)},
             MomentsFold<C>(), MomentsStore<C>{{}, device_data<C>(mean), device_data<C>(squares)});
  });
}

}  // namespace binade::kernels::cuda
