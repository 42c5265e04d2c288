// The loss of a head against a teacher's logits: a block for each row, which reads the student's
// row and the teacher's once where both fit shared memory. Three passes: the sums of both; what the
// loss is made of; the gradient, which needs the second pass's sum where acceptance counts.
#include <binade/core/kernels/cuda/loss/row_passes.cuh>

namespace binade::kernels::cuda {

namespace {

template <class T>
struct Distillation {
  using C = ComputeOf<T>;
  const T* logits;
  const T* teacher;
  int64_t stride, teacher_stride, classes;
  Targets targets;
  C hard, soft, acceptance, inverse_temperature;
};

// Over a row: p is the teacher's distribution, q the student's.
template <class C>
struct Agreement {
  C overlap = 0;     // Σ min(p, q)
  C below = 0;       // Σ q where q < p
  C divergence = 0;  // Σ e · (teacher's height − student's), e the teacher's powers of two

  struct Add {
    __device__ __forceinline__ Agreement operator()(Agreement a, const Agreement& b) const {
      a.overlap += b.overlap;
      a.below += b.below;
      a.divergence += b.divergence;
      return a;
    }
  };
};

template <class T, class G, bool kStaged>
__global__ void __launch_bounds__(kLossBlock, 1)
    distillation_once(Distillation<T> a, G* dlogits, int64_t dlogits_stride, int64_t width,
                      const ComputeOf<T>* factor, ComputeOf<T>* loss,
                      ComputeOf<T>* all_statistics) {
  using C = ComputeOf<T>;
  constexpr int kWidth = kVecWidth<T>;
  const T* row = a.logits + blockIdx.x * a.stride;
  const T* teacher = a.teacher + blockIdx.x * a.teacher_stride;
  G* const out = dlogits == nullptr ? nullptr : dlogits + blockIdx.x * dlogits_stride;
  C* const statistics =
      all_statistics == nullptr ? nullptr : all_statistics + blockIdx.x * RowStatistics::kCount;
  const int vecs = static_cast<int>(a.classes / kWidth);  // rows begin at whole vectors
  const RowVectors<T, kStaged> student_row(row, vecs, row_stage);
  const RowVectors<T, kStaged> teacher_row(teacher, vecs, row_stage + vecs);

  const int64_t target = a.targets.at(blockIdx.x, a.classes);
  if (target < 0) {
    teacher_row.abandon();
    if (out) zero_row(out, width);
    if (statistics && threadIdx.x < RowStatistics::kCount) statistics[threadIdx.x] = 0;
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    return;
  }
  const C target_logit = widen(row[target]);  // before anybody has passed the sums' barriers
  const int tail = vecs * kWidth + static_cast<int>(threadIdx.x);
  const bool has_tail = tail < a.classes;
  const C tail_logit = has_tail ? widen(row[tail]) : C(0);
  const C teacher_tail = has_tail ? widen(teacher[tail]) * a.inverse_temperature : C(0);

  const auto sums_of = [&](const RowVectors<T, kStaged>& vectors, C factor, C rest) {
    RunningSum<C> running;
    vectors.for_each([&](const Vec<T, kWidth>& vec) {
      C values[kWidth];
      widen_all(vec, values);
#pragma unroll
      for (C& value : values) value *= factor;
      running.add(values, false);
    });
    if (has_tail) running.add(rest, false);
    return RowSums<C>(running, false);
  };
  const RowSums<C> student = sums_of(student_row, C(1), tail_logit);
  const RowSums<C> taught = sums_of(teacher_row, a.inverse_temperature, teacher_tail);
  const C to_q = C(1) / student.exps, to_p = C(1) / taught.exps;

  RowTally<C> tally(target_logit, target);
  Agreement<C> agreement;
  const auto measure = [&](C logit, C teacher_logit, int i) {
    const C height = above(logit, student.shift), power = power_of_two(height);
    const C teacher_height = above(teacher_logit, taught.shift);
    const C teacher_power = power_of_two(teacher_height);
    tally.add(logit, height, power, i);
    const C q = power * to_q, p = teacher_power * to_p;
    agreement.overlap += (p + q - fabs(p - q)) * C(0.5);  // min, through which NaN goes
    agreement.below += q < p ? q : C(0);
    agreement.divergence +=
        teacher_power == C(0) ? C(0) : teacher_power * (teacher_height - height);
  };
  for (int v = threadIdx.x; v < vecs; v += kLossBlock) {
    const Vec<T, kWidth> logits = student_row.again(v), soft = teacher_row.again(v);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      measure(widen(logits.value[j]), widen(soft.value[j]) * a.inverse_temperature, v * kWidth + j);
  }
  if (has_tail) measure(tail_logit, teacher_tail, tail);
  const RowCounts<C> counts = tally.counts.over_block();
  agreement = block_reduce<kLossBlock>(agreement, typename Agreement<C>::Add(), Agreement<C>());

  if (threadIdx.x == 0) {
    const C divergence =
        (agreement.divergence * to_p + log2(student.exps) - log2(taught.exps)) * kLn2<C>;
    // What has no weight may be infinite.
    loss[blockIdx.x] = (a.hard == C(0) ? C(0) : a.hard * student.surprise(target_logit)) +
                       (a.soft == C(0) ? C(0) : a.soft * divergence) -
                       a.acceptance * agreement.overlap;
    if (statistics) counts.write(statistics, student, target_logit, agreement.overlap);
  }
  if (out == nullptr) return;

  const C scale = factor ? *factor : C(1);
  const C all = a.hard + a.soft + a.acceptance * agreement.below;
  const auto gradient = [&](C logit, C teacher_logit, int i) {
    const C q = power_of_two(above(logit, student.shift)) * to_q;
    const C p = power_of_two(above(teacher_logit, taught.shift)) * to_p;
    const C wanted = i == static_cast<int>(target) ? a.hard : C(0);
    return narrow<G>((q * (q < p ? all - a.acceptance : all) - a.soft * p - wanted) * scale);
  };
  for (int v = threadIdx.x; v < vecs; v += kLossBlock) {
    const Vec<T, kWidth> logits = student_row.again(v), soft = teacher_row.again(v);
    Vec<G, kWidth> result;
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      result[j] = gradient(widen(logits.value[j]), widen(soft.value[j]) * a.inverse_temperature,
                           v * kWidth + j);
    store_vec(out + int64_t{v} * kWidth, result);
  }
  if (has_tail) out[tail] = gradient(tail_logit, teacher_tail, tail);
  for (int64_t i = a.classes + threadIdx.x; i < width; i += kLossBlock) out[i] = G(0);
}

}  // namespace

void distillation_with_gradient(const Array& logits, const Array& teacher, int64_t classes,
                                const Array& targets, const DistillationParams& params,
                                const Array& factor, const Array& loss, const Array& dlogits,
                                const Array& statistics) {
  constexpr const char* kName = "distillation_with_gradient";
  check(logits.size(1) <= INT32_MAX, kName, " takes at most 2^31 - 1 columns, got ",
        logits.size(1));
  for (const Array& rows : {logits, teacher, dlogits})
    check(!rows.defined() ||
              (reinterpret_cast<uintptr_t>(rows.data()) % 16 == 0 &&
               (rows.size(0) <= 1 || rows.stride(0) * size_of(rows.dtype()) % 16 == 0)),
          kName, ": rows must begin at multiples of 16 bytes");
  visit_logits_and_gradient(kName, logits, dlogits, [&](auto logit, auto gradient) {
    using T = decltype(logit);
    using G = decltype(gradient);
    using C = ComputeOf<T>;
    const Distillation<T> arguments = {device_data<T>(logits),
                                       device_data<T>(teacher),
                                       logits.stride(0),
                                       teacher.stride(0),
                                       classes,
                                       targets_of(targets, params.ignore_index),
                                       static_cast<C>(params.hard),
                                       static_cast<C>(params.soft),
                                       static_cast<C>(params.acceptance),
                                       static_cast<C>(1 / params.temperature)};
    start_staged(kName, 2 * staged_bytes<T>(classes), distillation_once<T, G, true>,
                 distillation_once<T, G, false>, [&](auto kernel, size_t shared_bytes) {
                   launch(kName, kernel, one_block_each(logits.size(0)), kLossBlock, shared_bytes,
                          arguments, data_or_null<G>(dlogits),
                          dlogits.defined() ? dlogits.stride(0) : 0, logits.size(1),
                          data_or_null<const C>(factor), device_data<C>(loss),
                          data_or_null<C>(statistics));
                 });
  });
}

}  // namespace binade::kernels::cuda
