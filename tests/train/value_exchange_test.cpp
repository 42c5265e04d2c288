// Values that travel under the next forward pass: who uses one waits for it, and for it alone, and
// nobody sees an old one.
#include <binade/train/value_exchange.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <binade/autograd/ops/reduce.h>
#include <binade/optim/sgd.h>
#include <binade/train/data_parallel.h>

#include "../dist/ranks.h"
#include "small_run.h"

namespace binade::test {
namespace {

constexpr int64_t kNumel = 2 * kGradientChunk;  // of a parameter: a bucket of two ranks
constexpr int kParameters = 4;

class Parts : public nn::Module {
 public:
  Parts() {
    for (int i = 0; i < kParameters; ++i)
      parts.push_back(add_parameter(concat("p", i), Array::full({kNumel}, i, DType::f32)));
  }
  std::vector<nn::ParameterPtr> parts;
};

// The other one of two ranks, which gives 100 for every element, and each bucket only when it may.
class HeldBack : public dist::Communicator {
 public:
  HeldBack() : Communicator(0, 2) {}
  Device device() const override { return Device::cpu(); }
  void allow(int buckets) {
    const std::lock_guard lock(mutex_);
    allowed_ += buckets;
    changed_.notify_all();
  }
  int given() {
    const std::lock_guard lock(mutex_);
    return given_;
  }
  bool breaks = false;
  std::vector<std::thread::id> askers;  // of the verbs that were done

 protected:
  void exchange(const std::vector<Block>& send, const std::vector<Block>& receive) override {
    if (receive[0].data != send[0].data)
      std::memcpy(receive[0].data, send[0].data, static_cast<size_t>(send[0].bytes));
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return allowed_ > 0; });
    check(!breaks, "the wire broke");
    --allowed_;
    ++given_;
    askers.push_back(std::this_thread::get_id());
    const Block& block = receive[1];
    const auto count = static_cast<size_t>(block.bytes) / sizeof(float);
    const std::vector<float> values(count, 100);
    std::memcpy(block.data, values.data(), static_cast<size_t>(block.bytes));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = 0, given_ = 0;
};

struct Held {
  explicit Held(bool early = false) {
    optimizer.share(ranks, {.bucket = 1, .late_values = true});
    exchange = std::make_unique<train::ValueExchange>(ranks, queue, time, optimizer, 1, early);
  }
  ~Held() { ranks.allow(100); }  // the queue ends with what it has begun
  // The first element of each rank's half.
  std::pair<float, float> ends(int part) const {
    const std::vector<float> values =
        model.parts[static_cast<size_t>(part)]->tensor().to_vector<float>();
    return {values.front(), values.back()};
  }

