// Sums, means and extrema over any dimensions (fold.cuh). The columns of a matrix have sums of
// their own (column_fold.cuh).
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/reduce/fold.cuh>

namespace binade::kernels::cuda {

namespace {

// The words of a vector of 16 bools.
template <class Read>
__device__ __forceinline__ uint4 words_of(const Read& read) {
  return reinterpret_cast<const uint4&>(read.x);
}

// Of folds in C; a vector of kVec elements is one of bools.
template <int kVec, class C>
inline constexpr bool kOfBools = kVec == 16 && std::is_same_v<C, int32_t>;

template <class C>
struct Total : ValueFold<Total<C>, C> {
  __device__ C identity() const { return C(0); }
  __device__ __forceinline__ C value(C x) const { return x; }
  __device__ __forceinline__ C operator()(C a, C b) const { return a + b; }
  template <int kVec, class Read>
  __device__ __forceinline__ void push_vector(C& sum, const Read& read) const {
    if constexpr (kOfBools<kVec, C>) {
      const uint4 w = words_of(read);
      sum += __popc(w.x) + __popc(w.y) + __popc(w.z) + __popc(w.w);
    } else {
      ValueFold<Total<C>, C>::template push_vector<kVec>(sum, read);
    }
  }
};

// The largest or the smallest of the elements, or of their magnitudes; NaN wins.
template <class C>
struct Extremum : ValueFold<Extremum<C>, C> {
  bool largest, of_magnitudes;
  explicit Extremum(bool of_largest, bool magnitudes = false)
      : largest(of_largest), of_magnitudes(magnitudes) {}
  __device__ C identity() const {
    if constexpr (std::is_floating_point_v<C>)
      return largest ? -static_cast<C>(INFINITY) : static_cast<C>(INFINITY);
    else if constexpr (sizeof(C) == 8)
      return largest ? INT64_MIN : INT64_MAX;
    else
      return largest ? INT32_MIN : INT32_MAX;
  }
  __device__ __forceinline__ C value(C x) const {
    if constexpr (std::is_floating_point_v<C>)
      if (of_magnitudes) return fabs(x);
    return x;
  }
  __device__ __forceinline__ C operator()(C a, C b) const {
    return largest ? Max()(a, b) : Min()(a, b);
  }
  template <int kVec, class Read>
  __device__ __forceinline__ void push_vector(C& best, const Read& read) const {
    if constexpr (kOfBools<kVec, C>) {
      const uint4 w = words_of(read);
      const bool any = (w.x | w.y | w.z | w.w) != 0;
      const bool all = (w.x & w.y & w.z & w.w) == 0x01010101u;
      best = (*this)(best, static_cast<C>(largest ? any : all));
    } else {
      ValueFold<Extremum<C>, C>::template push_vector<kVec>(best, read);
    }
  }
};

template <class C>
struct Product : ValueFold<Product<C>, C> {
  __device__ C identity() const { return C(1); }
  __device__ __forceinline__ C value(C x) const { return x; }
  __device__ __forceinline__ C operator()(C a, C b) const { return a * b; }
};

// Σ|x|, Σx² or how many are not 0.
template <class C>
struct Measure : ValueFold<Measure<C>, C> {
  ReduceOp op;
  explicit Measure(ReduceOp what) : op(what) {}
  __device__ C identity() const { return C(0); }
  __device__ __forceinline__ C value(C x) const {
    return op == ReduceOp::sum_abs ? fabs(x) : op == ReduceOp::sum_squares ? x * x : C(x != C(0));
  }
  __device__ __forceinline__ C operator()(C a, C b) const { return a + b; }
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
template <int kLength, class Source, class Fold, class Store>
bool fold_short_rows(const FoldPlan& plan, const Array& x, const Array& out, const Source& source,
                     const Fold& fold, const Store& store) {
  constexpr int kVec = Source::kWidth;
  if constexpr (kLength > kVec) {
    return false;
  } else {
    if (!is_short_row_fold(plan, x, out, kLength))
      return fold_short_rows<2 * kLength>(plan, x, out, source, fold, store);
    const Layout all = make_layout({&x}, kVec);
    if (all.vec != kVec) return false;
    launch("reduce", fold_short_rows_kernel<kVec, kLength, Source, Fold, Store>,
           grid_for(all.items), kBlock, 0, all, source, fold, store);
    return true;
  }
}

// Source::C is what is computed in.
template <class T, class Source = OneSource<T>, class Fold>
void reduce_by(const Array& x, const Array& out, const Fold& fold,
               const Target<typename Source::C>& target) {
  using C = typename Source::C;
  constexpr int kVec = Source::kWidth;
  const Source source{device_data<T>(x)};
  const NumberStore<C> store{target};
  if constexpr (kVec > 1 && std::is_same_v<Fold, Total<C>> && !std::is_same_v<T, bool>) {
    const FoldPlan single(out, {&x}, 1);
    if (is_column_fold(single, x, kVec)) {  // as bias gradients are
      const RowSource<kVec, T> rows{device_data<T>(x), single.reduced.strides[0][0]};
      fold_columns("fold_columns", rows, single.reduced.items, single.kept.items,
                   single.kept.strides[0][0], SumFold<C>(), target);
      return;
    }
    if (fold_short_rows<2>(single, x, out, source, fold, store)) return;
  }
  fold_all("reduce", FoldPlan(out, {&x}, kVec), source, fold, store);
}

// Counts and truths, in 32 bits: in 64 they would not keep up with the memory.
void reduce_bool(ReduceOp op, const Array& x, const Array& out, float beta) {
  using Source = OneSource<bool, int32_t>;
  const Target<int32_t> target{device_pointer(out), out.dtype(), 1, beta != 0};
  switch (op) {
    case ReduceOp::sum:
      return reduce_by<bool, Source>(x, out, Total<int32_t>(), target);
    case ReduceOp::max:
      return reduce_by<bool, Source>(x, out, Extremum<int32_t>(true), target);
    case ReduceOp::min:
    case ReduceOp::prod:
      return reduce_by<bool, Source>(x, out, Extremum<int32_t>(false), target);
    default:
      fail("this reduction needs a floating-point dtype, got ", name_of(x.dtype()));
  }
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
  const int64_t count = x.numel() / out.numel();
  if (x.dtype() == DType::boolean) {
    if (count > INT32_MAX || beta != 0) return reduce(op, x.to(DType::u8), out, beta);
    return reduce_bool(op, x, out, beta);
  }
  const auto run = [&](auto tag) {
    using T = DeviceOf<decltype(tag)>;
    using C = ComputeOf<T>;
    const Target<C> target{device_pointer(out), out.dtype(), op == ReduceOp::mean ? count : 1,
                           beta != 0};
    switch (op) {
      case ReduceOp::sum:
      case ReduceOp::mean:
        return reduce_by<T>(x, out, Total<C>(), target);
      case ReduceOp::max:
      case ReduceOp::min:
        return reduce_by<T>(x, out, Extremum<C>(op == ReduceOp::max), target);
      case ReduceOp::prod:
        return reduce_by<T>(x, out, Product<C>(), target);
      default:
        break;
    }
    if constexpr (std::is_floating_point_v<C>) {
      if (op == ReduceOp::max_abs) return reduce_by<T>(x, out, Extremum<C>(true, true), target);
      return reduce_by<T>(x, out, Measure<C>(op), target);
    } else {
      fail("this reduction needs a floating-point dtype, got ", name_of(x.dtype()));
    }
  };
  switch (x.dtype()) {
    case DType::i64:
      return run(int64_t{});
    case DType::i32:
      return run(int32_t{});
    case DType::u8:
      return run(uint8_t{});
    default:
      return visit_floating(x.dtype(), "reduce", run);
  }
}

}  // namespace binade::kernels::cuda
