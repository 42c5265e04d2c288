// Fused softmax cross-entropy: a block for each row, one pass forward (running maximum and sum) and
// one pass backward. Exponentials of f32 are the hardware's (2 ulp of ex2 beside the rounding of
// the argument), which keeps the pass bound by memory.
#include <binade/core/kernels/loss.h>

#include <binade/core/cuda/faults.h>

#include "block_reduce.cuh"
#include "launch.cuh"
#include "numeric.cuh"
#include "vec.cuh"

namespace binade::kernels::cuda {

namespace {

constexpr int kLossBlock = 512;

__device__ __forceinline__ float exponential(float x) {
  return __expf(x);
}
__device__ __forceinline__ double exponential(double x) {
  return exp(x);
}

// A row as 16-byte vectors between a few single elements at either end, as rows need not begin at a
// multiple of 16 bytes.
template <class T>
struct RowParts {
  int64_t head, vecs, tail;  // elements before, vectors, first element after
  __device__ RowParts(const T* row, int64_t size) {
    constexpr int kWidth = kVecWidth<T>;
    const int64_t past = reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T);
    head = past == 0 ? 0 : kWidth - past;
    if (head > size) head = size;
    vecs = (size - head) / kWidth;
    tail = head + vecs * kWidth;
  }
};

// Σ exp(x − maximum) over the elements seen so far, and the plain sum that label smoothing needs.
template <class C>
struct RunningSum {
  C maximum = -INFINITY, exps = 0, plain = 0;

  template <int kCount>
  __device__ __forceinline__ void add(const C (&values)[kCount]) {
    C largest = values[0];
#pragma unroll
    for (int i = 1; i < kCount; ++i) largest = values[i] > largest ? values[i] : largest;
    if (largest > maximum) {
      exps *= exponential(maximum - largest);
      maximum = largest;
    }
    const C shift = maximum == -INFINITY ? C(0) : maximum;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      exps += exponential(values[i] - shift);
      plain += values[i];
    }
  }
};

struct Targets {
  const void* data;
  DType dtype;
  int64_t stride;
  int64_t ignore_index;
  uint32_t* faults;

  // The row's class, or −1 for a row that counts nothing. One out of range is noted, then ignored.
  __device__ __forceinline__ int64_t at(int64_t row, int64_t classes) const {
    const int64_t target = load_as<int64_t>(data, row * stride, dtype);
    if (target == ignore_index) return -1;
    if (target < 0 || target >= classes) {
      if (threadIdx.x == 0) note_fault(faults, DeviceFault::index_out_of_range);
      return -1;
    }
    return target;
  }
};

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

  RunningSum<C> running;
  const auto add_element = [&](int64_t i) {
    const C value[1] = {widen(logits[i])};
    running.add(value);
  };
  if (threadIdx.x < parts.head) add_element(threadIdx.x);
  for (int64_t v = threadIdx.x; v < parts.vecs; v += kLossBlock) {
    const auto vec = load_vec<kWidth>(logits + parts.head + v * kWidth);
    C values[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) values[j] = widen(vec[j]);
    running.add(values);
  }
  if (parts.tail + threadIdx.x < a.classes) add_element(parts.tail + threadIdx.x);

  const C maximum = block_reduce<kLossBlock>(running.maximum, Max(), C(-INFINITY));
  const C share = running.maximum == -INFINITY
                      ? running.exps  // nothing but −inf (0) or NaN
                      : running.exps * exponential(running.maximum - maximum);
  const C exps = block_reduce<kLossBlock>(share, Sum(), C(0));
  const C plain = a.smoothing != C(0) ? block_reduce<kLossBlock>(running.plain, Sum(), C(0)) : C(0);
  const int64_t target = a.targets.at(row, a.classes);
  if (threadIdx.x != 0) return;
  // The loss takes the maximum and the logarithm one after the other: their sum would be rounded at
  // the maximum's magnitude.
  const C peak = maximum == -INFINITY ? C(0) : maximum, log_exps = log(exps);
  logsumexp[row] = peak + log_exps;
  if (target < 0) {
    loss[row] = 0;
  } else if (a.smoothing == C(0)) {
    loss[row] = peak - widen(logits[target]) + log_exps;
  } else {
    loss[row] = (C(1) - a.smoothing) * (peak - widen(logits[target])) +
                a.smoothing * (peak - plain / static_cast<C>(a.classes)) + log_exps;
  }
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

template <class T>
CrossEntropy<T> arguments(const Array& logits, const Array& targets,
                          const CrossEntropyParams& params) {
  check(targets.dtype() == DType::i64 || targets.dtype() == DType::i32,
        "cross_entropy needs targets of dtype i32 or i64, got ", name_of(targets.dtype()));
  return {device_data<T>(logits),
          logits.stride(0),
          logits.size(1),
          {targets.data(), targets.dtype(), targets.stride(0), params.ignore_index,
           binade::cuda::fault_word()},
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
