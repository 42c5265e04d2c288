// TrainStep: accumulation, recompute, random numbers, reports, and the same step as a CUDA graph.
#include <binade/train/step.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include <binade/autograd/ops.h>
#if BINADE_HAVE_CUDA
#include <binade/core/cuda/copy.h>
#include <binade/core/cuda/libraries.h>
#endif

#include "gpu.h"
#include "train/small_run.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

// Largest difference between the weights of two runs.
double distance(const SmallRun& a, const SmallRun& b) {
  double largest = 0;
  const auto others = b.weights();
  for (const auto& [name, values] : a.weights())
    for (size_t i = 0; i < values.size(); ++i)
      largest = std::max(largest, std::abs(static_cast<double>(values[i]) - others.at(name)[i]));
  return largest;
}

// All gradients of the last step, whose scale must not have moved.
std::vector<double> unscaled_gradients(const SmallRun& run) {
  std::vector<double> all;
  const double scale = run.scaler->scale_scalar().item();
  for (const optim::FlatGroup& group : run.optimizer->groups())
    for (double g : run.optimizer->gradient(group).to_vector<double>()) all.push_back(g / scale);
  return all;
}

// Overwrites one element of a parameter, master and copy.
void poison(SmallRun& run, const std::string& parameter, float value) {
  for (const nn::NamedParameter& named : run.model->named_parameters()) {
    if (named.name != parameter) continue;
    std::vector<float> values = named.parameter->master().to_vector<float>();
    values[3] = value;
    named.parameter->assign(Array::from(values, named.parameter->shape()));
    return;
  }
  fail("there is no parameter ", parameter);
}

// After every kind of step, eager or replayed, what was saved of weights is known to be stale.
void check_versions(Device device) {
  SmallRun run({.device = device});
  const Tensor weight = run.model->named_parameters().front().parameter->tensor();
  for (int64_t step = 0; step < 6; ++step) {
    INFO("step " << step << (run.step->captured() ? ", captured" : ""));
    const Tensor before = sum(square(weight));
    run_steps(run, step, step + 1);
    CHECK_THROWS_WITH(before.backward(), Contains("changed in place"));
  }
  CHECK(run.step->captured() == device.is_cuda());
}

}  // namespace

TEST_CASE("a batch of 8 equals 2 × 4 and 4 × 2 with uneven counts", "[train][step]") {
  for (const char* preset : {"fp32", "fp16"}) {
    INFO(preset);
    const double tolerance = std::string(preset) == "fp32" ? 1e-6 : 2e-3;
    SmallRun whole({.preset = preset});
    const train::StepReport expected = run_steps(whole, 0, 1, 1, 0)[0];
    const std::vector<double> gradient = unscaled_gradients(whole);
    double largest = 0;
    for (double g : gradient) largest = std::max(largest, std::abs(g));
    for (const int64_t micro_batches : {2, 4, 8}) {
      SmallRun parts({.preset = preset});
      const train::StepReport report = run_steps(parts, 0, 1, micro_batches, 0)[0];
      CHECK(report.loss == Approx(expected.loss).epsilon(tolerance));
      CHECK(report.grad_norm == Approx(expected.grad_norm).epsilon(tolerance));
      const std::vector<double> sum = unscaled_gradients(parts);
      double worst = 0;
      for (size_t i = 0; i < sum.size(); ++i)
        worst = std::max(worst, std::abs(sum[i] - gradient[i]));
      CHECK(worst < tolerance * largest);
    }
  }
  SmallRun start, whole, parts;
  run_steps(whole, 0, 6, 1);
  run_steps(parts, 0, 6, 2);
  CHECK(distance(whole, start) > 0.03);
  CHECK(distance(whole, parts) < 2e-4);  // Adam's first steps are large where gradients are small
}

