#include <binade/train/data_parallel.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/shape.h>

#include "../dist/ranks.h"
#include "small_run.h"

namespace binade::test {
namespace {

constexpr int64_t kLanes = 4, kSteps = 6;

// The language model's loss times a factor of the micro-batch.
train::LossFunction loss_of(const SmallRun& run) {
  return [loss = heads::language_model::loss(*run.model)](const train::LossInputs& in) {
    return train::Loss(loss(in).value * reshape(in.batch.at("factor"), {}), {});
  };
}

// Micro-batches with 1 to 12 targets, and none in one of them. In step 3 one overflows.
train::StepData lanes_of(int64_t step) {
  train::StepData data = small_batch(step, 8, kLanes);
  const auto empty = static_cast<size_t>(step % kLanes);
  double valid = 0;
  for (size_t lane = 0; lane < data.micro_batches.size(); ++lane) {
    train::Batch& batch = data.micro_batches[lane];
    if (lane == empty) batch.at("targets").fill(-100);
    for (const int32_t target : batch.at("targets").to_vector<int32_t>()) valid += target != -100;
    batch.add("factor", Array::full({1}, step == 3 && lane == 2 ? 1e30 : 1, DType::f32));
  }
  data.normalisers = {{"targets", valid}};
  return data;
}

struct Outcome {
  std::map<std::string, std::vector<float>> weights;
  std::vector<train::StepReport> reports;
};

Outcome train(const SmallRunOptions& options, train::DataParallel* parallel) {
  SmallRun run(options);
  train::StepOptions step_options = run.step_options;
  step_options.parallel = parallel;
  train::TrainStep step(loss_of(run), *run.optimizer, *run.scaler, run.preset, step_options);
  for (int64_t index = 0; index < kSteps; ++index) {
    const train::StepData data = lanes_of(index);
    step.run(index, data.micro_batches, data.normalisers, 0.01);
  }
  step.complete_state();
  Outcome outcome;
  outcome.reports = step.take_reports(/*wait=*/true);
  outcome.weights = run.weights();
  return outcome;
}

bool same_bits(double a, double b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

void check_equal(const Outcome& one, const Outcome& other) {
  CHECK(one.weights == other.weights);
  REQUIRE(one.reports.size() == other.reports.size());
  for (size_t i = 0; i < one.reports.size(); ++i) {
    const train::StepReport &a = one.reports[i], &b = other.reports[i];
    CHECK(same_bits(a.loss, b.loss));
    CHECK(same_bits(a.grad_norm, b.grad_norm));
    CHECK(same_bits(a.scale, b.scale));
    CHECK(a.skipped == b.skipped);
    CHECK(a.offender.has_value() == b.offender.has_value());
    if (a.offender && b.offender) CHECK(a.offender->parameter == b.offender->parameter);
  }
}

TEST_CASE("data parallel: ranks with unequal and empty micro-batches are equal to one",
          "[dist][train]") {
  for (const char* preset : {"fp32", "fp16", "bf16", "fp16-no-masters"}) {
    const SmallRunOptions options{.preset = preset, .dropout = 0.2};
    const Outcome alone = train(options, nullptr);
    REQUIRE(alone.reports.size() == kSteps);
    for (const int size : {2, 4}) {
      std::mutex mutex;
      std::vector<Outcome> all;
      const auto errors = run_ranks(size, [&](dist::World& world) {
        train::DataParallel parallel(world, Device::cpu());
        Outcome outcome = train(options, &parallel);
        const std::lock_guard lock(mutex);
        all.push_back(std::move(outcome));
      });
      CAPTURE(preset, size);
      for (const std::string& error : errors) CHECK(error == "");
      REQUIRE(std::ssize(all) == size);
      for (const Outcome& one : all) check_equal(alone, one);
    }
    // The overflow was on one rank, and all have skipped.
    if (std::string(preset).starts_with("fp16")) CHECK(alone.reports[3].skipped);
  }
}

TEST_CASE("data parallel: numbers of ranks that cannot share a step out are told",
          "[dist][train]") {
  CHECK_NOTHROW(train::check_lanes(6, 3));
  CHECK_THROWS_WITH(train::check_lanes(6, 4), Catch::Contains("it can among 1, 2, 3, 6"));
  CHECK_THROWS_WITH(train::check_lanes(1, 2), Catch::Contains("it can among 1 "));
}

// One bit of one rank's, at every place of a tensor of each dtype, in the middle of what is read at
// once and at its end.
TEST_CASE("data parallel: a bit that differs is named with its rank and tensor", "[dist][train]") {
  for (const int size : {2, 3, 4})
    for (const DType dtype : {DType::f32, DType::f16, DType::i64, DType::u8})
      for (const int64_t numel : {1, 3, 1000}) {
        const int bad = size - 1;
        const auto errors = run_ranks(size, [&](dist::World& world) {
          train::DataParallel parallel(world, Device::cpu());
          const nn::StateDict state = {{"a", Array::zeros({3}, DType::f32)},
                                       {"b", Array::full({numel}, 1, dtype)},
                                       {"empty", Array::zeros({0}, dtype)},
                                       {"scalar", Array::zeros({}, dtype)}};
          parallel.check_equal(state, "at first");
          auto* bytes = static_cast<uint8_t*>(state.at("b").data());
          const int64_t places[] = {0, numel * size_of(dtype) / 2, numel * size_of(dtype) - 1};
          for (const int64_t place : places) {
            std::string said = "nothing";
            if (world.rank() == bad) bytes[place] ^= 0x10;
            try {
              parallel.check_equal(state, "after step 7");
            } catch (const Error& error) {
              said = error.what();
            }
            if (world.rank() == bad) bytes[place] ^= 0x10;
            const std::string expected =
                size == 2
                    ? "b is not the same on all ranks after step 7"
                    : concat("b of rank ", bad, " differs from the other ranks' after step 7");
            check(said == expected, "'", said, "' is not '", expected, "'");
          }
          parallel.check_equal(state, "at last");
        });
        CAPTURE(size, dtype, numel);
        for (const std::string& error : errors) CHECK(error == "");
      }
}

TEST_CASE("data parallel: pieces of any length come back in order, whoever did them",
          "[dist][train]") {
  const auto piece = [](int64_t index) {
    std::vector<double> values;
    for (int64_t i = 0; i < index * index % 5; ++i)
      values.push_back(static_cast<double>(100 * index + i));
    return values;
  };
  for (const int64_t count : {0, 1, 2, 7, 12}) {
    const auto alone = train::deal(nullptr, count, piece);
    REQUIRE(std::ssize(alone) == count);
    std::atomic<int64_t> made = 0;
    const auto errors = run_ranks(3, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu());
      const auto got = train::deal(&parallel, count, [&](int64_t index) {
        ++made;
        return piece(index);
      });
      check(got == alone, "the pieces of rank ", world.rank(), " differ");
    });
    for (const std::string& error : errors) CHECK(error == "");
    CHECK(made == count);
  }
}

TEST_CASE("data parallel: a timeline measures what a step waits for, and only if it is asked to",
          "[dist][train]") {
  for (const bool timeline : {true, false}) {
    std::vector<std::vector<std::tuple<int, double, double>>> seen(2);  // of the ranks, by step
    const auto errors = run_ranks(2, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu(), {.timeline = timeline});
      const Outcome outcome = train({}, &parallel);
      for (const train::StepReport& report : outcome.reports) {
        check(report.waiting.has_value() == timeline, "measured although it was not asked");
        if (!timeline) continue;
        check(report.waiting->least > 0, "a step has waited for nothing");
        check(report.waiting->most >= report.waiting->least, "the slowest rank waits longest");
        const auto [slowest, least, most] = *report.waiting;
        seen[static_cast<size_t>(world.rank())].emplace_back(slowest, least, most);
      }
    });
    CHECK(seen[0] == seen[1]);
    for (const std::string& error : errors) CHECK(error == "");
    CHECK_FALSE(train({}, nullptr).reports[0].waiting.has_value());
  }
}

TEST_CASE("data parallel: evaluations are dealt out and added up in order", "[dist][train]") {
  const auto term = [](int64_t index) {
    return Array::full({}, index % 2 == 0 ? 1e8 + 8.0 * static_cast<double>(index) : 0.1,
                       DType::f32);
  };
  for (const int64_t count : {0, 1, 3, 7}) {
    double expected = 0;
    for (int64_t index = 0; index < count; ++index) expected += term(index).item();
    std::vector<double> sums(3);
    std::vector<int64_t> made(3);
    const auto errors = run_ranks(3, [&](dist::World& world) {
      train::DataParallel parallel(world, Device::cpu());
      const auto rank = static_cast<size_t>(world.rank());
      sums[rank] = parallel.sum_of(count, [&](int64_t index) {
        ++made[rank];
        return term(index);
      });
    });
    for (const std::string& error : errors) CHECK(error == "");
    for (const double sum : sums) CHECK(sum == expected);
    CHECK(made[0] + made[1] + made[2] == count);
  }
}

}  // namespace
}  // namespace binade::test
