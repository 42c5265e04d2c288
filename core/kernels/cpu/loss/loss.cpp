#include <binade/core/kernels/loss.h>

#include <binade/core/kernels/cpu/loss/loss_rows.h>

namespace binade::kernels::cpu {
namespace {

// The loss of a row of logits x and a label that is not ignored.
template <class C>
C row_loss(const C* x, int64_t classes, int64_t label, double log_sum, double smoothing) {
  double value = (1 - smoothing) * (log_sum - static_cast<double>(x[label]));
  if (smoothing != 0) {
    const double total = long_sum_of<C>(classes, [=](int64_t i) { return x[i]; });
    value += smoothing * (log_sum - total / static_cast<double>(classes));
  }
  return static_cast<C>(value);
}

// gradient = (softmax(x) − target) · scale; it may be x.
template <class C>
void row_gradient(const C* x, int64_t classes, int64_t label, C log_sum, C smoothing, C scale,
                  C* gradient) {
  const C off_target = smoothing / static_cast<C>(classes);
  const C probability = fast_exp(x[label] - log_sum);  // before the row is written
#pragma omp simd
  for (int64_t i = 0; i < classes; ++i)
    gradient[i] = (fast_exp(x[i] - log_sum) - off_target) * scale;
  gradient[label] = (probability - off_target - (1 - smoothing)) * scale;
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
    parallel_for(rows, row_grain(classes), [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      for (int64_t row = begin; row < end; ++row) {
        const C* x = reader.read(logit_rows[row], logits.dtype(), classes);
        const double log_sum = log_sum_exp(x, classes);
        log_sums[row] = static_cast<C>(log_sum);
        if (labels[row] == params.ignore_index) {
          losses[row] = 0;
          continue;
        }
        losses[row] = row_loss(x, classes, labels[row], log_sum, smoothing);
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
    parallel_for(rows, row_grain(classes), [&](int64_t begin, int64_t end) {
      RowReader<C> reader;
      RowWriter<C> writer;
      for (int64_t row = begin; row < end; ++row) {
        C* gradient = writer.target(gradient_rows[row], dlogits.dtype(), classes);
        if (labels[row] == params.ignore_index) {
          std::fill_n(gradient, classes, C{0});
        } else {
          const C* x = reader.read(logit_rows[row], logits.dtype(), classes);
          row_gradient(x, classes, labels[row], log_sums[row], smoothing, scales[row], gradient);
        }
        writer.store();
      }
    });
  });
}

void cross_entropy_with_gradient(const Array& logits, int64_t classes, const Array& targets,
                                 const CrossEntropyParams& params, const Array& factor,
                                 const Array& loss, const Array& dlogits, const Array& statistics) {
  const double smoothing = params.label_smoothing;
  for_each_loss_row(logits, classes, targets, params.ignore_index,
                    {factor, loss, dlogits, statistics}, [&](auto zero) {
                      using C = decltype(zero);
                      return [&, reader = RowReader<C>()](const LossRow<C>& row) mutable {
                        const C* x = reader.read(Rows(logits)[row.number], logits.dtype(), classes);
                        const double log_sum = log_sum_exp(x, classes);
                        *row.loss = row_loss(x, classes, row.label, log_sum, smoothing);
                        if (row.statistics) {
                          count_hits(x, classes, row.label, row.statistics);
                          row.statistics[RowStatistics::kEntropy] = entropy_of(x, classes, log_sum);
                        }
                        row.write_gradient([&](C* gradient) {
                          row_gradient(x, classes, row.label, static_cast<C>(log_sum),
                                       static_cast<C>(smoothing), row.scale, gradient);
                        });
                      };
                    });
}

}  // namespace binade::kernels::cpu