TEST_CASE("recompute gives the same bits", "[train][step]") {
  for (const char* preset : {"fp32", "fp16", "fp16-autocast"}) {
    SmallRun kept({.preset = preset, .dropout = 0.2});
    const auto a = run_steps(kept, 0, 5, 2);
    for (const Recompute level : {Recompute::norms, Recompute::blocks}) {
      INFO(preset << ", level " << static_cast<int>(level));
      SmallRun again({.preset = preset, .dropout = 0.2, .recompute = level});
      const auto b = run_steps(again, 0, 5, 2);
      for (size_t i = 0; i < a.size(); ++i) {
        CHECK(a[i].loss == b[i].loss);
        CHECK(a[i].grad_norm == b[i].grad_norm);
      }
      CHECK(kept.weights() == again.weights());
    }
  }
}

TEST_CASE("dropout depends on seed and step, and on nothing else", "[train][step]") {
  const SmallRunOptions options{.dropout = 0.3};
  SmallRun a(options), b(options), other({.dropout = 0.3, .seed = 2});
  run_steps(a, 0, 4);
  RandomState::current().set_seed(12345);  // what happened outside does not matter
  run_steps(b, 0, 4);
  run_steps(other, 0, 4);
  CHECK(a.weights() == b.weights());
  CHECK(a.weights() != other.weights());

  // The same batch as another step has another mask; as the same step the same one.
  SmallRun still(options);
  const train::StepData data = small_batch(0);
  for (const int64_t step : {0, 1, 0})
    still.step->run(step, data.micro_batches, data.normalisers, 0);
  const auto reports = still.step->take_reports(true);
  CHECK(reports[0].loss != reports[1].loss);
  CHECK(reports[0].loss == reports[2].loss);
}

TEST_CASE("a graph recorded before a step notices that the step changed its weights",
          "[train][step]") {
  check_versions(Device::cpu());
}

TEST_CASE("a loss that was scaled before an update cannot go backward after it", "[train][step]") {
  SmallRun run({.preset = "fp16"});
  const Tensor x(Array::full({2}, 1, DType::f32), true);
  const Tensor early = run.scaler->scale(sum(x));
  run_steps(run, 0, 1);
  CHECK_THROWS_WITH(early.backward(), Contains("changed in place"));
}

TEST_CASE("a report says what the step did", "[train][step]") {
  SmallRun run({.preset = "fp16", .clip = 0.5, .scaler = {.init_scale = 1024}});
  SmallRun oracle;  // the same weights in f32
  const train::StepData data = small_batch(3);
  run.step->run(3, data.micro_batches, data.normalisers, 0.01);
  const auto reports = run.step->take_reports(true);
  REQUIRE(reports.size() == 1);
  CHECK(run.step->take_reports(true).empty());

  const Tensor loss = oracle.model->loss(Tensor(data.micro_batches[0].at("inputs")),
                                         Tensor(data.micro_batches[0].at("targets")));
  loss.backward();
  double square = 0;
  for (const nn::NamedParameter& named : oracle.model->named_parameters())
    for (double g : named.parameter->tensor().grad().to_vector<double>()) square += g * g;
  CHECK(reports[0].step == 3);
  CHECK(reports[0].loss == Approx(loss.item()).epsilon(1e-3));
  CHECK(reports[0].grad_norm == Approx(std::sqrt(square)).epsilon(5e-3));
  CHECK(reports[0].scale == 1024);
  CHECK(!reports[0].skipped);
  CHECK(!reports[0].offender);
  CHECK(run.optimizer->steps_done() == 1);
}

TEST_CASE("a skipped step changes nothing and names the offender", "[train][step]") {
  SmallRun run({.preset = "fp16", .scaler = {.init_scale = 2, .min_scale = 1}});
  run_steps(run, 0, 2);
  const std::string poisoned = "transformer.h.1.mlp.c_fc.bias";
  poison(run, poisoned, std::numeric_limits<float>::infinity());
  const auto before = run.weights();
  const auto reports = run_steps(run, 2, 5);
  REQUIRE(reports.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(reports[i].skipped);
    CHECK(reports[i].skipped_total == static_cast<int64_t>(i) + 1);
    REQUIRE(reports[i].offender);
    // Every gradient is NaN: the first parameter is named, not the one that caused it.
    CHECK(reports[i].offender->parameter == run.model->named_parameters().front().name);
  }
  CHECK(reports[0].scale == 2);
  CHECK(reports[1].scale == 1);
  CHECK(reports[0].at_floor == 0);
  CHECK(reports[2].at_floor == 2);
  CHECK(run.weights() == before);
  CHECK(run.optimizer->steps_done() == 2);

  // The diagnosis names the op that the bad parameter went into.
  const std::string text = run.step->diagnose_overflow(reports[2].scale);
  CHECK_THAT(text, Contains("the forward pass of gelu_mlp") && Contains("and inf"));
  CHECK(run.weights() == before);
  poison(run, poisoned, 0);
  CHECK(run.step->diagnose_overflow(1).empty());
  CHECK(!run_steps(run, 5, 6)[0].skipped);
}

