#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops.h>
#include <binade/optim/adamw.h>

#include "../../gpu.h"
#include "../../temporary_folder.h"
#include "tiny_world.h"

using namespace binade;
using namespace binade::test;

namespace {

data::SlotLayout small_rows() {
  data::SlotLayout layout = examples::world_layout();
  layout.understanding = 192;
  layout.generation = 320;
  layout.vit = 160;
  return layout;
}

data::PackedSlots pack(int64_t step, int64_t rows) {
  static const examples::World world = tiny_world();
  return data::pack_step(small_rows(), {.rows = rows, .seed = 4}, step,
                         [&](data::RandomStream& random) { return world.sample(random); });
}

// A run of its own, on a device in a precision.
struct Run {
  Run(const std::string& precision, Device device, bool capture = false)
      : preset(amp::Preset::parse(precision)) {
    RandomState::current().set_seed(2);
    model = std::make_shared<nn::MotModel>(tiny_config());
    model->to(device);
    preset.apply(*model);
    optimizer = std::make_unique<optim::AdamW>(optim::split_by_decay(*model, 0),
                                               optim::AdamWOptions{.beta2 = .95, .eps = 1e-15});
    scaler = std::make_unique<amp::GradScaler>(device, amp::GradScalerOptions::of(preset));
    step =
        std::make_unique<train::TrainStep>(heads::flow::training_loss(*model, {}), *optimizer,
                                           *scaler, preset, train::StepOptions{.capture = capture});
  }
  train::StepReport take(int64_t number, int64_t rows, int64_t accumulation, double rate = 2e-3) {
    const train::StepData data = heads::flow::step_data(pack(number, rows), accumulation);
    step->run(number, data.micro_batches, data.normalisers, rate);
    return step->take_reports(true).front();
  }

  amp::Preset preset;
  std::shared_ptr<nn::MotModel> model;
  std::unique_ptr<optim::AdamW> optimizer;
  std::unique_ptr<amp::GradScaler> scaler;
  std::unique_ptr<train::TrainStep> step;
};

}  // namespace

TEST_CASE("a step reports MSE and CE, each over its own count", "[flow][train]") {
  Run run("fp32", Device::cpu());
  const train::StepReport report = run.take(0, 2, 1);
  const double mse = report.scalars.at("mse"), ce = report.scalars.at("ce");
  CHECK(report.loss == Approx(mse + .25 * ce).epsilon(1e-6));
  CHECK(mse > 1.5);
  CHECK(mse < 3);
  CHECK(ce == Approx(std::log(64)).margin(0.3));
}

// Sums over the same tokens, whose noise is drawn for other micro-batches: only CE is the same.
TEST_CASE("8 packed rows are 2 times 4", "[flow][train]") {
  const data::PackedSlots packed = pack(3, 8);
  RandomState::current().set_seed(2);
  const nn::MotModel model(tiny_config());
  const Tensor noise = Tensor::full(packed.latents.shape(), 0.5);
  const auto normalisers = normalisers_of(packed);
  const auto whole = heads::flow::unified_loss(model, heads::flow::on_device(packed, Device::cpu()),
                                               normalisers, noise, 1);
  double mse = 0, ce = 0;
  for (const train::Batch& part : heads::flow::step_data(packed, 2).micro_batches) {
    train::Named<Tensor> batch;
    for (const auto& [name, array] : part) batch.add(name, Tensor(array));
    const auto loss =
        heads::flow::unified_loss(model, batch, normalisers, slice(noise, 0, 0, 4), 1);
    mse += loss.mse.item();
    ce += loss.ce.item();
  }
  CHECK(mse == Approx(whole.mse.item()).epsilon(1e-5));
  CHECK(ce == Approx(whole.ce.item()).epsilon(1e-5));
}

TEST_CASE("a model that reads and draws learns in every precision", "[flow][train]") {
  const std::string precision = GENERATE("fp32", "fp16", "fp16-autocast", "bf16");
  Run run(precision, Device::cpu());
  double first = 0, last = 0;
  for (int64_t step = 0; step < 40; ++step) {
    const train::StepReport report = run.take(step, 2, 1, 5e-3);
    if (step < 3) first += report.scalars.at("mse") + report.scalars.at("ce");
    if (step >= 37) last += report.scalars.at("mse") + report.scalars.at("ce");
  }
  CHECK(last < .8 * first);
  CHECK(run.optimizer->steps_done() >= 30);  // dynamic scaling may skip the first
}

TEST_CASE("eager steps over packed rows are those of a captured graph", "[cuda][flow]") {
  require_gpu();
  for (const char* precision : {"fp32", "fp16"}) {
    Run eager(precision, test_gpu()), captured(precision, test_gpu(), /*capture=*/true);
    for (int64_t step = 0; step < 6; ++step) {
      const train::StepReport a = eager.take(step, 2, 1), b = captured.take(step, 2, 1);
      CHECK(a.loss == b.loss);
    }
    CHECK(captured.step->captured());
    const nn::StateDict x = eager.model->state(), y = captured.model->state();
    for (const auto& [name, value] : x)
      CHECK(value.to(Device::cpu()).to_vector<float>() ==
            y.at(name).to(Device::cpu()).to_vector<float>());
  }
}

TEST_CASE("a step on a GPU has the loss of one on the CPU", "[cuda][flow]") {
  require_gpu();
  Run here("fp32", Device::cpu()), there("fp32", test_gpu());
  for (int64_t step = 0; step < 3; ++step) {
    const train::StepReport a = here.take(step, 2, 1), b = there.take(step, 2, 1);
    CHECK(a.scalars.at("mse") == Approx(b.scalars.at("mse")).epsilon(1e-3));
    CHECK(a.scalars.at("ce") == Approx(b.scalars.at("ce")).epsilon(1e-3));
  }
}
