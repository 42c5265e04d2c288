// Fused softmax cross-entropy: a block for each row. Apart, the loss is one pass (running maximum
// and sum) and the gradient another; together, the row is read once and stays in shared memory
// between the two. Exponentials of f32 are the hardware's (2 ulp of ex2 beside the rounding of the
// argument), which keeps the passes bound by memory.
#include <binade/core/kernels/loss.h>

#include <binade/core/kernels/cuda/loss/row_passes.cuh>

namespace binade::kernels::cuda {

namespace {

__device__ __forceinline__ float exponential(float x) {
  return __expf(x);
}
__device__ __forceinline__ double exponential(double x) {
  return exp(x);
}

template <class T>
struct CrossEntropy {
  using C = ComputeOf<T>;
  const T* logits;
  int64_t stride, classes;
  Targets targets;
  C smoothing;
};

template <class T>
__global__ void __launch_bounds__(kLossBlock)
    cross_entropy_forward(CrossEntropy<T> a, ComputeOf<T>* loss, ComputeOf<T>* logsumexp) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const int64_t row = blockIdx.x;
  const T* logits = a.logits + row * a.stride;
  const RowParts<T> parts(logits, a.classes);
  const bool smoothed = a.smoothing != C(0);

  RunningSum<C> running;
  if (threadIdx.x < parts.head) running.add(widen(logits[threadIdx.x]), smoothed);
  for (int64_t v = threadIdx.x; v < parts.vecs; v += kLossBlock) {
    C values[kWidth];
    widen_all(load_vec<kWidth>(logits + parts.head + v * kWidth), values);
    running.add(values, smoothed);
  }
  if (parts.tail + threadIdx.x < a.classes)
    running.add(widen(logits[parts.tail + threadIdx.x]), smoothed);

  const RowSums<C> sums(running, smoothed);
  const int64_t target = a.targets.at(row, a.classes);
  if (threadIdx.x != 0) return;
  logsumexp[row] = sums.logsumexp();
  loss[row] = target < 0 ? C(0) : sums.loss(widen(logits[target]), a.smoothing, a.classes);
}

template <class T>
__global__ void __launch_bounds__(kLossBlock)
    cross_entropy_gradient(CrossEntropy<T> a, const ComputeOf<T>* logsumexp, const void* dloss,
                           DType dloss_dtype, int64_t dloss_stride, T* dlogits,
                           int64_t dlogits_stride) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const int64_t row = blockIdx.x;
  const T* logits = a.logits + row * a.stride;
  T* out = dlogits + row * dlogits_stride;
  RowParts<T> parts(logits, a.classes);
  if ((reinterpret_cast<uintptr_t>(logits) ^ reinterpret_cast<uintptr_t>(out)) % 16 != 0)
    parts.head = parts.tail = a.classes, parts.vecs = 0;  // no vector is aligned in both

  const int64_t target = a.targets.at(row, a.classes);
  const C scale = target < 0 ? C(0) : load_as<C>(dloss, row * dloss_stride, dloss_dtype);
  const C lse = logsumexp[row];
  const C floor = a.smoothing / static_cast<C>(a.classes);
  const auto gradient = [&](C logit, int64_t i) {
    const C wanted = floor + (i == target ? C(1) - a.smoothing : C(0));
    return target < 0 ? C(0) : (exponential(logit - lse) - wanted) * scale;
  };
  for (int64_t i = threadIdx.x; i < parts.head; i += kLossBlock)
    out[i] = narrow<T>(gradient(widen(logits[i]), i));
  for (int64_t v = threadIdx.x; v < parts.vecs; v += kLossBlock) {
    const int64_t first = parts.head + v * kWidth;
    auto vec = load_vec<kWidth>(logits + first);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) vec[j] = narrow<T>(gradient(widen(vec[j]), first + j));
    store_vec(out + first, vec);
  }
  if (parts.tail + threadIdx.x < a.classes) {
    const int64_t i = parts.tail + threadIdx.x;
    out[i] = narrow<T>(gradient(widen(logits[i]), i));
  }
}