TEST_CASE("a look back at a step repeats its random numbers and leaves no trace", "[train][step]") {
  const SmallRunOptions options{
      .preset = "fp16", .dropout = 0.2, .scaler = {.init_scale = 4, .min_scale = 1}};
  SmallRun plain(options), looking(options);
  run_steps(plain, 0, 4, 2);
  for (int64_t step = 0; step < 4; ++step) {
    run_steps(looking, step, step + 1, 2);
    CHECK(looking.step->diagnose_overflow(4).empty());
    const amp::UnderflowReport report = looking.step->underflow_report();
    CHECK(report.scale == 4);
    CHECK(report.rows.size() == looking.model->named_parameters().size());
    CHECK(report.rows[0].parameter == looking.model->named_parameters()[0].name);
    // With a scale this small some of the tiny model's gradients are lost.
    CHECK(report.share() > 0);
    CHECK(report.share() < 0.5);
  }
  CHECK(plain.weights() == looking.weights());
}

TEST_CASE("a gradient beyond FP16 is found in the backward pass", "[train][step]") {
  // A scale this large makes the gradients overflow though loss and activations are harmless.
  SmallRun run(
      {.preset = "fp16", .scaler = {.init_scale = 0x1p30, .min_scale = 1, .max_scale = 0x1p30}});
  const auto reports = run_steps(run, 0, 1);
  REQUIRE(reports[0].skipped);
  CHECK_THAT(run.step->diagnose_overflow(reports[0].scale), Contains("the backward pass of"));
  CHECK(run.step->diagnose_overflow(1).empty());
}

TEST_CASE("TrainStep refuses empty steps", "[train][step]") {
  SmallRun run;
  CHECK_THROWS_WITH(run.step->run(0, {}, {{"targets", 1}}, 0.1),
                    Contains("at least one micro-batch"));
  const train::StepData data = small_batch(0);
  CHECK_THROWS_WITH(run.step->run(0, data.micro_batches, {{"targets", 0}}, 0.1),
                    Contains("no valid target") && Contains("(targets)"));
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH(run.step->run(0, data.micro_batches, {{"targets", bad}}, 0.1),
                      Contains("the normaliser targets counts valid labels"));
  CHECK_THROWS_WITH(run.step->underflow_report(), Contains("a step that was run"));
}

#if BINADE_HAVE_CUDA

TEST_CASE("a captured step gives the eager step's bits and never waits", "[train][step][cuda]") {
  require_gpu();
  cuda::set_deterministic(true);
  for (const char* preset : {"fp16", "bf16", "fp32"}) {
    for (const int64_t micro_batches : {1, 2}) {
      INFO(preset << " in " << micro_batches);
      const SmallRunOptions options{
          .preset = preset, .dropout = 0.1, .capture = false, .device = test_gpu()};
      SmallRunOptions captured = options;
      captured.capture = true;
      SmallRun eager(options), graph(captured);
      run_steps(eager, 0, 4, micro_batches);
      run_steps(graph, 0, 4, micro_batches);
      CHECK(!eager.step->captured());
      CHECK(graph.step->captured());
      // As many steps as uploads may run ahead: with more the host has to wait for the GPU.
      for (SmallRun* run : {&eager, &graph}) {
        std::vector<train::StepData> data;
        for (int64_t step = 4; step < 8; ++step)
          data.push_back(small_batch(step, 8, micro_batches));
        const int64_t before = cuda::host_synchronisations();
        for (int64_t step = 4; step < 8; ++step) {
          const train::StepData& given = data[static_cast<size_t>(step - 4)];
          run->step->run(step, given.micro_batches, given.normalisers, 0.01);
          run->step->take_reports();
        }
        CHECK(cuda::host_synchronisations() == before);
        run->step->take_reports(true);
      }
      CHECK(eager.weights() == graph.weights());
      CHECK(eager.scaler->scale_scalar().item() == graph.scaler->scale_scalar().item());
    }
  }
  cuda::set_deterministic(false);
}