  HeldBack ranks;
  SideQueue queue{Device::cpu()};
  train::ExposedTime time{Device::cpu(), false};
  Parts model;
  optim::Sgd optimizer{model, {.learning_rate = 0.1}};
  std::unique_ptr<train::ValueExchange> exchange;
};

TEST_CASE("values: the use of a parameter waits for its buckets and for no others",
          "[dist][exchange][train]") {
  Held held;
  held.exchange->send();
  for (int part = 0; part < kParameters; ++part) {
    held.ranks.allow(1);  // those behind it are not allowed to come
    CHECK(held.ends(part) == std::pair(static_cast<float>(part), 100.F));
    CHECK(held.ranks.given() == part + 1);
  }
  held.exchange->wait();
  // One that is used out of turn comes behind those before it.
  held.exchange->send();
  held.ranks.allow(3);
  CHECK(held.ends(2) == std::pair(2.F, 100.F));
  CHECK(held.ranks.given() == kParameters + 3);
  // Whoever goes on uses them all.
  std::thread later([&] { held.ranks.allow(1); });
  held.exchange->wait();
  later.join();
  CHECK(held.ranks.given() == 2 * kParameters);
}

TEST_CASE("values: writing into a parameter waits as reading does", "[dist][exchange][train]") {
  Held held;
  held.exchange->send();
  std::thread later([&] { held.ranks.allow(kParameters); });
  held.model.parts[3]->assign(Array::full({kNumel}, 7, DType::f32));
  later.join();
  CHECK(held.ends(3) == std::pair(7.F, 7.F));  // not written over by what came
}

// Sets gradients of 1, and updates: every own element of parameter i becomes i − 0.1.
void update(Held& held) {
  for (const nn::ParameterPtr& part : held.model.parts)
    if (part->trainable()) sum(part->tensor()).backward();
  held.optimizer.groups()[0].make_sums();
  held.optimizer.groups()[0].accumulated().fill(1);
  held.optimizer.note_accumulated();
  held.optimizer.gather_grads();
  held.optimizer.update(Array::full({}, 1, DType::f32), Array::zeros({}, DType::f32));
}

TEST_CASE(
    "values: those of the first parameter go beside the update of the others, if ranks are near",
    "[dist][exchange][train]") {
  Held held(/*early=*/true);
  held.ranks.allow(1);
  update(held);
  CHECK_THROWS_WITH(held.ends(0), Catch::Contains("p0 are older"));
  held.exchange->wait();  // does not hang: these have come
  CHECK(held.ranks.given() == 1);
  held.exchange->send();
  CHECK(held.ends(0) == std::pair(-0.1F, 100.F));
  CHECK(held.ranks.given() == 1);
  held.ranks.allow(3);
  CHECK(held.ends(1) == std::pair(0.9F, 100.F));
  CHECK(held.ends(3) == std::pair(2.9F, 100.F));
  held.exchange->wait();
  CHECK(held.ranks.given() == 4);
}

TEST_CASE("values: with frozen parameters none goes before they are as they were",
          "[dist][exchange][train]") {
  Held held(/*early=*/true);
  held.model.parts[1]->set_trainable(false);
  held.ranks.allow(4);
  update(held);
  held.exchange->send();
  CHECK(held.ends(0) == std::pair(-0.1F, 100.F));
  CHECK(held.ends(1) == std::pair(1.F, 100.F));
  CHECK(held.ends(2) == std::pair(1.9F, 100.F));
}

TEST_CASE("values: who writes masters between steps waits for those on their way",
          "[dist][exchange][train]") {
  Held held;
  held.exchange->send();  // of a step that threw, say
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    held.ranks.allow(2 * kParameters);
  });
  held.optimizer.spread_masters();
  later.join();
  REQUIRE(held.ranks.askers.size() == 2 * kParameters);
  for (size_t i = 0; i < held.ranks.askers.size(); ++i)
    CHECK((held.ranks.askers[i] == std::this_thread::get_id()) == (i >= kParameters));
}

TEST_CASE("values: old ones are an error until the ranks exchange them",
          "[dist][exchange][train]") {
  Held held;
  const Catch::Matchers::StdString::RegexMatcher old(
      "the values of parameter p1 are older than the last update.*TrainStep::complete_values.*",
      Catch::CaseSensitive::Yes);
  held.optimizer.note_update();
  CHECK_THROWS_WITH(held.ends(1), old);
  CHECK_THROWS_WITH(held.model.parts[1]->assign(Array::zeros({kNumel}, DType::f32)), old);
  // What is known without the values is no use of them.
  nn::Parameter& parameter = *held.model.parts[1];
  CHECK((parameter.shape() == Shape({kNumel}) && parameter.tensor().dtype() == DType::f32));
  parameter.set_trainable(false);
  parameter.set_trainable(true);
  held.ranks.allow(kParameters);
  held.exchange->complete();
  CHECK(held.ends(1) == std::pair(1.F, 100.F));
  CHECK(held.ranks.given() == kParameters);
  held.exchange->complete();  // again: nothing to do
  CHECK(held.ranks.given() == kParameters);
  held.optimizer.note_update();
  held.ranks.allow(kParameters);
  held.exchange->send();
  CHECK(held.ends(1) == std::pair(1.F, 100.F));
}

TEST_CASE("values: those that never came stay an error", "[dist][exchange][train]") {
  SECTION("as the exchange failed") {
    Held held;
    held.ranks.breaks = true;
    held.ranks.allow(1);
    held.exchange->send();
    CHECK_THROWS_WITH(held.ends(1), Catch::Contains("the wire broke"));
    CHECK_THROWS_WITH(held.ends(2), Catch::Contains("p2 are older"));
  }
  SECTION("as what exchanges them has gone") {
    Held held;
    held.exchange->send();
    held.exchange.reset();
    CHECK_THROWS_WITH(held.ends(0), Catch::Contains("p0 are older"));
  }
}

