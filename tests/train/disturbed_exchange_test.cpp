// Ranks whose exchange is disturbed: values written between steps, steps that throw, a loss scale
// that changes, averages in use, optimizers made again and again.
#include <catch2/catch.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/optim/sgd.h>
#include <binade/train/data_parallel.h>

#include "../dist/ranks.h"
#include "small_run.h"

namespace binade::test {
namespace {

// On one rank of several, where Catch's macros are not safe.
template <class Work>
void expect_error(const Work& work, const std::string& part) {
  std::string found = "nothing";
  try {
    work();
  } catch (const Error& error) {
    found = error.what();
  }
  check(found.find(part) != std::string::npos, "expected an error with \"", part, "\", got ",
        found);
}

using Seen = std::vector<std::vector<float>>;

Seen values_of(const SmallRun& run) {
  Seen seen;
  for (const nn::NamedParameter& one : run.model->named_parameters())
    seen.push_back(one.parameter->tensor().array().to(DType::f32).to_vector<float>());
  return seen;
}

void halve(const SmallRun& run) {
  for (const nn::NamedParameter& one : run.model->named_parameters()) {
    std::vector<float> values = one.parameter->tensor().array().to(DType::f32).to_vector<float>();
    for (float& value : values) value /= 2;
    one.parameter->assign(Array::from(values, one.parameter->shape()));
  }
}

struct Disturbance {
  int64_t halves_behind = -1;  // the step behind which the user writes all values
  int64_t throws_at = -1;      // the step whose loss throws
};

// The values behind the last of four steps.
Seen trained(const SmallRunOptions& options, train::DataParallel* parallel,
             const Disturbance& disturbance) {
  constexpr int64_t kSteps = 4, kLanes = 4;
  SmallRun run(options);
  run.step_options.parallel = parallel;
  int64_t step = 0;
  const train::LossFunction loss = heads::language_model::loss(*run.model);
  run.step = std::make_unique<train::TrainStep>(
      [&](const train::LossInputs& in) {
        check(step != disturbance.throws_at, "the loss broke");
        return loss(in);
      },
      *run.optimizer, *run.scaler, run.preset, run.step_options);
  for (; step < kSteps; ++step) {
    const train::StepData data = small_batch(step, 8, kLanes);
    const auto advance = [&] { run.step->run(step, data.micro_batches, data.normalisers, 0.01); };
    if (step == disturbance.throws_at) {
      expect_error(advance, "the loss broke");
    } else {
      advance();
    }
    if (step != disturbance.halves_behind) continue;
    run.step->complete_values();
    halve(run);
  }
  run.step->complete_state();
  return values_of(run);
}

void check_disturbed(const SmallRunOptions& options, const Disturbance& disturbance) {
  const Seen alone = trained(options, nullptr, disturbance);
  for (const int size : {2, 4})
    for (const bool early : {false, true})
      for (const int stage : {1, 2}) {
        CAPTURE(options.preset, size, early, stage);
        const auto errors = run_ranks(size, [&](dist::World& world) {
          train::DataParallel parallel(world, Device::cpu(),
                                       {.stage = stage, .bucket = 1, .early_values = early});
          check(trained(options, &parallel, disturbance) == alone, "the values differ");
        });
        for (const std::string& error : errors) CHECK(error == "");
      }
}

TEST_CASE("disturbed: values without masters that are written between steps stay",
          "[dist][exchange][train]") {
  for (const char* preset : {"fp32", "fp16-no-masters"}) {
    SmallRunOptions options{.preset = preset, .dim = 64};
    options.scaler.init_scale = 1024;
    check_disturbed(options, {.halves_behind = 1});
  }
}

TEST_CASE("disturbed: a run may end behind a step that threw", "[dist][exchange][train]") {
  check_disturbed({.dim = 64}, {.throws_at = 3});
  check_disturbed({.preset = "fp16", .dim = 64}, {.throws_at = 3});
}

constexpr int64_t kNumel = 2 * kGradientChunk;

class Parts : public nn::Module {
 public:
  Parts() {
    for (int i = 0; i < 4; ++i)
      parts.push_back(add_parameter(concat("p", i), Array::full({kNumel}, i, DType::f32)));
  }
  std::vector<nn::ParameterPtr> parts;
};

void check_ranks(const std::function<void(train::DataParallel&)>& body) {
  const auto errors = run_ranks(2, [&](dist::World& world) {
    train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
    body(parallel);
  });
  for (const std::string& error : errors) CHECK(error == "");
}

TEST_CASE("disturbed: sums are measured with the loss scale of the step", "[dist][train]") {
  check_ranks([](train::DataParallel& parallel) {
    Parts model;
    optim::Sgd optimizer{model, {.learning_rate = 0.1}};
    amp::GradScaler scaler(Device::cpu(), {.init_scale = 1024});
    parallel.share(optimizer, nullptr);
    GradientWatch* watch =
        parallel.begin_round(optimizer, /*last=*/true, scaler.inv_scale_scalar());
    {
      const GradientWatch::Scope watching(watch);
      Tensor loss = sum(model.parts[0]->tensor());
      for (size_t i = 1; i < 4; ++i) loss = loss + sum(model.parts[i]->tensor());
      loss.backward();
    }
    parallel.end_round(optimizer);
    parallel.finish_rounds(optimizer);
    // A scale is read from a checkpoint meanwhile.
    nn::StateDict state = scaler.state();
    state.at("scale").fill(2048);
    scaler.load_state(state);
    scaler.step(optimizer);
    // Gradients of 1, of two ranks.
    const double expected = std::sqrt(4.0 * kNumel) * 2 / 2048;
    const double norm = scaler.norm(optimizer).item();
    check(norm == expected, "the norm is ", norm, ", not ", expected);
  });
}

TEST_CASE("disturbed: averages in use refuse ranks that would share the state", "[dist][train]") {
  check_ranks([](train::DataParallel& parallel) {
    Parts model;
    optim::Sgd optimizer{model, {.learning_rate = 0.1}};
    optim::Ema averages(optimizer, 0.5);
    model.parts[1]->assign(Array::full({kNumel}, 9, DType::f32));
    {
      const optim::Ema::Scope scope(averages);
      expect_error([&] { parallel.share(optimizer, &averages); }, "averages");
      check(!optimizer.shared(), "the optimizer is shared, and its averages are not");
    }
    check(model.parts[1]->tensor().array().select(0, 0).item() == 9, "the averages have stayed");
    check(parallel.share(optimizer, &averages), "the ranks do not share the state");
  });
}

TEST_CASE("disturbed: what an optimizer exchanged goes with it", "[dist][train]") {
  check_ranks([](train::DataParallel& parallel) {
    std::weak_ptr<Storage> values;
    for (int i = 0; i < 3; ++i) {
      Parts model;
      optim::Sgd optimizer{model, {.learning_rate = 0.1}};
      parallel.share(optimizer, nullptr);
      check(values.expired(), "an optimizer that is gone has left its values");
      values = optimizer.groups()[0].value().storage();
      parallel.send_values(optimizer);
      GradientWatch* watch = parallel.begin_round(optimizer, /*last=*/true);
      {
        const GradientWatch::Scope watching(watch);
        sum(model.parts[0]->tensor()).backward();
      }
      parallel.end_round(optimizer);
      parallel.finish_rounds(optimizer);
      check(parallel.buckets_sent() == 4 * (i + 1), "the count of buckets went down");
    }
  });
}

}  // namespace
}  // namespace binade::test
