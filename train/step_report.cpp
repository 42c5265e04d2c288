// What a step tells, gathered on the device and read when it has arrived.
#include <algorithm>

#include <binade/core/kernels/elementwise.h>
#include <binade/train/data_parallel.h>
#include <binade/train/step.h>

namespace binade::train {

namespace {

// Places in the report, an f64 array on the device; the codes of first_bad follow, then the scalars
// of the losses, and of a timeline what each rank waited.
enum Field : int64_t { kScale, kStep, kLoss, kNorm, kFoundInf, kSkipped, kAtFloor, kFirstBad };

}  // namespace

int64_t TrainStep::group_count() const {
  size_t count = 0;
  for (const Part& part : parts_) count += part.optimizer->groups().size();
  return static_cast<int64_t>(count);
}

// The fields, a code for each flat group, the scalars of the losses, of several parts their losses
// and norms, and what a timeline measured.
Array TrainStep::empty_report() const {
  size_t count = several() ? 2 * parts_.size() : 0;
  for (const Part& part : parts_) count += part.scalar_sums.size();
  if (has_timeline()) count += static_cast<size_t>(options_.parallel->size());
  return Array::zeros({kFirstBad + group_count() + static_cast<int64_t>(count)}, DType::f64,
                      device());
}

bool TrainStep::has_timeline() const {
  return options_.parallel != nullptr && options_.parallel->exposed_seconds().defined();
}

// The scale that it ran with, before it moves.
void TrainStep::report_scale() {
  BINADE_DISPATCH(device(), copy(scaler_.scale_scalar(), report_.select(0, kScale)));
}

void TrainStep::report_step() {
  Array loss = parts_.front().loss_sum;
  if (several()) {
    loss = loss.clone();
    for (size_t i = 1; i < parts_.size(); ++i)
      BINADE_DISPATCH(device(), axpy(1, parts_[i].loss_sum, loss));
  }
  std::vector<Array> fields = {step_,
                               loss,
                               scaler_.norm(),
                               scaler_.found_inf(),
                               scaler_.skipped(),
                               scaler_.at_floor(),
                               scaler_.first_bad().slice(0, 0, group_count())};
  for (const Part& part : parts_) {
    for (const auto& [name, sum] : part.scalar_sums) fields.push_back(sum);
    if (!several()) continue;
    fields.push_back(part.loss_sum);
    fields.push_back(scaler_.norm(*part.optimizer));
  }
  if (has_timeline())
    fields.push_back(options_.parallel->gather(options_.parallel->exposed_seconds()));
  BINADE_DISPATCH(device(), join(fields, report_.slice(0, kStep, report_.numel())));
}

std::vector<StepReport> TrainStep::take_reports(bool wait) {
  std::vector<StepReport> reports = std::exchange(finished_, {});
  for (const Array& values : reports_.take(wait)) reports.push_back(read(values));
  return reports;
}

StepReport TrainStep::read(const Array& values) const {
  const double* value = values.data<double>();
  StepReport report{.step = static_cast<int64_t>(value[kStep]),
                    .loss = value[kLoss],
                    .grad_norm = value[kNorm],
                    .scale = value[kScale],
                    .skipped = value[kFoundInf] != 0,
                    .skipped_total = static_cast<int64_t>(value[kSkipped]),
                    .at_floor = static_cast<int64_t>(value[kAtFloor]),
                    .offender = {},
                    .waiting = {},
                    .scalars = {}};
  const double* scalar = value + kFirstBad + group_count();
  for (const Part& part : parts_) {
    for (const auto& [name, sum] : part.scalar_sums) report.scalars.add(name, *scalar++);
    if (!several()) continue;
    report.scalars.add("loss_" + part.name, *scalar++);
    report.scalars.add("grad_norm_" + part.name, *scalar++);
  }
  if (has_timeline()) {
    const auto [least, most] = std::minmax_element(scalar, scalar + options_.parallel->size());
    report.waiting = {.slowest = static_cast<int>(least - scalar), .least = *least, .most = *most};
  }
  if (!report.skipped) return report;
  std::vector<int64_t> first_bad;
  constexpr double kNone = static_cast<double>(kNoBadGradient);
  bool any = false;
  for (int64_t g = 0; g < group_count(); ++g) {
    const double code = value[kFirstBad + g];
    first_bad.push_back(code >= kNone ? kNoBadGradient : static_cast<int64_t>(code));
    any = any || code < kNone;
  }
  // Without one, every gradient was finite and their norm overflowed.
  std::vector<const optim::Optimizer*> optimizers;
  for (const Part& part : parts_) optimizers.push_back(part.optimizer);
  if (any) report.offender = amp::GradScaler::offender(optimizers, first_bad);
  return report;
}

}  // namespace binade::train
