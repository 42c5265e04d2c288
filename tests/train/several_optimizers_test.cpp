// Several optimizers in one step (a GAN's two), and data that workers make ahead.
#include <catch2/catch.hpp>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/nn/dropout.h>
#include <binade/nn/linear.h>
#include <binade/optim/adamw.h>
#include <binade/optim/sgd.h>
#include <binade/train/prefetched.h>
#include <binade/train/trainer.h>

#include "temporary_folder.h"
#include "train/folder_run.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

constexpr int64_t kRows = 8, kNoise = 3, kWidth = 4;

struct Gan : nn::Module {
  Gan()
      : generator(add<nn::Linear>("generator", kNoise, kWidth)),
        critic(add<nn::Linear>("critic", kWidth, 1)),
        dropout(add<nn::Dropout>("dropout", 0.25)) {}
  // How far scores are from `wanted`, a share of the step's rows.
  Tensor distance(const Tensor& samples, double wanted, const train::LossInputs& in) const {
    const Tensor scores = binade::to(critic->forward(dropout->forward(samples)), DType::f32);
    return sum(square(scores - wanted)) / in.normalisers.at("rows");
  }
  train::Loss critic_loss(const train::LossInputs& in) const {
    const Tensor made = generator->forward(in.batch.at("noise"));
    const Tensor real = distance(in.batch.at("real"), 1, in);
    return {real + distance(made.detach(), 0, in), {{"real", real}}};
  }
  train::Loss generator_loss(const train::LossInputs& in) const {
    return distance(generator->forward(in.batch.at("noise")), 1, in);
  }
  std::shared_ptr<nn::Linear> generator, critic;
  std::shared_ptr<nn::Dropout> dropout;
};

// Drawn by the step's number alone.
train::StepData gan_data(int64_t step, int64_t micro_batches) {
  const auto draw = [&](int64_t columns, uint64_t place) {
    std::vector<float> values;
    for (int64_t i = 0; i < kRows * columns; ++i)
      values.push_back(
          uniform_of(
              philox(5, static_cast<uint64_t>(step), place, static_cast<uint64_t>(i)).word[0]) -
          0.5f);
    return Array::from(values, {kRows, columns});
  };
  train::StepData data;
  data.micro_batches =
      train::micro_batches({{"real", draw(kWidth, 0)}, {"noise", draw(kNoise, 1)}}, micro_batches);
  data.normalisers = {{"rows", static_cast<double>(kRows)}};
  data.tokens = kRows;
  return data;
}

struct GanRun {
  explicit GanRun(const std::string& name = "fp16",
                  const amp::GradScalerOptions& scaling = {.init_scale = 1024,
                                                           .growth_interval = 3})
      : preset(amp::Preset::parse(name)) {
    RandomState::current().set_seed(3);
    gan = std::make_unique<Gan>();
    preset.apply(*gan);
    critic = std::make_unique<optim::AdamW>(optim::split_by_decay(*gan->critic, 0.1));
    generator = std::make_unique<optim::Sgd>(optim::split_by_decay(*gan->generator, 0),
                                             optim::SgdOptions{.momentum = 0.5});
    scaler = std::make_unique<amp::GradScaler>(Device(), scaling);
  }
  std::vector<train::StepPart> parts() const {
    return {{"critic", [this](const auto& in) { return gan->critic_loss(in); }, critic.get(), 0.5},
            {"generator", [this](const auto& in) { return gan->generator_loss(in); },
             generator.get(), 0.25}};
  }
  std::map<std::string, std::vector<float>> weights() const {
    std::map<std::string, std::vector<float>> all;
    for (const auto& [name, array] : gan->state()) all[name] = array.to_vector<float>();
    return all;
  }

  amp::Preset preset;
  std::unique_ptr<Gan> gan;
  std::unique_ptr<optim::AdamW> critic;
  std::unique_ptr<optim::Sgd> generator;
  std::unique_ptr<amp::GradScaler> scaler;
};

train::TrainerOptions run_options(int64_t steps) {
  train::TrainerOptions options;
  options.steps = steps;
  options.schedule = {.learning_rate = 0.05, .total = 8};
  options.step.seed = 11;
  options.unit = "images";
  options.quiet = true;
  return options;
}

}  // namespace

