#include <binade/core/kernels/cpu/loss/loss_rows.h>

namespace binade::kernels::cpu {

namespace {

// A row's distribution: p = exp(x · inverse_temperature − log_sum).
template <class C>
class Distribution {
 public:
  void read(const C* x, int64_t classes, C inverse_temperature) {
    surprise_.resize(static_cast<size_t>(classes));
    p_.resize(static_cast<size_t>(classes));
    C* const surprises = surprise_.data();
    C* const probabilities = p_.data();
#pragma omp simd
    for (int64_t i = 0; i < classes; ++i) surprises[i] = x[i] * inverse_temperature;
    const C log_sum = static_cast<C>(log_sum_exp(surprises, classes));
#pragma omp simd
    for (int64_t i = 0; i < classes; ++i) {
      surprises[i] = log_sum - surprises[i];
      probabilities[i] = fast_exp(-surprises[i]);
    }
  }
  const C* probabilities() const {
    return p_.data();
  }
  const C* surprises() const {
    return surprise_.data();
  }  // −log p

 private:
  std::vector<C> p_, surprise_;
};

}  // namespace

void distillation_with_gradient(const Array& logits, const Array& teacher, int64_t classes,
                                const Array& targets, const DistillationParams& params,
                                const Array& factor, const Array& loss, const Array& dlogits,
                                const Array& statistics) {
  const auto make_body = [&](auto zero) {
    using C = decltype(zero);
    return [&, reader = RowReader<C>(), student = Distribution<C>(),
            taught = Distribution<C>()](const LossRow<C>& row) mutable {
      taught.read(reader.read(Rows(teacher)[row.number], teacher.dtype(), classes), classes,
                  static_cast<C>(1 / params.temperature));
      const C* x = reader.read(Rows(logits)[row.number], logits.dtype(), classes);
      student.read(x, classes, C{1});
      const C *p = taught.probabilities(), *q = student.probabilities();
      const C *p_surprise = taught.surprises(), *q_surprise = student.surprises();
      const double divergence = long_sum_of<C>(classes, [=](int64_t i) {
        return p[i] == 0 ? C{0} : p[i] * (q_surprise[i] - p_surprise[i]);
      });
      // min(p, q), in a form that a NaN of either goes through.
      const double overlap = long_sum_of<C>(
          classes, [=](int64_t i) { return (p[i] + q[i] - std::abs(p[i] - q[i])) / 2; });
      // What has no weight may be infinite.
      const double hard =
          params.hard == 0 ? 0 : params.hard * static_cast<double>(q_surprise[row.label]);
      const double soft = params.soft == 0 ? 0 : params.soft * divergence;
      *row.loss = static_cast<C>(hard + soft - params.acceptance * overlap);
      if (row.statistics) {
        count_hits(x, classes, row.label, row.statistics);
        row.statistics[RowStatistics::kEntropy] = static_cast<C>(long_sum_of<C>(
            classes, [=](int64_t i) { return q[i] == 0 ? C{0} : q[i] * q_surprise[i]; }));
        row.statistics[RowStatistics::kOverlap] = static_cast<C>(overlap);
      }
      row.write_gradient([&](C* gradient) {
        // What the student holds where it is below the teacher: moving all logits there moves it.
        const C below = static_cast<C>(
            long_sum_of<C>(classes, [=](int64_t i) { return q[i] < p[i] ? q[i] : C{0}; }));
        const C acceptance = static_cast<C>(params.acceptance), soft = static_cast<C>(params.soft);
        const C all = static_cast<C>(params.hard) + soft + acceptance * below;
        const C scale = row.scale;
#pragma omp simd
        for (int64_t i = 0; i < classes; ++i)
          gradient[i] = (q[i] * (q[i] < p[i] ? all - acceptance : all) - soft * p[i]) * scale;
        gradient[row.label] -= static_cast<C>(params.hard) * scale;
      });
    };
  };
  for_each_loss_row(logits, classes, targets, params.ignore_index,
                    {factor, loss, dlogits, statistics}, make_body);
}

}  // namespace binade::kernels::cpu