TEST_CASE("values: ranks that do not share them late have no such exchange",
          "[dist][exchange][train]") {
  HeldBack ranks;
  SideQueue queue{Device::cpu()};
  const train::ExposedTime time{Device::cpu(), false};
  Parts model;
  optim::Sgd optimizer{model, {.learning_rate = 0.1}};
  optimizer.share(ranks, {.bucket = 1});
  CHECK_THROWS_WITH(train::ValueExchange(ranks, queue, time, optimizer, 1),
                    Catch::Contains("late values"));
}

using Seen = std::vector<std::vector<float>>;

void look_at(const SmallRun& run, Seen& seen) {
  for (const nn::NamedParameter& one : run.model->named_parameters())
    seen.push_back(one.parameter->tensor().array().to(DType::f32).to_vector<float>());
}

// How a run is looked at between its steps, and disturbed.
struct Looks {
  bool ends_early = false;  // without complete_state()
  int64_t throws_at = -1;   // the step whose second micro-batch's loss throws, on all ranks
  bool early = false;       // DataParallelOptions::early_values
};

// All values after every other step.
Seen looked_at(const SmallRunOptions& options, train::DataParallel* parallel, const Looks& looks) {
  constexpr int64_t kSteps = 7, kLanes = 8;
  SmallRun run(options);
  run.step_options.parallel = parallel;
  const train::LossFunction loss = heads::language_model::loss(*run.model);
  int64_t step = 0, calls = 0;
  run.step = std::make_unique<train::TrainStep>(
      [&](const train::LossInputs& in) {
        train::Loss value = loss(in);
        check(step != looks.throws_at || ++calls < 2, "the loss broke");
        return value;
      },
      *run.optimizer, *run.scaler, run.preset, run.step_options);
  Seen seen;
  for (; step < kSteps; ++step) {
    const train::StepData data = small_batch(step, 8, kLanes);
    try {
      run.step->run(step, data.micro_batches, data.normalisers, 0.01);
    } catch (const Error& error) {
      check(std::string(error.what()).find("the loss broke") != std::string::npos, error.what());
      if (parallel) check(!parallel->any(false), "a rank says so");
      look_at(run, seen);  // the step has changed nothing
      continue;
    }
    if (step % 2 == 1) continue;  // the next step is the first to look
    run.step->complete_values();
    look_at(run, seen);
  }
  if (looks.ends_early) return seen;
  run.step->complete_state();
  look_at(run, seen);
  return seen;
}

void check_looks(const SmallRunOptions& options, const Looks& looks) {
  const Seen alone = looked_at(options, nullptr, looks);
  for (const int size : {2, 4})
    for (const int stage : {1, 2}) {
      CAPTURE(options.preset, size, stage);
      const auto errors = run_ranks(size, [&](dist::World& world) {
        train::DataParallel parallel(
            world, Device::cpu(),
            {.stage = stage, .bucket = 1, .late_values = true, .early_values = looks.early});
        check(looked_at(options, &parallel, looks) == alone, "the values differ");
      });
      for (const std::string& error : errors) CHECK(error == "");
    }
}

TEST_CASE("values: whoever looks between steps sees what one process has",
          "[dist][exchange][train]") {
  for (const char* preset : {"fp32", "fp16", "fp16-no-masters"}) {
    SmallRunOptions options{.preset = preset, .dim = 64};
    options.scaler.init_scale = 1024;
    check_looks(options, {});
    check_looks(options, {.ends_early = true});
    check_looks(options, {.early = true});
  }
}

TEST_CASE("values: a step that throws in the middle leaves them whole", "[dist][exchange][train]") {
  for (const int64_t step : {0, 3})
    for (const bool early : {false, true})
      check_looks({.dim = 64}, {.throws_at = step, .early = early});
}

TEST_CASE("values: an evaluation that ranks share out has them", "[dist][exchange][train]") {
  const auto errors = run_ranks(2, [](dist::World& world) {
    train::DataParallel parallel(world, Device::cpu(), {.bucket = 1, .late_values = true});
    Parts model;
    optim::Sgd optimizer{model, {.learning_rate = 0.1}};
    parallel.share(optimizer, nullptr);
    const auto value = [&] { return model.parts[0]->tensor().array().select(0, 0); };
    optimizer.note_update();
    const auto pieces =
        parallel.deal(2, [&](int64_t) { return std::vector<double>{value().item()}; });
    check(pieces.size() == 2, "pieces are missing");
    optimizer.note_update();
    check(parallel.sum_of(2, [&](int64_t) { return value(); }) == 0, "the sum differs");
  });
  for (const std::string& error : errors) CHECK(error == "");
}

}  // namespace
}  // namespace binade::test
