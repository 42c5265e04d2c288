// TrainStep with a loss of several parts: named batches, normalisers, scalars, the step number.
#include <catch2/catch.hpp>

#if BINADE_HAVE_CUDA
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/libraries.h>
#endif

#include "gpu.h"
#include "train/two_heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

// The mean loss of head k over the valid targets of a step that is one micro-batch.
double mean_loss(const TwoHeadsRun& run, size_t k, const train::StepData& data) {
  const train::Batch& batch = data.micro_batches[0];
  const Tensor inputs(batch.at("inputs").to(run.optimizer->device()));
  const Tensor targets(batch.at(kHeads[k]).to(run.optimizer->device()));
  const NoGrad off;
  return run.model->head_loss(k, inputs, targets, {}).item();
}

double ramp_at(int64_t step) {
  return std::sin(std::acos(-1.0) / 2 * static_cast<double>(step) / kRamp);
}

// Every step's ramp, and the loss that follows from it, eager and replayed.
void check_ramp(Device device) {
  TwoHeadsRun run({.device = device});
  const auto reports = run_heads(run, 0, 9);
  REQUIRE(reports.size() == 9);
  for (const train::StepReport& report : reports) {
    INFO("step " << report.step);
    CHECK(report.scalars.at("ramp") == Approx(ramp_at(report.step)).margin(1e-6));
    CHECK(report.loss ==
          Approx(report.scalars.at("head_1") + ramp_at(report.step) * report.scalars.at("head_2")));
  }
  CHECK(run.step->captured() == device.is_cuda());
}

}  // namespace

TEST_CASE("each part of a loss is divided by its own count", "[train][step][heads]") {
  for (const int64_t micro_batches : {1, 2, 4, 8}) {
    INFO(micro_batches << " micro-batches");
    TwoHeadsRun run, oracle;
    const train::StepData data = two_heads_batch(3, 8, micro_batches), whole = two_heads_batch(3);
    REQUIRE(data.normalisers.at("head_1") != data.normalisers.at("head_2"));
    run.step->run(3, data.micro_batches, data.normalisers, 0.01);
    const train::StepReport report = run.step->take_reports(true).at(0);
    const double first = mean_loss(oracle, 0, whole), second = mean_loss(oracle, 1, whole);
    CHECK(report.scalars.names() == "head_1, head_2, ramp");
    CHECK(report.scalars.at("head_1") == Approx(first).epsilon(1e-5));
    CHECK(report.scalars.at("head_2") == Approx(second).epsilon(1e-5));
    CHECK(report.loss == Approx(first + ramp_at(3) * second).epsilon(1e-5));
  }
}

TEST_CASE("8 rows equal 2 × 4 and 4 × 2 with several heads", "[train][step][heads]") {
  TwoHeadsRun start, whole;
  run_heads(whole, 0, 6, 1);
  const auto before = start.weights(), expected = whole.weights();
  for (const int64_t micro_batches : {2, 4}) {
    INFO(micro_batches << " micro-batches");
    TwoHeadsRun parts;
    run_heads(parts, 0, 6, micro_batches);
    for (const auto& [name, values] : parts.weights()) {
      INFO(name);
      double difference = 0, moved = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        difference =
            std::max(difference, std::abs(static_cast<double>(values[i]) - expected.at(name)[i]));
        moved = std::max(moved, std::abs(static_cast<double>(values[i]) - before.at(name)[i]));
      }
      CHECK(difference < 2e-4);
      CHECK((moved > 0.03) == !name.starts_with("trunk."));
    }
  }
}

