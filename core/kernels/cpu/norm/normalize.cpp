// Vectors of length 1, and the gradients of two arrays that are sums of both: folds and passes.
#include <cmath>

#include <binade/core/kernels/cpu/common/parallel.h>
#include <binade/core/kernels/cpu/elementwise/map.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/gradient_rules.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {

namespace {

// s = 1/max(length, eps).
template <class C>
Array scales_of(const Array& length, C eps) {
  const Array scale = Array::empty(length.shape(), length.dtype());
  map<C>([eps](C l) { return C(1) / (l < eps ? eps : l); }, scale, length);
  return scale;
}

}  // namespace

void normalize(const Array& x, int, double eps, const Array& length, const Array& y) {
  reduce(ReduceOp::sum_squares, x, length, 0);
  visit_real(x.dtype(), "normalize", [&](auto zero) {
    using C = decltype(zero);
    map<C>([](C sum) { return std::sqrt(sum); }, length, length);
    weighted_sum(x, {}, scales_of(length, static_cast<C>(eps)).expand(x.shape()), {}, {}, y);
  });
}

void normalize_backward(const Array& x, const Array& dy, const Array& length, int, double eps_in,
                        const Array& dx) {
  const Array back = Array::empty(length.shape(), length.dtype());
  reduce_pairs(PairOp::product, x, dy, back);
  visit_real(x.dtype(), "normalize_backward", [&](auto zero) {
    using C = decltype(zero);
    const auto eps = static_cast<C>(eps_in);
    const Array scale = scales_of(length, eps);
    map<C>([eps](C products, C s,
                 C l) { return l < eps || l == C(0) ? C(0) : -(products * s * s / l); },
           back, back, scale, length);
    weighted_sum(dy, {}, scale.expand(x.shape()), x, back.expand(x.shape()), dx);
  });
}

void weighted_pair(const Array& a, const Array& b, const Array& across, const Array& along_a,
                   const Array& along_b, const Array& da, const Array& db) {
  if (da.defined()) weighted_sum(b, {}, across, a, along_a, da);
  if (db.defined()) weighted_sum(a, {}, across, b, along_b, db);
}

void cosine_scales(const Array& dy, const Array& a_length, const Array& b_length,
                   const Array& cosine, double eps_in, const Array& across, const Array& along_a,
                   const Array& along_b) {
  visit_real(across.dtype(), "cosine_scales", [&](auto zero) {
    using C = decltype(zero);
    const auto eps = static_cast<C>(eps_in);
    const C *d = dy.data<C>(), *a = a_length.data<C>(), *b = b_length.data<C>(),
            *c = cosine.data<C>();
    C *x = across.data<C>(), *p = along_a.data<C>(), *q = along_b.data<C>();
    parallel_for(across.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const CosineScales<C> scales(d[i], a[i], b[i], c[i], eps);
        x[i] = scales.across;
        p[i] = scales.along_a;
        q[i] = scales.along_b;
      }
    });
  });
}

}  // namespace binade::kernels::cpu