TEST_CASE("a graph recorded before a replayed step notices that it changed the weights",
          "[train][step][cuda]") {
  if (cuda_device_count() == 0) skip(cuda_unavailable_reason());
  check_versions(Device::cuda());
}

TEST_CASE("a GPU's steps follow the CPU's", "[train][step][cuda]") {
  require_gpu();
  SmallRun cpu, gpu({.device = test_gpu()});
  const auto a = run_steps(cpu, 0, 6), b = run_steps(gpu, 0, 6);
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(b[i].loss == Approx(a[i].loss).epsilon(1e-4));
    CHECK(b[i].grad_norm == Approx(a[i].grad_norm).epsilon(1e-3));
  }
  CHECK(distance(cpu, gpu) < 1e-3);
}

TEST_CASE("training on the second GPU gives the first one's bits, alone and interleaved",
          "[train][step][cuda][devices]") {
  require_two_gpus();
  cuda::set_deterministic(true);
  for (const bool capture : {false, true}) {
    SmallRunOptions options{
        .preset = "fp16", .dropout = 0.1, .capture = capture, .device = Device::cuda(0)};
    SmallRun alone(options), first(options);
    options.device = Device::cuda(1);
    SmallRun second(options), second_alone(options);
    run_steps(alone, 0, 6);
    run_steps(second_alone, 0, 6);
    for (int64_t step = 0; step < 6; ++step)
      for (SmallRun* run : {&first, &second}) run_steps(*run, step, step + 1);
    CHECK(second.step->captured() == capture);
    CHECK(second.optimizer->device() == Device::cuda(1));
    CHECK(second_alone.weights() == alone.weights());
    CHECK(first.weights() == alone.weights());
    CHECK(second.weights() == alone.weights());
  }
  cuda::set_deterministic(false);
}

TEST_CASE("a skipped step is reported from a captured step, too", "[train][step][cuda]") {
  require_gpu();
  SmallRun run({.preset = "fp16", .device = test_gpu()});
  run_steps(run, 0, 4);
  REQUIRE(run.step->captured());
  poison(run, "transformer.h.1.mlp.c_fc.bias", std::numeric_limits<float>::infinity());
  const auto before = run.weights();
  const auto reports = run_steps(run, 4, 6);
  CHECK(reports[0].skipped);
  CHECK(reports[0].scale == 2 * reports[1].scale);
  CHECK(reports[1].offender->parameter == run.model->named_parameters().front().name);
  CHECK(run.weights() == before);
  CHECK_THAT(run.step->diagnose_overflow(1), Contains("gelu_mlp"));
}

#endif

TEST_CASE("parameters frozen between steps stay, captured or not", "[train][step]") {
  std::vector<Device> devices = {Device::cpu()};
  if (cuda_device_count() > 0) devices.push_back(Device::cuda());
  for (const Device device : devices) {
    INFO(device);
    SmallRun run({.preset = "fp16", .device = device});
    run_steps(run, 0, 4);
    CHECK(run.step->captured() == device.is_cuda());
    const nn::NamedParameter frozen = run.model->named_parameters().back();
    frozen.parameter->set_trainable(false);
    const auto before = run.weights();
    run_steps(run, 4, 8);
    CHECK(run.step->captured() == device.is_cuda());  // anew
    const auto after = run.weights();
    for (const auto& [name, values] : before) {
      INFO(name);
      CHECK((after.at(name) == values) == (name == frozen.name));
    }
    frozen.parameter->set_trainable(true);
    run_steps(run, 8, 9);
    CHECK(run.weights().at(frozen.name) != after.at(frozen.name));
  }
}