TEST_CASE("a step of several optimizers is the loop that one would write", "[train][several]") {
  for (const char* preset : {"fp32", "fp16", "bf16"})
    for (const int64_t micro_batches : {1, 2}) {
      INFO(preset << ", " << micro_batches << " micro-batches");
      GanRun run(preset), loop(preset);
      train::TrainStep step(run.parts(), *run.scaler, run.preset, {.seed = 11});
      std::vector<double> norms, losses;
      for (int64_t s = 0; s < 6; ++s) {
        const train::StepData data = gan_data(s, micro_batches);
        step.run(s, data.micro_batches, data.normalisers, 0.05);

        RandomState::current().begin_step(11, static_cast<uint64_t>(s));
        // Each micro-batch of each part has its share of a step's 2^22 places.
        const uint64_t share = (uint64_t{1} << 22) / static_cast<uint64_t>(2 * micro_batches);
        uint64_t place = 0;
        for (const train::StepPart& part : loop.parts()) {
          double loss = 0;
          loop.critic->zero_grad();
          loop.generator->zero_grad();
          part.optimizer->set_learning_rate(0.05);
          for (const train::Batch& batch : data.micro_batches) {
            RandomState::current().set_place(place);
            place += share;
            train::LossInputs in;
            for (const auto& [name, array] : batch) in.batch.add(name, Tensor(array));
            in.normalisers.add("rows", Tensor::scalar(kRows));
            const amp::Autocast scope(loop.preset, *loop.scaler);
            const Tensor value = part.loss(in).value;
            loss += value.item();
            loop.scaler->scale(value).backward();
            if (micro_batches > 1) part.optimizer->accumulate();
          }
          loop.scaler->clip_norm(part.clip);
          loop.scaler->step(*part.optimizer);
          norms.push_back(loop.scaler->norm(*part.optimizer).item());
          losses.push_back(loss);
        }
        loop.scaler->update();
      }
      CHECK(run.weights() == loop.weights());
      const std::vector<train::StepReport> reports = step.take_reports(true);
      REQUIRE(reports.size() == 6);
      for (size_t s = 0; s < 6; ++s) {
        const train::StepReport& report = reports[s];
        CHECK(report.scalars.at("loss_critic") == Approx(losses[2 * s]));
        CHECK(report.scalars.at("loss_generator") == Approx(losses[2 * s + 1]));
        CHECK(report.loss == Approx(losses[2 * s] + losses[2 * s + 1]));
        CHECK(report.scalars.at("grad_norm_critic") == Approx(norms[2 * s]));
        CHECK(report.scalars.at("grad_norm_generator") == Approx(norms[2 * s + 1]));
        CHECK(report.scalars.at("real") > 0);
        CHECK(report.grad_norm == Approx(std::hypot(norms[2 * s], norms[2 * s + 1])));
      }
    }
}

TEST_CASE("an overflow of one optimizer's gradients skips that one alone", "[train][several]") {
  for (const bool of_critic : {true, false}) {
    INFO("of the critic: " << of_critic);
    GanRun run("fp32", {.init_scale = 1024});
    std::vector<train::StepPart> parts = run.parts();
    train::StepPart& bad = parts[of_critic ? 0 : 1];
    bad.loss = [loss = bad.loss](const train::LossInputs& in) -> train::Loss {
      train::Loss result = loss(in);
      result.value = result.value * std::numeric_limits<double>::infinity();
      return result;
    };
    const auto before = run.weights();
    train::TrainStep step(parts, *run.scaler, run.preset, {.seed = 11});
    const train::StepData data = gan_data(0, 1);
    step.run(0, data.micro_batches, data.normalisers, 0.05);
    const train::StepReport report = step.take_reports(true).at(0);
    CHECK(report.skipped);
    REQUIRE(report.offender);
    CHECK(report.offender->optimizer == (of_critic ? 0 : 1));
    const auto after = run.weights();
    CHECK((after.at("critic.weight") == before.at("critic.weight")) == of_critic);
    CHECK((after.at("generator.weight") == before.at("generator.weight")) == !of_critic);
    CHECK(run.scaler->scale_scalar().item() == 512);  // once
  }
}

TEST_CASE("a run of several optimizers resumes bit by bit", "[train][several][trainer]") {
  const TemporaryFolder temporary;
  const auto train_to = [&](const std::string& name, int64_t steps) {
    const auto path = temporary.path() / name;
    GanRun run;
    train::RunFolder folder(path, std::filesystem::exists(path / "config.json"));
    folder.set_config("{}");
    optim::Ema ema(*run.generator, 0.5);
    const train::Task task{.model = run.gan.get(),
                           .data = [](int64_t step) { return gan_data(step, 2); }};
    train::Trainer trainer(task, run.parts(), *run.scaler, run.preset, folder, run_options(steps),
                           &ema);
    trainer.resume();
    trainer.run();
  };
  train_to("whole", 8);
  train_to("parts", 3);
  train_to("parts", 8);
  const train::Checkpoint whole = checkpoint_at(temporary.path() / "whole", 8);
  CHECK(same_bits(whole, checkpoint_at(temporary.path() / "parts", 8)));
  for (const char* section : {"model", "optimizer_critic", "optimizer_generator", "scaler", "ema"})
    CHECK(whole.sections.count(section) == 1);
  const auto rows = rows_of(temporary.path() / "whole" / "metrics.jsonl");
  REQUIRE(rows.size() == 8);
  for (const char* key : {"loss", "loss_critic", "loss_generator", "grad_norm_generator", "real"})
    CHECK(rows[5].contains(key));
  CHECK(rows.back().contains("images_per_s"));
  CHECK(whole.sections.at("ema").count("weight") == 1);
}

