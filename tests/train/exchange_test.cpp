// Gradients that travel while backward runs: equal to those that wait for its end, and to one
// process, whatever the passes do.
#include <catch2/catch.hpp>
#include <mutex>
#include <string>
#include <vector>

#include <binade/autograd/custom_function.h>
#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/autograd/recompute.h>
#include <binade/optim/adamw.h>
#include <binade/train/data_parallel.h>

#include "../dist/ranks.h"

namespace binade::test {
namespace {

constexpr int64_t kNumel = 20000;  // not a whole number of chunks
constexpr int kParameters = 6;
constexpr int64_t kLanes = 4, kSteps = 5;

class Chain : public nn::Module {
 public:
  Chain() {
    for (int i = 0; i < kParameters; ++i)
      parts.push_back(
          add_parameter(concat("p", i), Array::full({kNumel}, 0.5 + 0.25 * i, DType::f32)));
  }
  std::vector<nn::ParameterPtr> parts;
};

// One micro-batch's path through the parameters, each of which multiplies what came before.
struct Path {
  std::vector<int> order;
  bool recomputes = false;  // the second and third
  int throws_behind = -1;   // when backward comes to the parameter at this place
};
using Paths = std::function<Path(int64_t step, int64_t lane)>;

Tensor through(const Chain& chain, const Path& path, const Tensor& x) {
  // Copies, as what recompute keeps outlives this call.
  const auto times = [&chain, path](const Tensor& h, size_t place) {
    const Tensor& parameter = chain.parts[static_cast<size_t>(path.order[place])]->tensor();
    if (static_cast<int>(place) != path.throws_behind) return h * parameter;
    return custom_function(
        "breaks", {h}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
        [](const TensorList&, const TensorList&, const TensorList&) -> TensorList {
          fail("the pass broke");
        })[0];
  };
  Tensor h = x;
  for (size_t place = 0; place < path.order.size(); ++place) {
    if (path.recomputes && place == 1) {
      h = recompute(
          [times](const TensorList& in) -> TensorList { return {times(times(in[0], 1), 2)}; },
          {h})[0];
      ++place;
    } else {
      h = times(h, place);
    }
  }
  return h;
}

using State = std::map<std::string, std::vector<float>>;

struct Counts {
  State state;
  int64_t sent = 0, early = 0;
};

Counts train(const Paths& paths, train::DataParallel* parallel, int64_t lanes = kLanes) {
  Chain chain;
  optim::AdamW optimizer(optim::split_by_decay(chain, 0.1));
  const amp::Preset preset = amp::Preset::parse("fp32");
  amp::GradScaler scaler(Device::cpu(), amp::GradScalerOptions::of(preset));
  const train::LossFunction loss = [&](const train::LossInputs& in) {
    const auto step = static_cast<int64_t>(in.step.item());
    const auto lane = static_cast<int64_t>(in.batch.at("lane").item());
    const Tensor x = in.batch.at("x");
    return train::Loss(sum(through(chain, paths(step, lane), x)) * (1.0 / kNumel));
  };
  train::TrainStep step(loss, optimizer, scaler, preset, {.parallel = parallel});
  for (int64_t index = 0; index < kSteps; ++index) {
    std::vector<train::Batch> batches;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      std::vector<float> x;
      for (int64_t i = 0; i < kNumel; ++i)
        x.push_back(static_cast<float>((i * 7 + index * 3 + lane) % 11) * 0.1F + 0.3F);
      batches.push_back({{"x", Array::from(x, {kNumel})},
                         {"lane", Array::full({}, static_cast<double>(lane), DType::f32)}});
    }
    step.run(index, batches, {}, 0.01);
  }
  step.complete_state();
  Counts all;
  for (const nn::NamedParameter& one : chain.named_parameters())
    all.state[one.name] = one.parameter->tensor().to_vector<float>();
  for (const auto& [name, array] : optimizer.state())
    if (is_floating(array.dtype())) all.state[name] = array.to_vector<float>();
  if (parallel) {
    all.sent = parallel->buckets_sent();
    all.early = parallel->buckets_sent_early();
  }
  return all;
}

std::vector<int> all_in_order() {
  std::vector<int> order;
  for (int i = 0; i < kParameters; ++i) order.push_back(i);
  return order;
}

// Trains in every way and compares. Returns the share of buckets that left early on two ranks in
// stage 1.
double check_equal(const Paths& paths, int64_t lanes = kLanes) {
  const State alone = train(paths, nullptr, lanes).state;
  double early = 0;
  for (const int size : {2, 4})
    for (const int stage : {0, 1, 2})
      for (const bool overlap : {true, false}) {
        if (lanes % size != 0) continue;
        CAPTURE(size, stage, overlap);
        std::mutex mutex;
        std::vector<Counts> all;
        const auto errors = run_ranks(size, [&](dist::World& world) {
          train::DataParallel parallel(world, Device::cpu(),
                                       {.stage = stage, .bucket = 1, .overlap = overlap});
          Counts counts = train(paths, &parallel, lanes);
          const std::lock_guard lock(mutex);
          all.push_back(std::move(counts));
        });
        for (const std::string& error : errors) CHECK(error == "");
        REQUIRE(std::ssize(all) == size);
        for (const Counts& one : all) {
          CHECK(one.state == alone);
          CHECK(one.sent > 0);
          if (size == 2 && stage == 1 && overlap)
            early = static_cast<double>(one.early) / static_cast<double>(one.sent);
        }
      }
  return early;
}

TEST_CASE("exchange: buckets leave while backward runs, with accumulation and without",
          "[dist][train]") {
  const Paths straight = [](int64_t, int64_t) { return Path{all_in_order()}; };
  // Of eight buckets all but the two that have some of the parameter that is used first.
  CHECK(check_equal(straight) == 0.75);
  CHECK(check_equal(straight, 2) == 0.75);
  CHECK(check_equal(straight, 8) == 0.75);
}

TEST_CASE("exchange: parameters that some passes do not use, or use twice", "[dist][train]") {
  check_equal([](int64_t step, int64_t lane) {
    Path path{all_in_order()};
    path.order.erase(path.order.begin() + (step + lane) % kParameters);  // unused there
    if (lane % 2 == 0) path.order.push_back(static_cast<int>(step) % kParameters);
    return path;
  });
  // In no lane of a step; and one that no step uses.
  check_equal([](int64_t step, int64_t) {
    return step % 2 == 0 ? Path{{0, 1, 2, 3}} : Path{{2, 1}};
  });
}

TEST_CASE("exchange: passes in another order than the first", "[dist][train]") {
  check_equal([](int64_t step, int64_t lane) {
    Path path{all_in_order()};
    std::rotate(path.order.begin(), path.order.begin() + (step * 2 + lane) % kParameters,
                path.order.end());
    if (step % 2 == 1) std::reverse(path.order.begin(), path.order.end());
    return path;
  });
}

TEST_CASE("exchange: recompute, in some passes and in others not", "[dist][train]") {
  const double early = check_equal([](int64_t, int64_t) { return Path{all_in_order(), true}; });
  CHECK(early > 0.5);
  check_equal([](int64_t step, int64_t lane) {
    Path path{all_in_order(), (step + lane) % 2 == 0};
    if (lane == 1) path.order = {0, 3, 3, 0, 5};
    return path;
  });
}

TEST_CASE("exchange: a pass that throws with buckets on their way ends all ranks",
          "[dist][train]") {
  for (const int bad : {0, 1})
    for (const int64_t bad_step : {0, 2})
      for (const int place : {1, 3, 5}) {
        CAPTURE(bad, bad_step, place);
        const auto errors = run_ranks(2, [&](dist::World& world) {
          train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
          train(
              [&](int64_t step, int64_t) {
                Path path{all_in_order()};
                if (world.rank() == bad && step == bad_step) path.throws_behind = place;
                return path;
              },
              &parallel);
        });
        CHECK(errors[static_cast<size_t>(bad)].find("the pass broke") != std::string::npos);
        CHECK(errors[static_cast<size_t>(1 - bad)].find(concat("rank ", bad, " of 2")) !=
              std::string::npos);
      }
}

TEST_CASE("exchange: a gradient that comes after it was sent is an error with its name",
          "[dist][train]") {
  const auto errors = run_ranks(2, [&](dist::World& world) {
    train::DataParallel parallel(world, Device::cpu(), {.bucket = 1});
    Chain chain;
    optim::AdamW optimizer(optim::split_by_decay(chain, 0.1));
    GradientWatch* watch = nullptr;
    for (int round = 0; round < 2; ++round) {  // the first one learns the order
      watch = parallel.begin_round(optimizer, /*last=*/false);
      const Tensor last = chain.parts.back()->tensor(), first = chain.parts.front()->tensor();
      const Tensor x = first * 2.0;
      const Tensor behind = custom_function(
          "hides", {x}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
          [&](const TensorList&, const TensorList&, const TensorList& dy) -> TensorList {
            const EnableGrad on;
            sum(last * 1.0).backward();
            return {dy[0]};
          })[0];
      const Tensor loss = sum(behind * last);
      const GradientWatch::Scope watching(watch);
      loss.backward();
      parallel.end_round(optimizer);
    }
  });
  // One of them says it first; the other one may hear of that before it comes so far.
  bool said = false;
  for (const std::string& error : errors) {
    CHECK(error != "");
    said = said || error.find("parameter p5 gets a gradient") == 0;
  }
  CHECK(said);
}

}  // namespace
}  // namespace binade::test
