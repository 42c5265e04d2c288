// Fused softmax cross-entropy: a block for each row. Apart, the loss is one pass (running maximum
// and sum) and the gradient another; together, the row is read once and stays in shared memory
// between the two. Exponentials of f32 are the hardware's (2 ulp of ex2 beside the rounding of the
// argument), which keeps the passes bound by memory.
#include <binade/core/kernels/loss.h>

#include <cuda_pipeline.h>

#include <binade/core/cuda/faults.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

namespace {

constexpr int kLossBlock = 512;
constexpr int kGroups = 4;  // of a row's requests: each is waited for together

template <class C>
inline constexpr C kLog2E = static_cast<C>(1.44269504088896340736);
template <class C>
inline constexpr C kLn2 = static_cast<C>(0.69314718055994530942);

__device__ __forceinline__ float exponential(float x) {
  return __expf(x);
}
__device__ __forceinline__ double exponential(double x) {
  return exp(x);
}

// 2^x; in f32 one instruction (exp2f adds some for results below the normal range).
__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ double power_of_two(double x) {
  return exp2(x);
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

// How far x lies above a shift, in powers of two: one multiply-add. The shift (maximum · log2 e)
// was rounded, but it is the same in every term of a row, so that it leaves softmax and loss exact.
template <class C>
__device__ __forceinline__ C above(C x, C shift) {
  return fma(x, kLog2E<C>, -shift);
}
// A row of nothing but −inf (or NaN) is not shifted.
template <class C>
__device__ __forceinline__ C shift_of(C maximum) {
  return maximum == -INFINITY ? C(0) : maximum * kLog2E<C>;
}

// Σ 2^above(x, shift) over the elements seen so far, and the plain sum that label smoothing needs.
template <class C>
struct RunningSum {
  C maximum = -INFINITY, shift = 0, exps = 0, plain = 0;

  template <int kCount>
  __device__ __forceinline__ void add(const C (&values)[kCount], bool smoothed) {
    C largest = values[0];
#pragma unroll
    for (int i = 1; i < kCount; ++i) largest = values[i] > largest ? values[i] : largest;
    if (largest > maximum) {
      maximum = largest;
      const C next = shift_of(maximum);
      exps = rescaled(next);
      shift = next;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) exps += power_of_two(above(values[i], shift));
    if (!smoothed) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) plain += values[i];
  }
  __device__ __forceinline__ void add(C value, bool smoothed) {
    const C values[1] = {value};
    add(values, smoothed);
  }
  // The sum under a larger shift. Shifts grow with the maximum; only the first, 0 for nothing, may
  // be above what follows.
  __device__ __forceinline__ C rescaled(C next) const {
    return exps * power_of_two(fmin(shift - next, C(0)));
  }
};

template <class T, int kWidth, class C>
__device__ __forceinline__ void widen_all(const Vec<T, kWidth>& vec, C (&values)[kWidth]) {
#pragma unroll
  for (int j = 0; j < kWidth; ++j) values[j] = widen(vec.value[j]);
}

// What a block knows of its row.
template <class C>
struct RowSums {
  C maximum, shift, exps, plain;

