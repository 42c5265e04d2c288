#include <binade/train/step.h>

#include <algorithm>
#include <cmath>

#include <binade/amp/overflow_diagnosis.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/random.h>
#include <binade/train/data_parallel.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/algorithm_cache.h>
#include <binade/core/cuda/graph.h>
#endif

namespace binade::train {

namespace {

// Places in the report, an f64 array on the device; the codes of first_bad follow, then the scalars
// of the loss.
enum Field : int64_t { kScale, kStep, kLoss, kNorm, kFoundInf, kSkipped, kAtFloor, kFirstBad };

// Eager steps before the capture: they time and choose algorithms and fill the pool.
constexpr int kEagerSteps = 2;

// While it lives, ops draw the random numbers of the step that the device scalar holds; what is
// drawn afterwards goes on from where it was.
class StepRandom {
 public:
  StepRandom(uint64_t seed, const Array& step) : before_(RandomState::current()) {
    RandomState::current().bind_step(step);
    RandomState::current().begin_step(seed, 0);
  }
  ~StepRandom() { RandomState::current() = before_; }
  StepRandom(const StepRandom&) = delete;
  StepRandom& operator=(const StepRandom&) = delete;

 private:
  RandomState before_;
};

// Every micro-batch of every part has its own share of a step's 2^22 places (core/random.h), so
// that its draws depend neither on what runs it nor on what others draw.
class LaneRandom {
 public:
  LaneRandom(int64_t lane, int64_t lanes)
      : share_((uint64_t{1} << 22) / static_cast<uint64_t>(lanes)),
        first_(share_ * static_cast<uint64_t>(lane)) {
    RandomState::current().set_place(first_);
  }
  void check_places() const {
    check(RandomState::current().place() <= first_ + share_, "a micro-batch made more than ",
          share_, " random draws, its share of the step's; use fewer micro-batches");
  }

 private:
  uint64_t share_, first_;
};

// The parts of a step, or Error.
const std::vector<StepPart>& checked(const std::vector<StepPart>& parts) {
  check(!parts.empty(), "a training step needs an optimizer at least");
  Named<bool> names;
  for (const StepPart& part : parts) {
    check(part.optimizer != nullptr && part.loss != nullptr, "part '", part.name,
          "' of a training step needs a loss and an optimizer");
    check(part.optimizer->device() == parts.front().optimizer->device(),
          "the optimizers of a training step are on different devices: part '", part.name, "' on ",
          part.optimizer->device(), ", the first on ", parts.front().optimizer->device());
    check(parts.size() == 1 || !part.name.empty(),
          "each of several parts of a training step needs a name");
    names.add(part.name, true);
  }
  return parts;
}

}  // namespace

void check_accumulation(int64_t rows, int64_t accumulation) {
  check(accumulation > 0 && rows % accumulation == 0, "a batch of ", rows,
        " rows cannot be split into ", accumulation, " micro-batches of equal size");
}

std::vector<Batch> micro_batches(const Batch& batch, int64_t accumulation) {
  check(accumulation > 0, "a step needs at least one micro-batch, got ", accumulation);
  std::vector<Batch> parts(static_cast<size_t>(accumulation));
  for (const auto& [name, array] : batch) {
    check_accumulation(array.size(0), accumulation);
    const int64_t rows = array.size(0) / accumulation;
    for (int64_t m = 0; m < accumulation; ++m)
      parts[static_cast<size_t>(m)].add(name, array.slice(0, m * rows, (m + 1) * rows));
  }
  return parts;
}

struct TrainStep::Prepared {
  Prepared(const std::vector<Batch>& micro_batches, const Named<double>& counts, Device device);
  bool fits(const std::vector<Batch>& micro_batches, const Named<double>& counts) const;
  bool captured() const {
#if BINADE_HAVE_CUDA
    return static_cast<bool>(graph);
#else
    return false;
#endif
  }
  // What is captured belongs to the past; the coming steps are eager.
  void invalidate() {
#if BINADE_HAVE_CUDA
    graph = {};
#endif
    eager_steps = 0;
  }

