// Sums, means and extrema over any dimensions (fold.cuh). The columns of a matrix have sums of
// their own (column_fold.cuh).
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

// NaN wins.
template <class C>
struct ExtremumFold {
  bool largest;
  __device__ C identity() const {
    if constexpr (std::is_same_v<C, int64_t>)
      return largest ? INT64_MIN : INT64_MAX;
    else
      return largest ? -static_cast<C>(INFINITY) : static_cast<C>(INFINITY);
  }
  __device__ __forceinline__ C operator()(C a, C b) const {
    return largest ? Max()(a, b) : Min()(a, b);
  }
};

template <class C>
struct ProductFold {
  __device__ C identity() const { return C(1); }
  __device__ __forceinline__ C operator()(C a, C b) const { return a * b; }
};

struct Magnitude {
  template <class C>
  __device__ __forceinline__ C operator()(C x) const {
    return fabs(x);
  }
};
struct Square {
  template <class C>
  __device__ __forceinline__ C operator()(C x) const {
    return x * x;
  }
};
struct NotZero {
  template <class C>
  __device__ __forceinline__ C operator()(C x) const {
    return x != C(0) ? C(1) : C(0);
  }
};
// The largest of numbers that are not below 0; NaN wins.
template <class C>
struct MaxFold {
  __device__ C identity() const { return C(0); }
  __device__ __forceinline__ C operator()(C a, C b) const { return Max()(a, b); }
};

// Whether the outputs are the columns of one matrix of 16-byte vectors, and tall enough; `plan` is
// one of single elements.
bool is_column_fold(const FoldPlan& plan, const Array& x, int vec) {
  constexpr int64_t kTall = 16;
  const int64_t row_stride = plan.reduced.strides[0][0];
  return plan.kept.dims == 1 && plan.reduced.dims == 1 && plan.reduced.items >= kTall &&
         plan.kept.strides[1][0] == 1 && plan.kept.items > 1 && plan.kept.items % vec == 0 &&
         row_stride % vec == 0 && row_stride >= plan.kept.items &&
         rows_aligned(x.data(), row_stride, size_of(x.dtype()));
}

// Whether all outputs and all elements lie behind each other, `length` elements an output.
bool is_short_row_fold(const FoldPlan& plan, const Array& x, const Array& out, int64_t length) {
  return plan.reduced.items == length && plan.reduced.dims == 1 &&
         plan.reduced.strides[0][0] == 1 && plan.kept.dims == 1 &&
         plan.kept.strides[1][0] == length && plan.kept.strides[0][0] == 1 && x.is_contiguous() &&
         out.is_contiguous();
}

// Rows of 2, 4, … elements of one 16-byte vector; false for others.
template <int kLength, class Source, class Fold>
bool fold_short_rows(const FoldPlan& plan, const Array& x, const Array& out, const Source& source,
                     const Fold& fold, const Target<typename Source::C>& target) {
  constexpr int kVec = Source::kWidth;
  if constexpr (kLength > kVec) {
    return false;
  } else {
    if (!is_short_row_fold(plan, x, out, kLength))
      return fold_short_rows<2 * kLength>(plan, x, out, source, fold, target);
    const Layout all = make_layout({&x}, kVec);
    if (all.vec != kVec) return false;
    launch("reduce", fold_short_rows_kernel<kVec, kLength, Source, Fold>, grid_for(all.items),
           kBlock, 0, all, source, fold, target);
    return true;
  }
}

template <class T, class Term, class Fold>
void reduce_terms(const Array& x, const Array& out, const Fold& fold,
                  const Target<ComputeOf<T>>& target) {
  using C = ComputeOf<T>;
  using Source = OneSource<T, Term>;
  constexpr int kVec = Source::kWidth;
  const Source source{device_data<T>(x)};
  if constexpr (kVec > 1 && std::is_same_v<Fold, SumFold<C>> && std::is_same_v<Term, Itself>) {
    const FoldPlan single(out, {&x}, 1);
    if (is_column_fold(single, x, kVec)) {  // as bias gradients are
      const RowSource<kVec, T> rows{device_data<T>(x), single.reduced.strides[0][0]};
      fold_columns("fold_columns", rows, single.reduced.items, single.kept.items,
                   single.kept.strides[0][0], fold, target);
      return;
    }
    if (fold_short_rows<2>(single, x, out, source, fold, target)) return;
  }
  const FoldPlan plan(out, {&x}, kVec);
  fold_all("reduce", plan, source, fold, target);
}

// What there is to say about no elements at all.
double of_nothing(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return 0;
    case ReduceOp::mean:
      return NAN;
    case ReduceOp::max:
      return -INFINITY;
    case ReduceOp::min:
      return INFINITY;
    case ReduceOp::prod:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

void reduce(ReduceOp op, const Array& x, const Array& out, float beta) {
  if (out.numel() == 0) return;
  if (x.numel() == 0) {
    if (beta == 0) fill(out, of_nothing(op));
    return;
  }
  check(op != ReduceOp::mean || is_floating(x.dtype()), "mean needs a floating-point dtype, got ",
        name_of(x.dtype()));
  visit_all(x.dtype(), [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const Target<C> target{device_pointer(out), out.dtype(),
                           op == ReduceOp::mean ? x.numel() / out.numel() : 1, beta != 0};
    switch (op) {
      case ReduceOp::sum:
      case ReduceOp::mean:
        return reduce_terms<T, Itself>(x, out, SumFold<C>(), target);
      case ReduceOp::max:
      case ReduceOp::min:
        return reduce_terms<T, Itself>(x, out, ExtremumFold<C>{op == ReduceOp::max}, target);
      case ReduceOp::prod:
        return reduce_terms<T, Itself>(x, out, ProductFold<C>(), target);
      default:
        break;
    }
    if constexpr (std::is_floating_point_v<C>) {
      switch (op) {
        case ReduceOp::sum_abs:
          return reduce_terms<T, Magnitude>(x, out, SumFold<C>(), target);
        case ReduceOp::sum_squares:
          return reduce_terms<T, Square>(x, out, SumFold<C>(), target);
        case ReduceOp::max_abs:
          return reduce_terms<T, Magnitude>(x, out, MaxFold<C>(), target);
        default:
          return reduce_terms<T, NotZero>(x, out, SumFold<C>(), target);
      }
    } else {
      fail("this reduction needs a floating-point dtype, got ", name_of(x.dtype()));
    }
  });
}

}  // namespace binade::kernels::cuda