TEST_CASE("a step leaves the random numbers of the program around it alone", "[train][step]") {
  SmallRun run({.dropout = 0.1});
  RandomState& random = RandomState::current();
  random.set_seed(5);
  random.next_place();
  const uint64_t place = random.place();
  run_steps(run, 0, 1);
  CHECK(random.seed() == 5);
  CHECK(random.place() == place);
  CHECK(random.next_place() == (place | 1u << 22));  // still outside of a step
}

namespace {

// Rows of a step that come in three sizes, in an order that comes back to each.
int64_t rows_of_step(int64_t step) {
  constexpr int64_t kRows[] = {8, 4, 8, 6, 4, 8, 4, 6, 6, 8, 4, 6};
  return kRows[step % 12];
}
std::vector<train::StepReport> run_sizes(SmallRun& run, int64_t first, int64_t last) {
  for (int64_t step = first; step < last; ++step) {
    const train::StepData data = small_batch(step, rows_of_step(step));
    run.step->run(step, data.micro_batches, data.normalisers, 0.01);
  }
  return run.step->take_reports(/*wait=*/true);
}

}  // namespace

TEST_CASE("batches of other shapes do not disturb each other", "[train][step]") {
  // Each step alone, in a TrainStep that knows one shape only, against one that knows all.
  SmallRunOptions one_shape;
  one_shape.dropout = 0.1;
  SmallRun single(one_shape), several(one_shape);
  single.step_options.prepared = 1;
  single.step = std::make_unique<train::TrainStep>(heads::language_model::loss(*single.model),
                                                   *single.optimizer, *single.scaler, single.preset,
                                                   single.step_options);
  const auto a = run_sizes(single, 0, 12), b = run_sizes(several, 0, 12);
  REQUIRE(a.size() == 12);
  REQUIRE(b.size() == 12);
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i].loss == b[i].loss);
  CHECK(single.weights() == several.weights());
}

#if BINADE_HAVE_CUDA

TEST_CASE("each shape gets a graph of its own, in the same memory", "[train][step][cuda]") {
  require_gpu();
  cuda::set_deterministic(true);
  SmallRunOptions options{.preset = "fp16", .dropout = 0.1, .capture = false, .device = test_gpu()};
  SmallRun eager(options);
  options.capture = true;
  SmallRun graphs(options);
  const auto a = run_sizes(eager, 0, 24), b = run_sizes(graphs, 0, 24);
  CHECK(eager.step->graphs() == 0);
  CHECK(graphs.step->graphs() == 3);
  REQUIRE(b.size() == 24);
  for (size_t i = 0; i < b.size(); ++i) CHECK(a[i].loss == b[i].loss);
  CHECK(eager.weights() == graphs.weights());
  const int64_t before = memory_stats(test_gpu()).in_use;
  run_sizes(graphs, 24, 36);  // replays allocate nothing
  CHECK(memory_stats(test_gpu()).in_use <= before);
  graphs.step->invalidate();
  CHECK(graphs.step->graphs() == 0);
  run_sizes(eager, 24, 48);
  run_sizes(graphs, 36, 48);
  CHECK(eager.weights() == graphs.weights());
  cuda::set_deterministic(false);
}

TEST_CASE("the shape that was used longest ago gives way", "[train][step][cuda]") {
  require_gpu();
  SmallRun run({.device = test_gpu()});
  run.step_options.prepared = 2;
  run.step =
      std::make_unique<train::TrainStep>(heads::language_model::loss(*run.model), *run.optimizer,
                                         *run.scaler, run.preset, run.step_options);
  int64_t step = 0;
  const auto run_rows = [&](int64_t rows, int64_t times) {
    for (int64_t i = 0; i < times; ++i, ++step) {
      const train::StepData data = small_batch(step, rows);
      run.step->run(step, data.micro_batches, data.normalisers, 0.01);
    }
    run.step->take_reports(/*wait=*/true);
  };
  run_rows(8, 4);
  run_rows(4, 4);
  CHECK(run.step->graphs() == 2);
  run_rows(8, 1);  // now 4 is the oldest
  CHECK(run.step->captured());
  run_rows(6, 1);
  CHECK(run.step->graphs() == 1);
  run_rows(8, 1);
  CHECK(run.step->captured());
  run_rows(4, 1);
  CHECK_FALSE(run.step->captured());
}

#endif