TEST_CASE("a part without a valid label is 0 and trains nothing", "[train][step][heads]") {
  TwoHeadsRun run;
  const auto before = run.weights();
  for (int64_t step = 1; step < 4; ++step) {
    train::StepData data = two_heads_batch(step);
    const Array none = Array::full({8, kLength}, -100, DType::i32);
    data.micro_batches[0] = {{"inputs", data.micro_batches[0].at("inputs")},
                             {"head_1", data.micro_batches[0].at("head_1")},
                             {"head_2", none}};
    data.normalisers.at("head_2") = 0;
    run.step->run(step, data.micro_batches, data.normalisers, 0.01);
  }
  for (const train::StepReport& report : run.step->take_reports(true)) {
    CHECK(!report.skipped);
    CHECK(report.scalars.at("head_2") == 0);
    CHECK(report.loss == report.scalars.at("head_1"));
  }
  const auto after = run.weights();
  for (const std::string name : {"head_2.weight", "head_2.bias"})
    CHECK(after.at(name) == before.at(name));
  CHECK(after.at("head_1.weight") != before.at("head_1.weight"));

  const train::StepData data = two_heads_batch(0);
  CHECK_THROWS_WITH(run.step->run(4, data.micro_batches, {{"head_1", 0}, {"head_2", 0}}, 0.01),
                    Contains("every normaliser is 0 (head_1, head_2)"));
}

TEST_CASE("a schedule inside the loss follows the step", "[train][step][heads]") {
  check_ramp(Device::cpu());
}

TEST_CASE("a loss that asks for a name that is not there is told the names",
          "[train][step][heads]") {
  TwoHeadsRun run;
  const train::StepData data = two_heads_batch(0);
  CHECK_THROWS_WITH(run.step->run(0, data.micro_batches, {{"head_1", 3}}, 0.01),
                    Contains("'head_2'") && Contains("head_1"));
  CHECK_THROWS_WITH(run.step->run(0, small_batch(0).micro_batches, data.normalisers, 0.01),
                    Contains("'head_1'") && Contains("inputs, targets"));
}

TEST_CASE("the order of a batch's names does not matter", "[train][step][heads]") {
  TwoHeadsRun run, other;
  run_heads(run, 0, 4);
  for (int64_t step = 0; step < 4; ++step) {
    const train::StepData data = two_heads_batch(step);
    const train::Batch& batch = data.micro_batches[0];
    const train::Batch turned = {{"head_2", batch.at("head_2")},
                                 {"inputs", batch.at("inputs")},
                                 {"head_1", batch.at("head_1")}};
    other.step->run(
        step, {step % 2 ? turned : batch},
        {{"head_2", data.normalisers.at("head_2")}, {"head_1", data.normalisers.at("head_1")}},
        0.01);
  }
  CHECK(run.weights() == other.weights());
}

TEST_CASE("no gradient flows through a scalar that is reported", "[train][step][heads]") {
  TwoHeadsRun plain, reporting;
  reporting.restart([&](const train::LossInputs& in) -> train::Loss {
    train::Loss loss = reporting.model->loss(in);
    const Tensor weight = reporting.model->named_parameters()[0].parameter->tensor();
    loss.scalars.add("norm", sqrt(sum(square(weight))));
    return loss;
  });
  run_heads(plain, 0, 4);
  const auto reports = run_heads(reporting, 0, 4);
  CHECK(plain.weights() == reporting.weights());
  CHECK(reports[3].scalars.at("norm") > 0);
}

TEST_CASE("scalars keep their names until the batches change", "[train][step][heads]") {
  TwoHeadsRun run;
  std::string extra;
  run.restart([&](const train::LossInputs& in) -> train::Loss {
    train::Loss loss = run.model->loss(in);
    if (!extra.empty()) loss.scalars.add(extra, Tensor::scalar(7));
    return loss;
  });
  // Not read before the names change: reports keep the form that they were made in.
  const train::StepData first = two_heads_batch(0), second = two_heads_batch(1);
  run.step->run(0, first.micro_batches, first.normalisers, 0.01);
  extra = "more";
  CHECK_THROWS_WITH(run.step->run(1, second.micro_batches, second.normalisers, 0.01),
                    Contains("head_1, head_2, ramp and now reports head_1, head_2, ramp, more"));
  const train::StepData wider = two_heads_batch(1, 12);
  run.step->run(1, wider.micro_batches, wider.normalisers, 0.01);
  const auto reports = run.step->take_reports(true);
  REQUIRE(reports.size() == 2);
  CHECK(reports[0].step == 0);
  CHECK(reports[0].scalars.names() == "head_1, head_2, ramp");
  CHECK(reports[1].step == 1);
  CHECK(reports[1].scalars.names() == "head_1, head_2, ramp, more");
  CHECK(reports[1].scalars.at("more") == 7);
}

