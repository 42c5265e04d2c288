// Sums of what two arrays make together.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

template <class C>
struct PairSum : ValueFold<PairSum<C>, C> {
  PairOp op;
  explicit PairSum(PairOp what) : op(what) {}
  __device__ C identity() const { return C(0); }
  __device__ __forceinline__ C value(const Pair<C>& x) const {
    return op == PairOp::product ? x.a * x.b : fabs(x.a - x.b);
  }
  __device__ __forceinline__ C operator()(C a, C b) const { return a + b; }
};

template <class C>
struct Products {
  C aa, ab, bb;
};
template <class C>
struct ProductsFold : ValueFold<ProductsFold<C>, Products<C>> {
  __device__ Products<C> identity() const { return {C(0), C(0), C(0)}; }
  __device__ __forceinline__ Products<C> value(const Pair<C>& x) const {
    return {x.a * x.a, x.a * x.b, x.b * x.b};
  }
  __device__ __forceinline__ Products<C> operator()(const Products<C>& a,
                                                    const Products<C>& b) const {
    return {a.aa + b.aa, a.ab + b.ab, a.bb + b.bb};
  }
};
template <class C>
struct ProductsStore : SingleStore<ProductsStore<C>> {
  C *aa, *ab, *bb;
  __device__ __forceinline__ void store(int64_t offset, const Products<C>& sums) const {
    aa[offset] = sums.aa;
    ab[offset] = sums.ab;
    bb[offset] = sums.bb;
  }
};

}  // namespace

void reduce_pairs(PairOp op, const Array& a, const Array& b, const Array& out) {
  if (out.numel() == 0) return;
  if (a.numel() == 0) return fill(out, 0);
  visit_floating(a.dtype(), "reduce_pairs", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    fold_all("reduce_pairs", FoldPlan(out, {&a, &b}, kFoldWidth<T>),
             PairSource<T>{device_data<const T>(a), device_data<const T>(b)}, PairSum<C>(op),
             NumberStore<C>{{device_pointer(out), out.dtype()}});
  });
}

void pair_products(const Array& a, const Array& b, const Array& aa, const Array& ab,
                   const Array& bb) {
  if (ab.numel() == 0) return;
  if (a.numel() == 0) {
    for (const Array& out : {aa, ab, bb}) fill(out, 0);
    return;
  }
  visit_floating(a.dtype(), "pair_products", [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    fold_all("pair_products", FoldPlan(ab, {&a, &b}, kFoldWidth<T>),
             PairSource<T>{device_data<const T>(a), device_data<const T>(b)}, ProductsFold<C>(),
             ProductsStore<C>{{}, device_data<C>(aa), device_data<C>(ab), device_data<C>(bb)});
  });
}

}  // namespace binade::kernels::cuda
