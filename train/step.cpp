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
  if (options_.parallel) options_.parallel->settle();
  const auto other = std::find_if(prepared_.begin(), prepared_.end(),
                                  [](const auto& prepared) { return prepared->captured(); });
  prepared_.back()->graph = cuda::CapturedGraph::capture(
      [this] {
        const auto work = [this] { queue_work(); };
        options_.parallel ? options_.parallel->capture(work) : work();
      },
      device(), other == prepared_.end() ? nullptr : &(*other)->graph);
#endif
}

optim::Ema* TrainStep::averages_of(const Part& part) const {
  return ema_ != nullptr && ema_->averages(*part.optimizer) ? ema_ : nullptr;
}

void TrainStep::share_state(bool begin) {
  if (options_.parallel == nullptr) return;
  for (const Part& part : parts_)
    if (options_.parallel->share(*part.optimizer, averages_of(part), begin)) invalidate();
}

void TrainStep::begin_state() {
  for (const Part& part : parts_) part.optimizer->begin();
}

void TrainStep::complete_state() {
  if (options_.parallel == nullptr) return;
  for (const Part& part : parts_) options_.parallel->complete(*part.optimizer, averages_of(part));
}

void TrainStep::complete_values() {
  if (options_.parallel != nullptr) options_.parallel->complete_values();
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
  share_state();
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
      parts_.back().optimizer->note_update();
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

Loss TrainStep::forward_backward(const Part& part, size_t m, const Array& scale,
                                 GradientWatch* watch) {
  const Prepared& prepared = *prepared_.back();
  LossInputs in{{}, prepared.normalisers, Tensor(prepared.numbers.destination().select(0, 0))};
  for (const auto& [name, input] : prepared.inputs[m])
    in.batch.add(name, Tensor(input.destination()));
  const int64_t lanes = lane(prepared.inputs.size()) - lane(0), before = &part - parts_.data();
  const LaneRandom random(before * lanes + lane(m), lanes * static_cast<int64_t>(parts_.size()));
  const amp::Autocast scope(preset_, scale);
  Loss loss = part.loss(in);
  const Tensor scaled = amp::GradScaler::scaled(loss.value, scale);
  {
    const GradientWatch::Scope watching(watch);
    scaled.backward();
  }
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

std::vector<Array> TrainStep::reported(Part& part, const Loss& loss) {
  expect_scalars(part, loss.scalars);
  std::vector<Array> values = {loss.value.array().reshape({}).to(DType::f32)};
  for (const auto& [name, scalar] : loss.scalars)
    values.push_back(scalar.array().reshape({}).to(DType::f32));
  return values;
}

void TrainStep::sum_up(Part& part, std::vector<std::vector<Array>> reports) {
  if (options_.parallel) {
    std::vector<std::vector<Array>> lanes;
    for (const std::vector<Array>& report : reports) {
      const auto count = static_cast<int64_t>(report.size());
      const Array row = Array::empty({count}, DType::f64, device());
      BINADE_DISPATCH(device(), join(report, row));
      const Array rows = options_.parallel->gather(row).to(DType::f32);
      for (int64_t rank = 0; rank < rows.size(0); ++rank) {
        std::vector<Array>& lane = lanes.emplace_back();
        for (int64_t i = 0; i < count; ++i) lane.push_back(rows.select(0, rank).select(0, i));
      }
    }
    reports = std::move(lanes);
  }
  const auto add = [&](size_t place, Array& sum) {
    sum = reports.size() == 1 ? reports[0][place] : reports[0][place].clone();
    for (size_t lane = 1; lane < reports.size(); ++lane)
      BINADE_DISPATCH(device(), axpy(1, reports[lane][place], sum));
  };
  size_t place = 0;
  add(place, part.loss_sum);
  for (const auto& [name, sum] : part.scalar_sums) add(++place, part.scalar_sums.at(name));
}

void TrainStep::zero_grad() {
  for (const Part& part : parts_) part.optimizer->zero_grad();
}

void TrainStep::queue_part(Part& part) {
  zero_grad();  // of all: the loss before may have reached parameters of this part
  const size_t count = prepared_.back()->inputs.size();
  DataParallel* parallel = options_.parallel;
  // What was updated last: by the part before this one, or in the step before.
  const Part& updated = &part == parts_.data() ? parts_.back() : *(&part - 1);
  if (parallel) parallel->send_values(*updated.optimizer);
  std::vector<std::vector<Array>> reports;
  for (size_t m = 0; m < count; ++m) {
    GradientWatch* watch = parallel
                               ? parallel->begin_round(*part.optimizer, /*last=*/m + 1 == count,
                                                       scaler_.inv_scale_scalar())
                               : nullptr;
    reports.push_back(reported(part, forward_backward(part, m, scaler_.scale_scalar(), watch)));
    if (parallel) {
      parallel->end_round(*part.optimizer);
    } else if (count > 1) {
      part.optimizer->accumulate();
    }
  }
  if (parallel) parallel->finish_rounds(*part.optimizer);
  sum_up(part, std::move(reports));
  scaler_.clip_norm(part.clip);
  scaler_.step(*part.optimizer);
}

void TrainStep::queue_work() {
  const StepRandom random(options_.seed, step_);
  if (options_.parallel) options_.parallel->begin_step();
  for (Part& part : parts_) {
    queue_part(part);
    partly_done_ = true;
  }
  report_scale();
  scaler_.update();
  for (const Part& part : parts_)
    if (optim::Ema* averages = averages_of(part))
      averages->update(scaler_.found_inf(*part.optimizer));
  if (options_.parallel) options_.parallel->finish_values();
  report_step();
  partly_done_ = false;
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

}  // namespace binade::train
