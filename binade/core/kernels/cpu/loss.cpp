#include <binade/core/kernels/loss.h>

#include <binade/core/kernels/cpu/lanes.h>
#include <binade/core/kernels/cpu/rows.h>

namespace binade::kernels::cpu {
namespace {

// Targets as i64; throws Error for one that is neither ignored nor a class.
std::vector<int64_t> read_targets(const Array& targets, int64_t classes, int64_t ignore_index) {
  check(targets.dtype() == DType::i64 || targets.dtype() == DType::i32,
        "cross_entropy needs targets of dtype i32 or i64, got ", targets.dtype());
  std::vector<int64_t> values = targets.to_vector<int64_t>();
  for (size_t row = 0; row < values.size(); ++row)
    check(values[row] == ignore_index || (values[row] >= 0 && values[row] < classes),
          "cross_entropy: target ", values[row], " of row ", row, " is out of range for ", classes,
          " classes");
  return values;
}

}  // namespace

void cross_entropy(const Array& logits, const Array& targets, const CrossEntropyParams& params,
                   const Array& loss, const Array& logsumexp) {
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const std::vector<int64_t> labels = read_targets(targets, classes, params.ignore_index);
  const double smoothing = params.label_smoothing;
  visit_real(logits.dtype(), "cross_entropy", [&](auto zero) {
    using C = decltype(zero);
    const Rows logit_rows(logits);
    C* log_sums = logsumexp.data<C>();
    C* losses = loss.data<C>();
    parallel_for(rows, std::max<int64_t>(1, kGrain / classes), [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      for (int64_t row = begin; row < end; ++row) {
        const C* x = reader.read(logit_rows[row], logits.dtype(), classes);
        const double log_sum = log_sum_exp(x, classes);
        log_sums[row] = static_cast<C>(log_sum);
        if (labels[row] == params.ignore_index) {
          losses[row] = 0;
          continue;
        }
        double value = (1 - smoothing) * (log_sum - static_cast<double>(x[labels[row]]));
        if (smoothing != 0) {
          const double total = long_sum_of<C>(classes, [=](int64_t i) { return x[i]; });
          value += smoothing * (log_sum - total / static_cast<double>(classes));
        }
        losses[row] = static_cast<C>(value);
      }
    });
  });
}

void cross_entropy_backward(const Array& logits, const Array& targets, const Array& logsumexp,
                            const Array& dloss, const CrossEntropyParams& params,
                            const Array& dlogits) {
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const std::vector<int64_t> labels = read_targets(targets, classes, params.ignore_index);
  visit_real(logits.dtype(), "cross_entropy_backward", [&](auto zero) {
    using C = decltype(zero);
    const Rows logit_rows(logits), gradient_rows(dlogits);
    const C* log_sums = logsumexp.data<C>();
    const std::vector<C> scales = dloss.to_vector<C>();
    const C smoothing = static_cast<C>(params.label_smoothing);
    const C off_target = smoothing / static_cast<C>(classes);
    parallel_for(rows, std::max<int64_t>(1, kGrain / classes), [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      RowWriter<C> writer;
      for (int64_t row = begin; row < end; ++row) {
        C* gradient = writer.target(gradient_rows[row], dlogits.dtype(), classes);
        if (labels[row] == params.ignore_index) {
          std::fill_n(gradient, classes, C{0});
        } else {
          const C* x = reader.read(logit_rows[row], logits.dtype(), classes);
          const C scale = scales[row], log_sum = log_sums[row];
          // Before the row is written: dlogits may be logits.
          const C probability = fast_exp(x[labels[row]] - log_sum);
#pragma omp simd
          for (int64_t i = 0; i < classes; ++i)
            gradient[i] = (fast_exp(x[i] - log_sum) - off_target) * scale;
          gradient[labels[row]] = (probability - off_target - (1 - smoothing)) * scale;
        }
        writer.store();
      }
    });
  });
}

}  // namespace binade::kernels::cpu
