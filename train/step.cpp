#include <binade/train/step.h>

#include <binade/amp/overflow_diagnosis.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/random.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/algorithm_cache.h>
#include <binade/core/cuda/graph.h>
#endif

namespace binade::train {

namespace {

// Places in the report, an f64 array on the device; the codes of first_bad follow.
enum Field : int64_t { kStep, kLoss, kNorm, kScale, kFoundInf, kSkipped, kAtFloor, kFirstBad };

// Eager steps before the capture: they time and choose algorithms and fill the pool.
constexpr int kEagerSteps = 2;

void put(const Array& report, int64_t field, const Array& value) {
  BINADE_DISPATCH(report.device(), copy(value, report.select(0, field)));
}

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

int64_t group_count(const optim::Optimizer& optimizer) {
  return static_cast<int64_t>(optimizer.groups().size());
}

}  // namespace

struct TrainStep::Graph {
#if BINADE_HAVE_CUDA
  cuda::CapturedGraph captured;
#endif
};

TrainStep::TrainStep(LossFunction loss, optim::Optimizer& optimizer, amp::GradScaler& scaler,
                     const amp::Preset& preset, const StepOptions& options, optim::Ema* ema)
    : loss_(std::move(loss)),
      optimizer_(optimizer),
      scaler_(scaler),
      preset_(preset),
      options_(options),
      ema_(ema) {
  const Device device = optimizer.device();
  normaliser_ = Array::full({}, 1, DType::f32, device);
  step_ = Array::zeros({}, DType::i64, device);
  loss_sum_ = Array::zeros({}, DType::f32, device);
  report_ = Array::zeros({kFirstBad + group_count(optimizer)}, DType::f64, device);
#if BINADE_HAVE_CUDA
  if (device.is_cuda()) cuda::load_algorithm_cache(device);
#endif
}

TrainStep::~TrainStep() = default;

bool TrainStep::captured() const {
  return graph_ != nullptr;
}

void TrainStep::invalidate() {
  graph_.reset();
  eager_steps_ = 0;
}

void TrainStep::prepare(const std::vector<Batch>& micro_batches) {
  check(!micro_batches.empty(), "a training step needs at least one micro-batch");
  const auto fits = [&] {
    if (inputs_.size() != micro_batches.size()) return false;
    for (size_t m = 0; m < inputs_.size(); ++m) {
      if (inputs_[m].size() != micro_batches[m].size()) return false;
      for (size_t i = 0; i < inputs_[m].size(); ++i) {
        const Array& input = inputs_[m][i].destination();
        const Array& given = micro_batches[m][i];
        if (!(input.shape() == given.shape()) || input.dtype() != given.dtype()) return false;
      }
    }
    return true;
  };
  if (fits()) return;
  invalidate();
  inputs_.clear();
  for (const Batch& batch : micro_batches) {
    inputs_.emplace_back();
    for (const Array& array : batch)
      inputs_.back().emplace_back(Array::empty(array.shape(), array.dtype(), optimizer_.device()));
  }
}

void TrainStep::run(int64_t step, const std::vector<Batch>& micro_batches, double normaliser,
                    double learning_rate) {
  check(normaliser > 0, "a training step needs a normaliser above 0, got ", normaliser,
        ": the batch has no valid target");
  prepare(micro_batches);
  for (size_t m = 0; m < micro_batches.size(); ++m)
    for (size_t i = 0; i < micro_batches[m].size(); ++i) inputs_[m][i].upload(micro_batches[m][i]);
  normaliser_.fill(normaliser);
  step_.fill(static_cast<double>(step));
  optimizer_.set_learning_rate(learning_rate);
  optimizer_.check_ready();  // a replayed step asks nothing
  if (std::vector<bool> frozen = optimizer_.frozen(); frozen != frozen_) {
    invalidate();
    frozen_ = std::move(frozen);
  }

#if BINADE_HAVE_CUDA
  if (options_.capture && optimizer_.device().is_cuda()) {
    if (!graph_ && eager_steps_ >= kEagerSteps) {
      check(current_op_observer() == nullptr,
            "a step that is watched by an observer (anomaly mode, overflow diagnosis) cannot be "
            "captured as a CUDA graph; set StepOptions::capture to false");
      cuda::save_algorithm_cache(optimizer_.device());  // the eager steps met all matmuls
      // The graph takes memory of its own: what the eager steps have left would be held twice.
      release_cached_memory(optimizer_.device());
      auto graph = std::make_unique<Graph>();
      graph->captured = cuda::CapturedGraph::capture([this] { queue_work(); }, optimizer_.device());
      graph_ = std::move(graph);
    }
    if (graph_) {
      graph_->captured.replay();
      reports_.download(report_);
      return;
    }
  }
#endif
  queue_work();
  ++eager_steps_;
  reports_.download(report_);
}

Tensor TrainStep::forward_backward(size_t m, const Array& scale) {
  TensorList batch;
  for (const Uploader& input : inputs_[m]) batch.emplace_back(input.destination());
  const amp::Autocast scope(preset_, scale);
  Tensor loss = loss_(batch, Tensor(normaliser_));
  amp::GradScaler::scaled(loss, scale).backward();
  return loss;
}

void TrainStep::queue_work() {
  const StepRandom random(options_.seed, step_);
  optimizer_.zero_grad();
  for (size_t m = 0; m < inputs_.size(); ++m) {
    const Tensor loss = forward_backward(m, scaler_.scale_scalar());
    if (m == 0) {
      BINADE_DISPATCH(loss_sum_.device(), copy(loss.array(), loss_sum_));
    } else {
      BINADE_DISPATCH(loss_sum_.device(), axpy(1, loss.array(), loss_sum_));
    }
    if (inputs_.size() > 1) optimizer_.accumulate();
  }
  put(report_, kScale, scaler_.scale_scalar());
  scaler_.clip_norm(options_.clip);
  scaler_.step(optimizer_);
  scaler_.update();
  if (ema_) ema_->update(scaler_.found_inf());
  put(report_, kStep, step_);
  put(report_, kLoss, loss_sum_);
  put(report_, kNorm, scaler_.norm());
  put(report_, kFoundInf, scaler_.found_inf());
  put(report_, kSkipped, scaler_.skipped());
  put(report_, kAtFloor, scaler_.at_floor());
  const int64_t groups = group_count(optimizer_);
  BINADE_DISPATCH(report_.device(), copy(scaler_.first_bad().slice(0, 0, groups),
                                         report_.slice(0, kFirstBad, kFirstBad + groups)));
}

std::string TrainStep::diagnose_overflow(double scale) {
  const StepRandom random(options_.seed, step_);
  const amp::OverflowDiagnosis diagnosis;
  for (size_t m = 0; m < inputs_.size() && !diagnosis.found(); ++m) {
    optimizer_.zero_grad();
    forward_backward(m, Array::full({}, scale, DType::f32, optimizer_.device()));
  }
  optimizer_.zero_grad();
  return diagnosis.text();
}

amp::UnderflowReport TrainStep::underflow_report() {
  check(!inputs_.empty(), "an underflow report needs a step that was run");
  return amp::underflow_report(optimizer_, scaler_.scale_scalar().item(), [this](double scale) {
    const StepRandom random(options_.seed, step_);
    forward_backward(0, Array::full({}, scale, DType::f32, optimizer_.device()));
  });
}

std::vector<StepReport> TrainStep::take_reports(bool wait) {
  std::vector<StepReport> reports;
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
                    .offender = {}};
  if (!report.skipped) return report;
  std::vector<int64_t> first_bad;
  constexpr double kNone = static_cast<double>(kNoBadGradient);
  bool any = false;
  for (int64_t g = 0; g < group_count(optimizer_); ++g) {
    const double code = value[kFirstBad + g];
    first_bad.push_back(code >= kNone ? kNoBadGradient : static_cast<int64_t>(code));
    any = any || code < kNone;
  }
  // Without one, every gradient was finite and their norm overflowed.
  if (any) report.offender = amp::GradScaler::offender({&optimizer_}, first_bad);
  return report;
}

}  // namespace binade::train
