// Sums of what two arrays make together.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

struct Product {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return a * b;
  }
};
struct Distance {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return fabs(a - b);
  }
};
struct SquaredDistance {
  template <class C>
  __device__ __forceinline__ C operator()(C a, C b) const {
    return (a - b) * (a - b);
  }
};

template <class A, class B, class Term>
void sum_pairs(const Array& a, const Array& b, const Array& out) {
  using Source = PairSource<A, B, Term>;
  using C = typename Source::C;
  const FoldPlan plan(out, {&a, &b}, Source::kWidth);
  fold_all("reduce_pairs", plan, Source{device_data<const A>(a), device_data<const B>(b)},
           SumFold<C>(), Target<C>{device_pointer(out), out.dtype()});
}

}  // namespace

void reduce_pairs(PairOp op, const Array& a, const Array& b, const Array& out) {
  if (out.numel() == 0) return;
  if (a.numel() == 0) return fill(out, 0);
  visit_floating(a.dtype(), "reduce_pairs", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const auto run = [&]<class Term>(Term) {
      if (b.dtype() == a.dtype()) return sum_pairs<T, T, Term>(a, b, out);
      check(b.dtype() == dtype_of<C>(), "reduce_pairs: ", name_of(b.dtype()), " beside ",
            name_of(a.dtype()));
      sum_pairs<T, C, Term>(a, b, out);
    };
    switch (op) {
      case PairOp::product:
        return run(Product());
      case PairOp::distance:
        return run(Distance());
      case PairOp::squared_distance:
        return run(SquaredDistance());
    }
  });
}

}  // namespace binade::kernels::cuda