  std::vector<Named<Uploader>> inputs;  // by micro-batch
  // The numbers that a loss is given, in one f32 array: step, normalisers.
  Uploader numbers;
  Named<Tensor> normalisers;  // views of it
  int eager_steps = 0;        // since this was made or made invalid
#if BINADE_HAVE_CUDA
  cuda::CapturedGraph graph;
#endif
};

TrainStep::Prepared::Prepared(const std::vector<Batch>& micro_batches, const Named<double>& counts,
                              Device device)
    : numbers(Array::zeros({1 + static_cast<int64_t>(counts.size())}, DType::f32, device)) {
  for (const Batch& batch : micro_batches) {
    inputs.emplace_back();
    for (const auto& [name, array] : batch)
      inputs.back().add(name, Uploader(Array::empty(array.shape(), array.dtype(), device)));
  }
  int64_t place = 0;
  for (const auto& [name, value] : counts)
    normalisers.add(name, Tensor(numbers.destination().select(0, ++place)));
}

bool TrainStep::Prepared::fits(const std::vector<Batch>& micro_batches,
                               const Named<double>& counts) const {
  if (inputs.size() != micro_batches.size() || !normalisers.has_names_of(counts)) return false;
  for (size_t m = 0; m < inputs.size(); ++m) {
    if (!inputs[m].has_names_of(micro_batches[m])) return false;
    for (const auto& [name, given] : micro_batches[m]) {
      const Array& input = inputs[m].at(name).destination();
      if (!(input.shape() == given.shape()) || input.dtype() != given.dtype()) return false;
    }
  }
  return true;
}

TrainStep::TrainStep(LossFunction loss, optim::Optimizer& optimizer, amp::GradScaler& scaler,
                     const amp::Preset& preset, const StepOptions& options, optim::Ema* ema)
    : TrainStep({{"", std::move(loss), &optimizer, options.clip}}, scaler, preset, options, ema) {}

TrainStep::TrainStep(std::vector<StepPart> parts, amp::GradScaler& scaler,
                     const amp::Preset& preset, const StepOptions& options, optim::Ema* ema)
    : scaler_(scaler), preset_(preset), options_(options), ema_(ema) {
  for (const StepPart& part : checked(parts)) parts_.emplace_back(part);
  check(ema == nullptr ||
            std::any_of(parts_.begin(), parts_.end(),
                        [&](const Part& part) { return ema->averages(*part.optimizer); }),
        "a training step's averages (Ema) are those of another optimizer");
  check(options.prepared > 0, "a step keeps at least one set of shapes prepared, got ",
        options.prepared);
  step_ = Array::zeros({}, DType::i64, device());
  report_ = empty_report();
#if BINADE_HAVE_CUDA
  if (device().is_cuda()) cuda::load_algorithm_cache(device());
#endif
}

TrainStep::~TrainStep() = default;

int64_t TrainStep::group_count() const {
  size_t count = 0;
  for (const Part& part : parts_) count += part.optimizer->groups().size();
  return static_cast<int64_t>(count);
}

// The fields, a code for each flat group, the scalars of the losses, and of several parts their
// losses and norms.
Array TrainStep::empty_report() const {
  size_t count = several() ? 2 * parts_.size() : 0;
  for (const Part& part : parts_) count += part.scalar_sums.size();
  return Array::zeros({kFirstBad + group_count() + static_cast<int64_t>(count)}, DType::f64,
                      device());
}

bool TrainStep::captured() const {
  return !prepared_.empty() && prepared_.back()->captured();
}

int64_t TrainStep::graphs() const {
  return std::count_if(prepared_.begin(), prepared_.end(),
                       [](const auto& prepared) { return prepared->captured(); });
}

void TrainStep::invalidate() {
  for (const auto& prepared : prepared_) prepared->invalidate();
}

TrainStep::Prepared& TrainStep::prepare(const std::vector<Batch>& micro_batches,
                                        const Named<double>& normalisers) {
  const auto found = std::find_if(prepared_.begin(), prepared_.end(), [&](const auto& prepared) {
    return prepared->fits(micro_batches, normalisers);
  });
  if (found != prepared_.end()) {
    std::rotate(found, found + 1, prepared_.end());
    return *prepared_.back();
  }
  if (std::ssize(prepared_) == options_.prepared) prepared_.erase(prepared_.begin());
  prepared_.push_back(std::make_unique<Prepared>(micro_batches, normalisers, device()));
  return *prepared_.back();
}

void TrainStep::upload(int64_t step, const std::vector<Batch>& micro_batches,
                       const Named<double>& normalisers) {
  Prepared& prepared = *prepared_.back();
  for (size_t m = 0; m < micro_batches.size(); ++m)
    for (const auto& [name, array] : micro_batches[m]) prepared.inputs[m].at(name).upload(array);
  std::vector<float> numbers = {static_cast<float>(step)};
  for (const auto& [name, view] : prepared.normalisers) {
    const double value = normalisers.at(name);
    numbers.push_back(static_cast<float>(value == 0 ? 1 : value));
  }
  prepared.numbers.upload(Array::from(numbers, prepared.numbers.destination().shape()));
  step_.fill(static_cast<double>(step));
}

// Captures the step that was prepared last.
void TrainStep::capture() {
#if BINADE_HAVE_CUDA
  check(current_op_observer() == nullptr,
        "a step that is watched by an observer (anomaly mode, overflow diagnosis) cannot be "
        "captured as a CUDA graph; set StepOptions::capture to false");
  cuda::save_algorithm_cache(device());  // the eager steps met all matmuls
  // The graph takes memory of its own: what the eager steps have left would be held twice.
  release_cached_memory(device());
  const auto other = std::find_if(prepared_.begin(), prepared_.end(),
                                  [](const auto& prepared) { return prepared->captured(); });
  prepared_.back()->graph = cuda::CapturedGraph::capture(
      [this] { queue_work(); }, device(), other == prepared_.end() ? nullptr : &(*other)->graph);
#endif
}

optim::Ema* TrainStep::averages_of(const Part& part) const {
  return ema_ != nullptr && ema_->averages(*part.optimizer) ? ema_ : nullptr;
}

void TrainStep::complete_state() {
  if (options_.parallel == nullptr) return;
  for (const Part& part : parts_) options_.parallel->complete(*part.optimizer, averages_of(part));
}

int64_t TrainStep::lane(size_t m) const {
  const auto own = static_cast<int64_t>(m);
  return options_.parallel ? options_.parallel->lane(own) : own;
}

void TrainStep::run(int64_t step, const std::vector<Batch>& all_micro_batches,
                    const Named<double>& normalisers, double learning_rate) {
  check(!all_micro_batches.empty(), "a training step needs at least one micro-batch");
  const std::vector<Batch> micro_batches =
      options_.parallel ? options_.parallel->own(all_micro_batches) : all_micro_batches;
  bool any = normalisers.empty();
  for (const auto& [name, value] : normalisers) {
    check(std::isfinite(value) && value >= 0, "the normaliser ", name,
          " counts valid labels and is 0 or more, got ", value);
    any = any || value > 0;
  }
  check(any, "the batch of step ", step, " has no valid target: every normaliser is 0 (",
        normalisers.names(), ")");
  for (const Part& part : parts_)
    if (options_.parallel && options_.parallel->share(*part.optimizer, averages_of(part)))
      invalidate();
  Prepared& prepared = prepare(micro_batches, normalisers);
  upload(step, micro_batches, normalisers);
  std::vector<bool> frozen;
  for (const Part& part : parts_) {
    part.optimizer->set_learning_rate(learning_rate);
    part.optimizer->check_ready();  // a replayed step asks nothing
    const std::vector<bool> of_part = part.optimizer->frozen();
    frozen.insert(frozen.end(), of_part.begin(), of_part.end());
  }
  if (frozen != frozen_) {
    invalidate();
    frozen_ = std::move(frozen);
  }

#if BINADE_HAVE_CUDA
  if (options_.capture && device().is_cuda()) {
    if (!prepared.graph && prepared.eager_steps >= kEagerSteps) capture();
    if (prepared.graph) {
      prepared.graph.replay();
      reports_.download(report_);
      return;
    }
  }
#endif
  for (Part& part : parts_) part.scalars_known = prepared.eager_steps > 0;
  queue_work();
  ++prepared.eager_steps;
  reports_.download(report_);
}

Loss TrainStep::forward_backward(const Part& part, size_t m, const Array& scale) {
  const Prepared& prepared = *prepared_.back();
  LossInputs in{{}, prepared.normalisers, Tensor(prepared.numbers.destination().select(0, 0))};
  for (const auto& [name, input] : prepared.inputs[m])
    in.batch.add(name, Tensor(input.destination()));
  const int64_t lanes = lane(prepared.inputs.size()) - lane(0), before = &part - parts_.data();
  const LaneRandom random(before * lanes + lane(m), lanes * static_cast<int64_t>(parts_.size()));
  const amp::Autocast scope(preset_, scale);
  Loss loss = part.loss(in);
  amp::GradScaler::scaled(loss.value, scale).backward();
  random.check_places();
  return loss;
}

void TrainStep::expect_scalars(Part& part, const Named<Tensor>& scalars) {
  for (const auto& [name, scalar] : scalars)
    check(scalar.defined() && scalar.numel() == 1 && is_floating(scalar.dtype()) &&
              scalar.device() == device(),
          "the loss reports ", name, ", which is no scalar of a floating dtype on ", device());
  const bool same = part.scalar_sums.has_names_of(scalars);
  if (!part.scalars_known && !same) {
    invalidate();  // graphs write what was reported before
    finished_ = take_reports(/*wait=*/true);
    reports_ = {};
    part.scalar_sums = {};
    for (const auto& [name, scalar] : scalars)
      part.scalar_sums.add(name, Array::zeros({}, DType::f32, device()));
    report_ = empty_report();
  } else {
    check(same, "the loss has reported ", part.scalar_sums.names(), " and now reports ",
          scalars.names(), "; the names of its scalars must stay");
  }
  part.scalars_known = true;
}

void TrainStep::sum_up(Part& part, size_t m, const Loss& loss) {
  expect_scalars(part, loss.scalars);
  const bool only = prepared_.back()->inputs.size() == 1 && !options_.parallel;
  const auto add = [&](const Tensor& value, Array& sum) {
    std::vector<Array> scalars = {value.array().reshape({}).to(DType::f32)};
    if (options_.parallel) scalars = options_.parallel->gather_scalar(scalars[0]);
    for (size_t i = 0; i < scalars.size(); ++i) {
      if (m == 0 && i == 0) {
        sum = only ? scalars[0] : scalars[0].clone();
      } else {
        BINADE_DISPATCH(sum.device(), axpy(1, scalars[i], sum));
      }
    }
  };
  add(loss.value, part.loss_sum);
  for (const auto& [name, scalar] : loss.scalars) add(scalar, part.scalar_sums.at(name));
}

void TrainStep::zero_grad() {
  for (const Part& part : parts_) part.optimizer->zero_grad();
}

void TrainStep::queue_part(Part& part) {
  zero_grad();  // of all: the loss before may have reached parameters of this part
  const size_t count = prepared_.back()->inputs.size();
  for (size_t m = 0; m < count; ++m) {
    sum_up(part, m, forward_backward(part, m, scaler_.scale_scalar()));
    if (options_.parallel) {
      options_.parallel->accumulate(*part.optimizer);
    } else if (count > 1) {
      part.optimizer->accumulate();
    }
  }
  if (options_.parallel) options_.parallel->gather_sums(*part.optimizer);
  scaler_.clip_norm(part.clip);
  scaler_.step(*part.optimizer);
}

void TrainStep::queue_work() {
  const StepRandom random(options_.seed, step_);
  for (Part& part : parts_) {
    queue_part(part);
    partly_done_ = true;
  }
  // The scale that it ran with, before it moves.
  BINADE_DISPATCH(device(), copy(scaler_.scale_scalar(), report_.select(0, kScale)));
  scaler_.update();
  for (const Part& part : parts_)
    if (optim::Ema* averages = averages_of(part))
      averages->update(scaler_.found_inf(*part.optimizer));
  report_step();
  partly_done_ = false;
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
  BINADE_DISPATCH(device(), join(fields, report_.slice(0, kStep, report_.numel())));
}

std::string TrainStep::diagnose_overflow(double scale) {
  check(!prepared_.empty(), "a diagnosis needs a step that was run");
  const StepRandom random(options_.seed, step_);
  const amp::OverflowDiagnosis diagnosis;
  for (const Part& part : parts_)
    for (size_t m = 0; m < prepared_.back()->inputs.size() && !diagnosis.found(); ++m) {
      zero_grad();
      forward_backward(part, m, Array::full({}, scale, DType::f32, device()));
    }
  zero_grad();
  return diagnosis.text();
}

amp::UnderflowReport TrainStep::underflow_report() {
  check(!prepared_.empty(), "an underflow report needs a step that was run");
  const Part& first = parts_.front();
  return amp::underflow_report(*first.optimizer, scaler_.scale_scalar().item(), [&](double scale) {
    const StepRandom random(options_.seed, step_);
    forward_backward(first, 0, Array::full({}, scale, DType::f32, device()));
  });
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
                    .scalars = {}};
  const double* scalar = value + kFirstBad + group_count();
  for (const Part& part : parts_) {
    for (const auto& [name, sum] : part.scalar_sums) report.scalars.add(name, *scalar++);
    if (!several()) continue;
    report.scalars.add("loss_" + part.name, *scalar++);
    report.scalars.add("grad_norm_" + part.name, *scalar++);
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
