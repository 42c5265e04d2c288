// What the kernels of the losses share: a block for a row, the row's parts and sums, and the row
// kept in shared memory between two passes.
#pragma once

#include <cuda_pipeline.h>

#include <binade/core/cuda/faults.h>
#include <binade/core/kernels/loss.h>

#include <binade/core/kernels/cuda/common/block_reduce.cuh>
#include <binade/core/kernels/cuda/common/launch.cuh>
#include <binade/core/kernels/cuda/common/numeric.cuh>
#include <binade/core/kernels/cuda/common/vec.cuh>

namespace binade::kernels::cuda {

constexpr int kLossBlock = 512;
constexpr int kGroups = 4;  // of a row's requests: each is waited for together

template <class C>
inline constexpr C kLog2E = static_cast<C>(1.44269504088896340736);
template <class C>
inline constexpr C kLn2 = static_cast<C>(0.69314718055994530942);

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

// What is counted of a row.
template <class C>
struct RowCounts {
  int rank = 0;    // logits that count before the target's
  C weighted = 0;  // Σ power · height

  struct Add {
    __device__ __forceinline__ RowCounts operator()(RowCounts a, const RowCounts& b) const {
      a.rank += b.rank;
      a.weighted += b.weighted;
      return a;
    }
  };
  __device__ __forceinline__ RowCounts over_block() const {
    return block_reduce<kLossBlock>(*this, Add(), RowCounts());
  }
  __device__ __forceinline__ void write(C* statistics, const RowSums<C>& sums, C target_logit,
                                        C overlap) const {
    statistics[RowStatistics::kValid] = C(1);
#pragma unroll
    for (int n = 0; n < RowStatistics::kHits; ++n)
      statistics[RowStatistics::kFirstHit + n] =
          target_logit == target_logit && rank <= n ? C(1) : C(0);
    statistics[RowStatistics::kEntropy] = (log2(sums.exps) - weighted / sums.exps) * kLn2<C>;
    statistics[RowStatistics::kOverlap] = overlap;
  }
};

__device__ __forceinline__ float next_up(float x) {
  return nextafterf(x, INFINITY);
}
__device__ __forceinline__ double next_up(double x) {
  return nextafter(x, double{INFINITY});
}

// Counts logits while the row passes again, its sums being known.
template <class C>
struct RowTally {
  C up_to, beyond;  // a logit counts from here on: before the target, behind it
  int target;
  RowCounts<C> counts = {};

  __device__ __forceinline__ RowTally(C target_logit, int64_t target)
      : up_to(target_logit), beyond(next_up(target_logit)), target(static_cast<int>(target)) {}

  // height = above(logit, shift), power = 2^height.
  __device__ __forceinline__ void add(C logit, C height, C power, int i) {
    counts.rank += !(logit < (i < target ? up_to : beyond));                 // so does a NaN
    counts.weighted = fma(power, fmax(height, C(-16384)), counts.weighted);  // not 0 · −inf
  }
};

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

  // A vector of this thread's, once it has arrived.
  __device__ __forceinline__ Vector again(int v) const {
    return load(v);
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

// ---- on the host --------------------------------------------------------------------------------

inline Targets targets_of(const Array& targets, int64_t ignore_index) {
  check(targets.dtype() == DType::i64 || targets.dtype() == DType::i32,
        "cross_entropy needs targets of dtype i32 or i64, got ", name_of(targets.dtype()));
  return {device_pointer(targets), targets.dtype(), targets.stride(0), ignore_index,
          binade::cuda::fault_word()};
}

template <class T>
T* data_or_null(const Array& array) {
  return array.defined() ? device_data<T>(array) : nullptr;
}

// run(T{}, G{}) with the device types of logits and of their gradient (logits' own without one).
template <class Run>
void visit_logits_and_gradient(const char* name, const Array& logits, const Array& dlogits,
                               const Run& run) {
  const DType gradient = dlogits.defined() ? dlogits.dtype() : logits.dtype();
  visit_floating(logits.dtype(), name, [&](auto element) {
    using T = DeviceOf<decltype(element)>;
    if (gradient == logits.dtype()) return run(T{}, T{});
    if constexpr (std::is_same_v<T, float>) {
      if (gradient == DType::f16) return run(T{}, DeviceOf<Half>{});
      if (gradient == DType::bf16) return run(T{}, DeviceOf<BFloat16>{});
    }
    fail(name, ": a gradient of dtype ", gradient, " for logits of ", logits.dtype());
  });
}

// Shared memory for the vectors of a row.
template <class T>
size_t staged_bytes(int64_t classes) {
  return static_cast<size_t>(classes / kVecWidth<T>) * 16;
}

// start(kernel, shared bytes) with `staged` where so much fits, otherwise with `direct`.
template <class Kernel, class Start>
void start_staged(const char* name, size_t bytes, Kernel staged, Kernel direct,
                  const Start& start) {
  constexpr size_t kReductions = 1024;  // at least what block_reduce takes
  if (bytes + kReductions > binade::cuda::device_properties().shared_bytes_per_block)
    return start(direct, 0);
  // Otherwise a part of it may be left to the first-level cache, which nothing here uses.
  binade::cuda::check_cuda(
      cudaFuncSetAttribute(staged, cudaFuncAttributePreferredSharedMemoryCarveout,
                           cudaSharedmemCarveoutMaxShared),
      name);
  start(staged, bytes);
}

}  // namespace binade::kernels::cuda