TEST_CASE("a step that ends between its optimizers leaves no checkpoint of itself",
          "[train][several][trainer]") {
  const TemporaryFolder temporary;
  for (const std::string where : {"critic", "generator"}) {
    INFO(where);
    GanRun run;
    train::RunFolder folder(temporary.path() / where, false);
    folder.set_config("{}");
    std::vector<train::StepPart> parts = run.parts();
    train::StepPart& bad = parts[where == "critic" ? 0 : 1];
    bad.loss = [calls = 0, loss = bad.loss](const train::LossInputs& in) mutable {
      if (++calls == 4) throw std::runtime_error("no more loss");
      return loss(in);
    };
    const train::Task task{.model = run.gan.get(),
                           .data = [](int64_t step) { return gan_data(step, 1); }};
    train::Trainer trainer(task, parts, *run.scaler, run.preset, folder, run_options(8));
    trainer.resume();
    if (where == "generator") {
      const ExpectWarning expected("some of its optimizers have made the step");
      CHECK_THROWS_WITH(trainer.run(), "no more loss");
    } else {
      CHECK_THROWS_WITH(trainer.run(), "no more loss");
    }
    CHECK(std::filesystem::exists(folder.path() / "chart.svg"));
    CHECK(train::list_checkpoints(folder.path() / "checkpoints").size() ==
          (where == "critic" ? 1 : 0));
  }
}

TEST_CASE("parts that make no step are refused", "[train][several][errors]") {
  const GanRun run;
  const auto make = [&](std::vector<train::StepPart> parts) {
    return train::TrainStep(std::move(parts), *run.scaler, run.preset, {});
  };
  std::vector<train::StepPart> parts = run.parts();
  CHECK_THROWS_WITH(make({}), Contains("an optimizer at least"));
  parts[1].name = "critic";
  CHECK_THROWS_WITH(make(parts), Contains("two values named 'critic'"));
  parts[1].name = "";
  CHECK_THROWS_WITH(make(parts), Contains("name"));
  parts = run.parts();
  parts[0].loss = nullptr;
  CHECK_THROWS_WITH(make(parts), Contains("critic") && Contains("loss"));
  parts = run.parts();
  parts[1].optimizer = nullptr;
  CHECK_THROWS_WITH(make(parts), Contains("generator") && Contains("optimizer"));
  const GanRun other;
  optim::Ema ema(*other.generator, 0.5);
  CHECK_THROWS_WITH(train::TrainStep(run.parts(), *run.scaler, run.preset, {}, &ema),
                    Contains("another optimizer"));
  const TemporaryFolder temporary;
  train::RunFolder folder(temporary.path() / "a", false);
  const train::Task task{.model = run.gan.get(),
                         .data = [](int64_t step) { return gan_data(step, 1); },
                         .loss = run.parts()[0].loss};
  CHECK_THROWS_WITH(train::Trainer(task, run.parts(), *run.scaler, run.preset, folder, {}),
                    Contains("none of its own"));
}

TEST_CASE("data that workers make ahead train the same run", "[train][prefetched]") {
  std::vector<std::map<std::string, std::vector<float>>> weights;
  const TemporaryFolder temporary;
  for (const int workers : {0, 1, 3}) {
    GanRun run;
    const auto path = temporary.path() / std::to_string(workers);
    for (const int64_t steps : {3, 8}) {  // and a resume
      train::RunFolder folder(path, std::filesystem::exists(path / "config.json"));
      folder.set_config("{}");
      train::Task task{.model = run.gan.get(),
                       .data = [](int64_t step) { return gan_data(step, 2); }};
      if (workers > 0) task.data = train::prefetched(task.data, {.workers = workers});
      train::Trainer trainer(task, run.parts(), *run.scaler, run.preset, folder,
                             run_options(steps));
      trainer.resume();
      CHECK(trainer.run().steps_done == steps);
    }
    weights.push_back(run.weights());
  }
  CHECK(weights[0] == weights[1]);
  CHECK(weights[0] == weights[2]);
}

TEST_CASE("data made ahead begin where they are asked for, and end with an error where they do",
          "[train][prefetched]") {
  const auto data = train::prefetched(
      [](int64_t step) -> train::StepData {
        if (step == 12) throw std::runtime_error("no step twelve");
        return {.tokens = step};
      },
      {.workers = 2, .first = 99});
  for (const int64_t step : {5, 6, 7, 3, 4, 10, 11}) CHECK(data(step).tokens == step);
  CHECK_THROWS_WITH(data(12), "no step twelve");
  CHECK_THROWS_WITH(data(12), "no step twelve");
  CHECK(data(5).tokens == 5);
}