  __device__ __forceinline__ RowSums(const RunningSum<C>& running, bool smoothed) {
    maximum = block_reduce<kLossBlock>(running.maximum, Max(), C(-INFINITY));
    shift = shift_of(maximum);
    exps = block_reduce<kLossBlock>(running.rescaled(shift), Sum(), C(0));
    plain = smoothed ? block_reduce<kLossBlock>(running.plain, Sum(), C(0)) : C(0);
  }
  // −log softmax of a class with this logit, without a sum that would be rounded at the maximum's
  // magnitude.
  __device__ __forceinline__ C surprise(C logit) const {
    return (log2(exps) - above(logit, shift)) * kLn2<C>;
  }
  __device__ __forceinline__ C logsumexp() const {
    const C peak = maximum == -INFINITY ? C(0) : maximum;
    return peak + surprise(peak);
  }
  __device__ __forceinline__ C loss(C logit, C smoothing, int64_t classes) const {
    if (smoothing == C(0)) return surprise(logit);
    return (C(1) - smoothing) * surprise(logit) +
           smoothing * surprise(plain / static_cast<C>(classes));
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

// The vectors of a row, which every thread reads twice: the same ones both times, so that it waits
// for nobody else. Staged, they are copied to shared memory by requests that all are on their way
// before the first is used; otherwise the second reading is one of global memory.
template <class T, bool kStaged>
class RowVectors {
 public:
  using Vector = Vec<T, kVecWidth<T>>;

  __device__ RowVectors(const T* first, int count, uint4* stage)
      : first_(first), count_(count), stage_(stage) {
    if constexpr (kStaged) {
      share_ = (count + kGroups * kLossBlock - 1) / (kGroups * kLossBlock);
      int v = threadIdx.x;
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        for (int i = 0; i < share_ && v < count_; ++i, v += kLossBlock)
          __pipeline_memcpy_async(stage_ + v, at(v), sizeof(uint4));
        __pipeline_commit();
      }
    }
  }

  // body(vector) for the thread's vectors, as they arrive.
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    int v = threadIdx.x;
    if constexpr (kStaged) {
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        __pipeline_wait_prior(kGroups - 1 - group);
        for (int i = 0; i < share_ && v < count_; ++i, v += kLossBlock) body(load(v));
      }
    } else {
#pragma unroll 4
      for (; v < count_; v += kLossBlock) body(load(v));
    }
  }
  // body(number, vector) for them again.
  template <class Body>
  __device__ __forceinline__ void for_each_again(const Body& body) const {
#pragma unroll 2
    for (int v = threadIdx.x; v < count_; v += kLossBlock) body(v, load(v));
  }
  // Nothing may be on its way to shared memory when a block leaves it.
  __device__ __forceinline__ void abandon() const {
    if constexpr (kStaged) __pipeline_wait_prior(0);
  }

 private:
  __device__ __forceinline__ const T* at(int v) const {
    return first_ + int64_t{v} * kVecWidth<T>;
  }
  __device__ __forceinline__ Vector load(int v) const {
    if constexpr (!kStaged) return load_vec<kVecWidth<T>>(at(v));
    const uint4 words = stage_[v];  // as a struct of halves it is read in parts
    Vector vector;
    memcpy(&vector, &words, sizeof(words));
    return vector;
  }
  const T* first_;
  int count_;
  uint4* stage_;
  int share_ = 0;  // of a thread in a group
};

template <class T>
__device__ __forceinline__ void zero_row(T* row, int64_t size) {
  constexpr int kWidth = kVecWidth<T>;
  const RowParts<T> parts(row, size);
  Vec<T, kWidth> zeros;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) zeros[j] = T(0);
  if (threadIdx.x < parts.head) row[threadIdx.x] = T(0);
  for (int64_t v = threadIdx.x; v < parts.vecs; v += kLossBlock)
    store_vec(row + parts.head + v * kWidth, zeros);
  if (parts.tail + threadIdx.x < size) row[parts.tail + threadIdx.x] = T(0);
}

extern __shared__ uint4 row_stage[];

