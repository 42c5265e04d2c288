// What the losses over rows of logits share: targets, statistics, and the loop that hands a row to
// its loss and stores the gradient.
#pragma once

#include <vector>

#include <binade/core/kernels/cpu/common/lanes.h>
#include <binade/core/kernels/cpu/common/rows.h>
#include <binade/core/kernels/loss.h>

namespace binade::kernels::cpu {

// Targets as i64; throws Error for one that is neither ignored nor a class.
inline std::vector<int64_t> read_targets(const Array& targets, int64_t classes,
                                         int64_t ignore_index) {
  check(targets.dtype() == DType::i64 || targets.dtype() == DType::i32,
        "cross_entropy needs targets of dtype i32 or i64, got ", targets.dtype());
  std::vector<int64_t> values = targets.to_vector<int64_t>();
  for (size_t row = 0; row < values.size(); ++row)
    check(values[row] == ignore_index || (values[row] >= 0 && values[row] < classes),
          "cross_entropy: target ", values[row], " of row ", row, " is out of range for ", classes,
          " classes");
  return values;
}

// Writes valid and the hits of a row of logits.
template <class C>
void count_hits(const C* x, int64_t classes, int64_t label, C* statistics) {
  const C own = x[label];
  int64_t rank = 0;
  // A NaN compares as larger.
#pragma omp simd reduction(+ : rank)
  for (int64_t i = 0; i < label; ++i) rank += !(x[i] < own);
#pragma omp simd reduction(+ : rank)
  for (int64_t i = label + 1; i < classes; ++i) rank += !(x[i] <= own);
  statistics[RowStatistics::kValid] = 1;
  for (int64_t n = 0; n < RowStatistics::kHits; ++n)
    statistics[RowStatistics::kFirstHit + n] = own == own && rank <= n ? C{1} : C{0};
}

// −Σ p·log p of softmax(x), in nats.
template <class C>
C entropy_of(const C* x, int64_t classes, double log_sum) {
  const C shift = static_cast<C>(log_sum);
  return static_cast<C>(long_sum_of<C>(classes, [=](int64_t i) {
    const C p = fast_exp(x[i] - shift);
    return p == 0 ? C{0} : p * (shift - x[i]);  // −inf has no part in it
  }));
}

// The outputs of a loss, and what its gradient is multiplied by; loss is always there.
struct LossOutputs {
  const Array& factor;
  const Array& loss;
  const Array& dlogits;
  const Array& statistics;
};

// One row that is not ignored.
template <class C>
struct LossRow {
  int64_t number, classes, label;
  C scale;
  C* loss;
  C* statistics;  // null: not wanted; zeroed
  std::byte* gradient;
  DType gradient_dtype;
  RowWriter<C>* writer;

  // fill(gradient) writes `classes` numbers, unless none are wanted. They may replace the logits.
  template <class Fill>
  void write_gradient(const Fill& fill) const {
    if (gradient == nullptr) return;
    fill(writer->target(gradient, gradient_dtype, classes));
    writer->store();
  }
};

// make_body(C{}) is called once per block of rows and gives body(LossRow<C>) for rows that are not
// ignored; zeroes what belongs to the others, and the gradient of padding columns.
template <class MakeBody>
void for_each_loss_row(const Array& logits, int64_t classes, const Array& targets,
                       int64_t ignore_index, const LossOutputs& out, const MakeBody& make_body) {
  const int64_t rows = logits.size(0), padding = logits.size(1) - classes;
  const std::vector<int64_t> labels = read_targets(targets, classes, ignore_index);
  visit_real(logits.dtype(), "cross_entropy_with_gradient", [&](auto zero) {
    using C = decltype(zero);
    const C scale = out.factor.defined() ? out.factor.data<C>()[0] : C{1};
    C* const losses = out.loss.data<C>();
    C* const statistics = out.statistics.defined() ? out.statistics.data<C>() : nullptr;
    const bool wanted = out.dlogits.defined();
    const DType dtype = wanted ? out.dlogits.dtype() : logits.dtype();
    const Rows gradients(wanted ? out.dlogits : logits);
    const int64_t item = size_of(dtype);
    parallel_for(rows, row_grain(classes), [&](int64_t begin, int64_t end) {
      RowWriter<C> writer;
      auto body = make_body(zero);
      for (int64_t row = begin; row < end; ++row) {
        std::byte* const gradient = wanted ? gradients[row] : nullptr;
        C* const counted = statistics ? statistics + row * RowStatistics::kCount : nullptr;
        if (counted) std::fill_n(counted, int64_t{RowStatistics::kCount}, C{0});
        if (wanted) std::fill_n(gradient + classes * item, padding * item, std::byte{0});
        if (labels[row] == ignore_index) {
          if (wanted) std::fill_n(gradient, classes * item, std::byte{0});
          losses[row] = 0;
          continue;
        }
        body(LossRow<C>{row, classes, labels[row], scale, losses + row, counted, gradient, dtype,
                        &writer});
      }
    });
  });
}

}  // namespace binade::kernels::cpu