// Two blocks a multiprocessor: one reads its row while the other writes. G is T where the gradient
// replaces the logits. Without statistics there is a gradient.
template <class T, class G, bool kStaged, bool kCounted>
__global__ void __launch_bounds__(kLossBlock, 2)
    cross_entropy_once(CrossEntropy<T> a, G* dlogits, int64_t dlogits_stride, int64_t width,
                       const ComputeOf<T>* factor, ComputeOf<T>* loss,
                       ComputeOf<T>* all_statistics) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const T* row = a.logits + blockIdx.x * a.stride;
  const bool wanted = !kCounted || dlogits != nullptr;
  G* out = dlogits + (wanted ? blockIdx.x * dlogits_stride : 0);
  C* const statistics = all_statistics + blockIdx.x * RowStatistics::kCount;
  const RowParts<T> parts(row, a.classes);
  G* vectors = out + parts.head;
  const RowVectors<T, kStaged> read(row + parts.head, static_cast<int>(parts.vecs), row_stage);

  const int64_t target = a.targets.at(blockIdx.x, a.classes);
  if (target < 0) {
    read.abandon();
    if (wanted) zero_row(out, width);
    if (kCounted && threadIdx.x < RowStatistics::kCount) statistics[threadIdx.x] = 0;
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    return;
  }
  // Every element is written by the thread that read it, but for the target's, which is taken
  // before anybody has passed the barriers of the sums.
  const C wanted_logit = kCounted || threadIdx.x == 0 ? widen(row[target]) : C(0);
  const bool has_head = threadIdx.x < parts.head;
  const bool has_tail = parts.tail + threadIdx.x < a.classes;
  const int64_t tail = parts.tail + threadIdx.x;
  const C head_logit = has_head ? widen(row[threadIdx.x]) : C(0);
  const C tail_logit = has_tail ? widen(row[tail]) : C(0);
  const C scale = factor ? *factor : C(1);

  const bool smoothed = a.smoothing != C(0);
  RunningSum<C> running;
  if (has_head) running.add(head_logit, smoothed);
  read.for_each([&](const Vec<T, kWidth>& vec) {
    C values[kWidth];
    widen_all(vec, values);
    running.add(values, smoothed);
  });
  if (has_tail) running.add(tail_logit, smoothed);
  const RowSums<C> sums(running, smoothed);

  const C scale_of_exp = scale / sums.exps;
  const C floor = a.smoothing / static_cast<C>(a.classes) * scale;
  RowTally<C> tally(wanted_logit, target);
  // i: the class, where rows are counted.
  const auto gradient = [&](C logit, C wanted, int i) {
    const C height = above(logit, sums.shift), power = power_of_two(height);
    if constexpr (kCounted) tally.add(logit, height, power, i);
    return narrow<G>(fma(power, scale_of_exp, -wanted));
  };
  const auto head_gradient = has_head ? gradient(head_logit, floor, threadIdx.x) : G(0);
  if (wanted && has_head) out[threadIdx.x] = head_gradient;
  read.for_each_again([&](int v, const Vec<T, kWidth>& vec) {
    Vec<G, kWidth> result;
    const int first = static_cast<int>(parts.head) + v * kWidth;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) result[j] = gradient(widen(vec.value[j]), floor, first + j);
    if (wanted) store_vec(vectors + int64_t{v} * kWidth, result);
  });
  const auto tail_gradient = has_tail ? gradient(tail_logit, floor, static_cast<int>(tail)) : G(0);
  if (wanted && has_tail) out[tail] = tail_gradient;
  if (wanted)
    for (int64_t i = a.classes + threadIdx.x; i < width; i += kLossBlock) out[i] = G(0);

  RowCounts<C> counts;
  if constexpr (kCounted) counts = tally.counts.over_block();
  __syncthreads();  // the target's element is written over
  if (threadIdx.x != 0) return;
  if (wanted)
    out[target] = narrow<G>(fma(power_of_two(above(wanted_logit, sums.shift)), scale_of_exp,
                                -(floor + (C(1) - a.smoothing) * scale)));
  loss[blockIdx.x] = sums.loss(wanted_logit, a.smoothing, a.classes);
  if constexpr (kCounted) counts.write(statistics, sums, wanted_logit, C(0));
}

template <class T>
CrossEntropy<T> arguments(const Array& logits, const Array& targets,
                          const CrossEntropyParams& params) {
  return {device_data<T>(logits), logits.stride(0), logits.size(1),
          targets_of(targets, params.ignore_index),
          static_cast<ComputeOf<T>>(params.label_smoothing)};
}

}  // namespace

void cross_entropy(const Array& logits, const Array& targets, const CrossEntropyParams& params,
                   const Array& loss, const Array& logsumexp) {
  visit_floating(logits.dtype(), "cross_entropy", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    launch("cross_entropy", cross_entropy_forward<T>, one_block_each(logits.size(0)), kLossBlock, 0,
           arguments<T>(logits, targets, params), device_data<C>(loss), device_data<C>(logsumexp));
  });
}

void cross_entropy_with_gradient(const Array& logits, int64_t classes, const Array& targets,
                                 const CrossEntropyParams& params, const Array& factor,
                                 const Array& loss, const Array& dlogits, const Array& statistics) {
  constexpr const char* kName = "cross_entropy_with_gradient";
  check(logits.size(1) <= INT32_MAX, kName, " takes at most 2^31 - 1 columns, got ",
        logits.size(1));
  visit_logits_and_gradient(kName, logits, dlogits, [&](auto logit, auto gradient) {
    using T = decltype(logit);
    using G = decltype(gradient);
    using C = ComputeOf<T>;
    const auto start = [&](auto kernel, size_t shared_bytes) {
      launch(kName, kernel, one_block_each(logits.size(0)), kLossBlock, shared_bytes,
             arguments<T>(logits.slice(1, 0, classes), targets, params), data_or_null<G>(dlogits),
             dlogits.defined() ? dlogits.stride(0) : 0, logits.size(1),
             data_or_null<const C>(factor), device_data<C>(loss), data_or_null<C>(statistics));
    };
    const size_t row_bytes = staged_bytes<T>(classes);
    if (statistics.defined())
      return start_staged(kName, row_bytes, cross_entropy_once<T, G, true, true>,
                          cross_entropy_once<T, G, false, true>, start);
    start_staged(kName, row_bytes, cross_entropy_once<T, G, true, false>,
                 cross_entropy_once<T, G, false, false>, start);
  });
}

void cross_entropy_backward(const Array& logits, const Array& targets, const Array& logsumexp,
                            const Array& dloss, const CrossEntropyParams& params,
                            const Array& dlogits) {
  visit_floating(logits.dtype(), "cross_entropy_backward", [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    using C = ComputeOf<T>;
    const int64_t dloss_stride = dloss.numel() == 1 ? 0 : dloss.stride(0);
    launch("cross_entropy_backward", cross_entropy_gradient<T>, one_block_each(logits.size(0)),
           kLossBlock, 0, arguments<T>(logits, targets, params), device_data<C>(logsumexp),
           dloss.data(), dloss.dtype(), dloss_stride, device_data<T>(dlogits), dlogits.stride(0));
  });
}

}  // namespace binade::kernels::cuda