// Two blocks a multiprocessor: one reads its row while the other writes. G is T where the gradient
// replaces the logits.
template <class T, class G, bool kStaged>
__global__ void __launch_bounds__(kLossBlock, 2)
    cross_entropy_once(CrossEntropy<T> a, G* dlogits, int64_t dlogits_stride, int64_t width,
                       const ComputeOf<T>* factor, ComputeOf<T>* loss) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const T* row = a.logits + blockIdx.x * a.stride;
  G* out = dlogits + blockIdx.x * dlogits_stride;
  const RowParts<T> parts(row, a.classes);
  G* vectors = out + parts.head;
  const RowVectors<T, kStaged> read(row + parts.head, static_cast<int>(parts.vecs), row_stage);

  const int64_t target = a.targets.at(blockIdx.x, a.classes);
  if (target < 0) {
    read.abandon();
    zero_row(out, width);
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    return;
  }
  // Every element is written by the thread that read it, but for the target's, which thread 0 takes
  // before anybody has passed the barriers of the sums.
  const C wanted_logit = threadIdx.x == 0 ? widen(row[target]) : C(0);
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
  const auto gradient = [&](C logit, C wanted) {
    return narrow<G>(fma(power_of_two(above(logit, sums.shift)), scale_of_exp, -wanted));
  };
  if (has_head) out[threadIdx.x] = gradient(head_logit, floor);
  read.for_each_again([&](int v, const Vec<T, kWidth>& vec) {
    Vec<G, kWidth> result;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) result[j] = gradient(widen(vec.value[j]), floor);
    store_vec(vectors + int64_t{v} * kWidth, result);
  });
  if (has_tail) out[tail] = gradient(tail_logit, floor);
  for (int64_t i = a.classes + threadIdx.x; i < width; i += kLossBlock) out[i] = G(0);

  __syncthreads();  // the target's element is written over
  if (threadIdx.x != 0) return;
  out[target] = gradient(wanted_logit, floor + (C(1) - a.smoothing) * scale);
  loss[blockIdx.x] = sums.loss(wanted_logit, a.smoothing, a.classes);
}

template <class T>
CrossEntropy<T> arguments(const Array& logits, const Array& targets,
                          const CrossEntropyParams& params) {
  check(targets.dtype() == DType::i64 || targets.dtype() == DType::i32,
        "cross_entropy needs targets of dtype i32 or i64, got ", name_of(targets.dtype()));
  return {device_data<T>(logits),
          logits.stride(0),
          logits.size(1),
          {device_pointer(targets), targets.dtype(), targets.stride(0), params.ignore_index,
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

void cross_entropy_with_gradient(const Array& logits, int64_t classes, const Array& targets,
                                 const CrossEntropyParams& params, const Array& factor,
                                 const Array& loss, const Array& dlogits) {
  constexpr const char* kName = "cross_entropy_with_gradient";
  check(logits.size(1) <= INT32_MAX, kName, " takes at most 2^31 - 1 columns, got ",
        logits.size(1));
  const auto run = [&](auto logit, auto gradient) {
    using T = decltype(logit);
    using G = decltype(gradient);
    using C = ComputeOf<T>;
    const auto start = [&](auto kernel, size_t shared_bytes) {
      launch(kName, kernel, one_block_each(logits.size(0)), kLossBlock, shared_bytes,
             arguments<T>(logits.slice(1, 0, classes), targets, params), device_data<G>(dlogits),
             dlogits.stride(0), logits.size(1),
             factor.defined() ? device_data<const C>(factor) : nullptr, device_data<C>(loss));
    };
    const auto staged = cross_entropy_once<T, G, true>;
    const size_t row_bytes = static_cast<size_t>(classes / kVecWidth<T>) * 16;
    constexpr size_t kReductions = 1024;  // at least what block_reduce takes
    if (row_bytes + kReductions > binade::cuda::device_properties().shared_bytes_per_block)
      return start(cross_entropy_once<T, G, false>, 0);
    // Otherwise a part of it may be left to the first-level cache, which nothing here uses.
    binade::cuda::check_cuda(
        cudaFuncSetAttribute(staged, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared),
        kName);
    start(staged, row_bytes);
  };
  visit_floating(logits.dtype(), kName, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    if (dlogits.dtype() == logits.dtype()) return run(T{}, T{});
    if constexpr (std::is_same_v<T, float>) {
      if (dlogits.dtype() == DType::f16) return run(T{}, DeviceOf<Half>{});
      if (dlogits.dtype() == DType::bf16) return run(T{}, DeviceOf<BFloat16>{});
    }
    fail(kName, ": a gradient of dtype ", dlogits.dtype(), " for logits of ", logits.dtype());
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
