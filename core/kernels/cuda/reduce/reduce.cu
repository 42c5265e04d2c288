// Sums, means and extrema over any dimensions.
//
// Each output is folded by one thread (where neighbouring outputs are neighbours in memory, so that
// a warp reads them together), by a warp (short rows) or by a block (long rows). Few outputs of
// many elements are cut into chunks whose partial results a second kernel folds. The columns of a
// matrix have kernels of their own (column_fold.cuh). How much each thread takes, and in which
// order results meet, follows from the shape and the strides alone.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/column_fold.cuh>
#include <binade/core/kernels/cuda/elementwise/elementwise.cuh>

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

// A fold of what `Term` makes of each element.
template <class C, class Term, class Fold>
struct TermFold : Fold {
  using Fold::operator();
  __device__ __forceinline__ C of(C x) const { return Term()(x); }
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

// What a fold takes of an element.
template <class Fold, class C>
__device__ __forceinline__ C term_of(const Fold& fold, C x) {
  if constexpr (requires { fold.of(x); })
    return fold.of(x);
  else
    return x;
}

// kept: out, and x with the reduced dimensions cut to one element. reduced: x with the others cut.
// Task t folds items [s·chunk, (s+1)·chunk) of output o, where t = s·outputs + o. With one split
// the result goes to the target, otherwise to partial[o·splits + s].
template <int kLanes, int kVec, class T, class Fold>
__global__ void __launch_bounds__(kBlock)
    reduce_kernel(const __grid_constant__ Layout kept, const __grid_constant__ Layout reduced,
                  const T* x, Fold fold, int64_t splits, int64_t chunk, ComputeOf<T>* partial,
                  Target<ComputeOf<T>> target) {
  using C = ComputeOf<T>;
  const int64_t task = (int64_t{blockIdx.x} * kBlock + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  if (task >= kept.items * splits) return;  // all lanes of a task together
  const int64_t split = task / kept.items, output = task - split * kept.items;
  int64_t offset[2];
  locate(kept, output, offset);
  const T* row = x + offset[1];

  C folded[kVec];
#pragma unroll
  for (C& f : folded) f = fold.identity();
  const int64_t end = min(reduced.items, (split + 1) * chunk);
#pragma unroll 4
  for (int64_t item = split * chunk + lane; item < end; item += kLanes) {
    int64_t position[1];
    locate(reduced, item, position);
    const int count = elements_of<kVec>(reduced, item);
    const Vec<T, kVec> values = load_item<kVec>(reduced, 0, row, position[0], count);
#pragma unroll
    for (int i = 0; i < kVec; ++i)
      if (i < count) folded[i] = fold(folded[i], term_of(fold, widen(values[i])));
  }
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
    finish_kernel(const __grid_constant__ Layout kept, Fold fold, int64_t splits, const C* partial,
                  Target<C> target) {
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

// What the shape and the strides decide.
struct Plan {
  Layout kept, reduced;
  int lanes = 1;
  int64_t splits = 1;
  int64_t chunk = 0;  // items of `reduced`
};

Plan make_plan(const Array& x, const Array& out, int vec) {
  Array kept = x, reduced = x;
  for (int d = 0; d < x.dims(); ++d) {
    if (x.size(d) == 1) continue;
    Array& cut = out.size(d) == 1 ? kept : reduced;
    cut = cut.slice(d, 0, 1);
  }
  Plan plan;
  plan.kept = make_layout({&out, &kept}, 1);
  plan.reduced = make_layout({&reduced}, 1);
  const int64_t outputs = plan.kept.items, length = plan.reduced.items;
  const bool neighbours = plan.kept.sizes[0] > 1 && plan.kept.strides[1][0] == 1;
  int64_t wanted = 1;  // splits that give the device enough to do
  if (length <= 8 || (neighbours && plan.reduced.strides[0][0] != 1)) {
    plan.lanes = 1;
    wanted = std::min(ceil_div(length, 32), ceil_div(128 * 1024, outputs));
  } else if (length <= 512) {
    plan.lanes = kWarp;
  } else {
    plan.lanes = kBlock;
    wanted = std::min(ceil_div(length, 4096), ceil_div(2048, outputs));
    bool aligned = true;  // every row begins at a multiple of 16 bytes
    for (int d = 0; d < plan.kept.dims; ++d) aligned &= plan.kept.strides[1][d] % vec == 0;
    if (aligned || outputs == 1) plan.reduced = make_layout({&reduced}, vec);
  }
  plan.chunk = ceil_div(plan.reduced.items, std::clamp<int64_t>(wanted, 1, 1024));
  plan.splits = ceil_div(plan.reduced.items, plan.chunk);
  return plan;
}

// Whether the outputs are the columns of one matrix of 16-byte vectors, and tall enough.
bool is_column_fold(const Plan& plan, const Array& x, int vec) {
  constexpr int64_t kTall = 16;
  const int64_t row_stride = plan.reduced.strides[0][0];
  return plan.kept.dims == 1 && plan.reduced.dims == 1 && plan.reduced.items >= kTall &&
         plan.kept.strides[1][0] == 1 && plan.kept.items > 1 && plan.kept.items % vec == 0 &&
         row_stride % vec == 0 && row_stride >= plan.kept.items &&
         rows_aligned(x.data(), row_stride, size_of(x.dtype()));
}

template <class T, class Fold>
void fold_all(const Array& x, const Array& out, const Fold& fold,
              const Target<ComputeOf<T>>& target) {
  using C = ComputeOf<T>;
  // Integers are not worth a kernel with 16-byte loads.
  constexpr int kVec = std::is_floating_point_v<C> ? kVecWidth<T> : 1;
  const Plan plan = make_plan(x, out, kVec);
  if constexpr (kVec > 1 && std::is_same_v<Fold, SumFold<C>>) {  // as bias gradients are
    if (is_column_fold(plan, x, kVec)) {
      const RowSource<kVec, T> rows{device_data<T>(x), plan.reduced.strides[0][0]};
      fold_columns("fold_columns", rows, plan.reduced.items, plan.kept.items,
                   plan.kept.strides[0][0], fold, target);
      return;
    }
  }
  const auto kernel = plan.lanes == 1            ? reduce_kernel<1, 1, T, Fold>
                      : plan.lanes == kWarp      ? reduce_kernel<kWarp, 1, T, Fold>
                      : plan.reduced.vec == kVec ? reduce_kernel<kBlock, kVec, T, Fold>
                                                 : reduce_kernel<kBlock, 1, T, Fold>;
  const unsigned blocks =
      one_block_each(ceil_div(plan.kept.items * plan.splits * plan.lanes, kBlock));
  if (plan.splits == 1) {
    launch("reduce", kernel, blocks, kBlock, 0, plan.kept, plan.reduced, device_data<T>(x), fold,
           plan.splits, plan.chunk, nullptr, target);
    return;
  }
  const Workspace<C> partial(plan.kept.items * plan.splits);
  launch("reduce", kernel, blocks, kBlock, 0, plan.kept, plan.reduced, device_data<T>(x), fold,
         plan.splits, plan.chunk, partial.data(), target);
  launch("reduce_finish", finish_kernel<C, Fold>,
         one_block_each(ceil_div(plan.kept.items * kWarp, kBlock)), kBlock, 0, plan.kept, fold,
         plan.splits, partial.data(), target);
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
        return fold_all<T>(x, out, SumFold<C>(), target);
      case ReduceOp::max:
      case ReduceOp::min:
        return fold_all<T>(x, out, ExtremumFold<C>{op == ReduceOp::max}, target);
      case ReduceOp::prod:
        return fold_all<T>(x, out, ProductFold<C>(), target);
      default:
        break;
    }
    if constexpr (std::is_floating_point_v<C>) {
      switch (op) {
        case ReduceOp::sum_abs:
          return fold_all<T>(x, out, TermFold<C, Magnitude, SumFold<C>>(), target);
        case ReduceOp::sum_squares:
          return fold_all<T>(x, out, TermFold<C, Square, SumFold<C>>(), target);
        case ReduceOp::max_abs:
          return fold_all<T>(x, out, TermFold<C, Magnitude, MaxFold<C>>(), target);
        default:
          return fold_all<T>(x, out, TermFold<C, NotZero, SumFold<C>>(), target);
      }
    } else {
      fail("this reduction needs a floating-point dtype, got ", name_of(x.dtype()));
    }
  });
}

}  // namespace binade::kernels::cuda