TEST_CASE("what is no scalar cannot be reported", "[train][step][heads]") {
  const Tensor bad[] = {Tensor(), Tensor::ones({2}), Tensor::full({}, 3, DType::i64)};
  for (const Tensor& value : bad) {
    TwoHeadsRun run;
    run.restart([&](const train::LossInputs& in) -> train::Loss {
      return {run.model->loss(in).value, {{"hits", value}}};
    });
    CHECK_THROWS_WITH(run_heads(run, 0, 1), Contains("the loss reports hits, which is no scalar"));
  }
}

TEST_CASE("dropout of a frozen trunk does nothing while its heads train", "[train][step][heads]") {
  TwoHeadsRun plain, dropping({.dropout = 0.5}), careless({.dropout = 0.5});
  careless.model->Module::train();  // as if the module left the mode to its parts
  const auto expected = run_heads(plain, 0, 3), reports = run_heads(dropping, 0, 3);
  for (size_t i = 0; i < 3; ++i) CHECK(reports[i].loss == expected[i].loss);
  CHECK(plain.weights() == dropping.weights());
  CHECK(run_heads(careless, 0, 3)[0].loss != expected[0].loss);
}

#if BINADE_HAVE_CUDA

TEST_CASE("a schedule inside the loss follows the step in a replayed graph",
          "[train][step][heads][cuda]") {
  require_gpu();
  check_ramp(test_gpu());
}

TEST_CASE("a captured step with several heads gives the eager step's bits and never waits",
          "[train][step][heads][cuda]") {
  require_gpu();
  cuda::set_deterministic(true);
  for (const char* preset : {"fp16", "fp32"}) {
    for (const int64_t micro_batches : {1, 2}) {
      INFO(preset << " in " << micro_batches);
      SmallRunOptions options{.preset = preset, .capture = false, .device = test_gpu()};
      TwoHeadsRun eager(options);
      options.capture = true;
      TwoHeadsRun graph(options);
      run_heads(eager, 0, 4, micro_batches);
      run_heads(graph, 0, 4, micro_batches);
      REQUIRE(graph.step->captured());
      // The first head's count is another one at every step.
      std::vector<train::StepData> data;
      for (int64_t step = 4; step < 8; ++step)
        data.push_back(two_heads_batch(step, 8, micro_batches));
      std::vector<train::StepReport> reports[2];
      for (TwoHeadsRun* run : {&eager, &graph}) {
        const int64_t before = cuda::host_synchronisations();
        for (int64_t step = 4; step < 8; ++step) {
          const train::StepData& given = data[static_cast<size_t>(step - 4)];
          run->step->run(step, given.micro_batches, given.normalisers, 0.01);
        }
        CHECK(cuda::host_synchronisations() == before);
        reports[run == &graph] = run->step->take_reports(true);
      }
      REQUIRE(reports[1].size() == 4);
      for (size_t i = 0; i < 4; ++i)
        for (const auto& [name, value] : reports[0][i].scalars)
          CHECK(reports[1][i].scalars.at(name) == value);
      CHECK(eager.weights() == graph.weights());
    }
  }
  cuda::set_deterministic(false);
}

TEST_CASE("batches or normalisers of other names are captured anew", "[train][step][heads][cuda]") {
  require_gpu();
  TwoHeadsRun run({.device = test_gpu()});
  run_heads(run, 0, 4);
  REQUIRE(run.step->captured());
  train::StepData data = two_heads_batch(4);
  data.micro_batches[0].add("weights", Array::zeros({3}, DType::f32));
  run.step->run(4, data.micro_batches, data.normalisers, 0.01);
  CHECK(!run.step->captured());
  run_heads(run, 5, 9);
  REQUIRE(run.step->captured());
  data = two_heads_batch(9);
  data.normalisers.add("head_3", 5);
  run.step->run(9, data.micro_batches, data.normalisers, 0.01);
  CHECK(!run.step->captured());
}

#endif
