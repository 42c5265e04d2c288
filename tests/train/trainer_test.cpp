// The loop: resuming bit by bit, stopping, full disks, the scale at its floor, what is reported.
#include <binade/train/trainer.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <limits>
#include <stdexcept>

#include "temporary_folder.h"
#include "train/folder_run.h"
#include "train/small_disk.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

// FP16 with dropout and a scale that moves: everything that a checkpoint must carry.
const SmallRunOptions kLively = {
    .preset = "fp16",
    .dropout = 0.1,
    .scaler = {.init_scale = 0x1p23, .growth_interval = 2, .min_scale = 1}};

}  // namespace

TEST_CASE("a run that was stopped and resumed equals one that was not", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path whole = temporary.path() / "whole", parts = temporary.path() / "parts";
  CHECK(!FolderRun(whole, kLively).run().stopped);
  int64_t expected_start = 0;
  for (const int64_t stop : {5, 6, 9}) {
    FolderRun part(parts, kLively);
    part.task.data = [stop](int64_t step) {
      if (step == stop) std::raise(stop == 6 ? SIGINT : SIGTERM);
      return small_batch(step, 8, 2);
    };
    const train::Trainer::Outcome outcome = part.run();
    CHECK(outcome.stopped);
    CHECK(outcome.steps_done == stop + 1);  // the step that it was in is finished
    CHECK(part.resumed == (expected_start > 0));
    CHECK(part.resumed_at == expected_start);
    expected_start = stop + 1;
  }
  FolderRun last(parts, kLively);
  const train::Trainer::Outcome outcome = last.run();
  CHECK(!outcome.stopped);
  CHECK(outcome.steps_done == 12);

  const train::Checkpoint a = checkpoint_at(whole, 12), b = checkpoint_at(parts, 12);
  for (const char* section : {"model", "optimizer", "scaler", "ema"})
    CHECK(a.sections.count(section) == 1);
  CHECK(same_bits(a, b));
  CHECK(!same_bits(a, checkpoint_at(parts, 10)));
  CHECK(a.sections.at("scaler").at("skipped").item() > 0);  // the run had something to carry on

  // The metrics have every step once, and the same losses.
  const auto rows = rows_of(whole / "metrics.jsonl"), others = rows_of(parts / "metrics.jsonl");
  REQUIRE(rows.size() == 12);
  REQUIRE(others.size() == 12);
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i].at("step") == static_cast<int64_t>(i) + 1);
    for (const char* key : {"loss", "loss_smoothed", "grad_norm", "scale", "skipped_total"})
      CHECK(rows[i].at(key) == others[i].at(key));
  }
}

TEST_CASE("a resumed run may take more steps, not fewer", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun(path).run();
  {
    FolderRun fewer(path);
    fewer.trainer_options.steps = 8;
    CHECK_THROWS_WITH(fewer.run(), Contains("12 steps already") && Contains("--steps"));
  }
  FolderRun more(path);
  more.trainer_options.steps = 15;
  CHECK(more.run().steps_done == 15);
  CHECK(more.resumed_at == 12);
}

TEST_CASE("steps without a label are passed over and counted", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  const auto without_labels = [](int64_t step) {
    train::StepData data = small_batch(step, 8, 2);
    for (train::Batch& batch : data.micro_batches)
      batch.at("targets").copy_from(Array::full(batch.at("targets").shape(), -100, DType::i32));
    train::Named<double> none;
    for (const auto& [name, count] : data.normalisers) none.add(name, 0);
    data.normalisers = none;
    return data;
  };
  {
    FolderRun run(path, kLively);
    run.trainer_options.checkpoint_every = 1;
    run.trainer_options.keep_checkpoints = 20;
    run.task.data = [&](int64_t step) {
      // The first one, two in a row, and the last one.
      const bool none = step == 0 || step == 5 || step == 6 || step == 11;
      return none ? without_labels(step) : small_batch(step, 8, 2);
    };
    const train::Trainer::Outcome outcome = run.run();
    CHECK(outcome.steps_done == 12);
    CHECK(outcome.without_labels == 4);
  }
  const auto rows = rows_of(path / "metrics.jsonl");
  int64_t passed_over = 0;
  for (const Json& row : rows) passed_over += row.contains("no_labels") ? 1 : 0;
  CHECK(passed_over == 4);
  const train::Checkpoint before = checkpoint_at(path, 5), behind = checkpoint_at(path, 7);
  for (const auto& [section, arrays] : before.sections)
    for (const auto& [name, array] : arrays) {
      INFO(section << ": " << name);
      CHECK(array.to_vector<double>() == behind.sections.at(section).at(name).to_vector<double>());
    }
  CHECK(!same_bits(checkpoint_at(path, 7), checkpoint_at(path, 8)));

  FolderRun nothing(temporary.path() / "b");
  nothing.task.data = without_labels;
  CHECK_THROWS_WITH(nothing.run(), Contains("none of the 12 steps had a valid label"));
}

TEST_CASE("a finished run that is resumed has its last values", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  train::Trainer::Outcome first;
  {
    FolderRun run(path);
    run.task.validate = [] { return 1.5; };
    first = run.run();
  }
  FolderRun again(path);
  again.task.validate = [] { return 1.5; };
  const train::Trainer::Outcome outcome = again.run();
  CHECK(outcome.steps_done == 12);
  CHECK(!outcome.stopped);
  CHECK(first.last_loss > 0);
  CHECK(outcome.last_loss == first.last_loss);
  REQUIRE(outcome.best);
  CHECK(outcome.best->value == 1.5);
  CHECK(!outcome.best->by_score);
  CHECK(std::isnan(outcome.tokens_per_second));
}

TEST_CASE("an exception leaves a checkpoint and the chart, from which the run goes on",
          "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path whole = temporary.path() / "whole";
  const auto validate = [](FolderRun& run) {
    run.trainer_options.validate_every = 5;
    run.task.validate = [] { return 2.0; };
  };
  {
    FolderRun run(whole, kLively);
    validate(run);
    run.run();
  }
  for (const std::string where : {"data", "loss", "validation"}) {
    INFO(where);
    const fs::path path = temporary.path() / where;
    int64_t expected = 7;
    {
      FolderRun run(path, kLively);
      validate(run);
      if (where == "data")
        run.task.data = [](int64_t step) {
          if (step == 7) throw std::runtime_error("no more data");
          return small_batch(step, 8, 2);
        };
      if (where == "loss")
        // In the second micro-batch of a step: the first one's gradients are there already.
        run.task.loss = [calls = 0, loss = run.task.loss](const train::LossInputs& in) mutable {
          if (++calls == 2 * 7 + 2) throw std::runtime_error("no more data");
          return loss(in);
        };
      if (where == "validation") {
        run.task.validate = []() -> double { throw std::runtime_error("no more data"); };
        expected = 5;
      }
      CHECK_THROWS_WITH(run.run(), "no more data");
      CHECK(run.small.model->training());
    }
    CHECK(fs::exists(path / "chart.svg"));
    CHECK(checkpoint_at(path, expected).values.at("step") == std::to_string(expected));
    CHECK(rows_of(path / "metrics.jsonl").back().at("step") == expected);
    FolderRun rest(path, kLively);
    validate(rest);
    rest.run();
    CHECK(rest.resumed_at == expected);
    // Averages that stayed in the model, or half a step's gradients, would show here.
    train::Checkpoint a = checkpoint_at(whole, 12), b = checkpoint_at(path, 12);
    if (where == "validation") {
      // The one that was lost would have been the best; the next one, which is as good, is.
      CHECK(a.values.at("best_step") == "5");
      CHECK(b.values.at("best_step") == "10");
      b.values["best_step"] = "5";
    }
    CHECK(same_bits(a, b));
  }
}

TEST_CASE("the throughput is left out until it is known", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun(path).run();
  const std::vector<Json> rows = rows_of(path / "metrics.jsonl");
  CHECK(!rows.front().contains("tokens_per_s"));
  CHECK(rows.back().contains("tokens_per_s"));
  for (const Json& row : rows)
    if (row.contains("tokens_per_s")) CHECK(row.at("tokens_per_s") > 0);
}

TEST_CASE("a resume with other data is refused", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    FolderRun first(path);
    first.task.data_fingerprint = "100 tokens";
    first.run();
  }
  FolderRun other(path);
  other.trainer_options.steps = 15;
  other.task.data_fingerprint = "101 tokens";
  CHECK_THROWS_WITH(other.run(), Contains("100 tokens then, 101 tokens now"));
  other.task.data_fingerprint = "100 tokens";
  CHECK(other.run().steps_done == 15);
}

TEST_CASE("a checkpoint whose step is no count of steps is refused", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun(path).run();
  const fs::path file = path / "checkpoints" / "step-000000012.safetensors";
  train::Checkpoint checkpoint = train::read_checkpoint(file);
  for (const char* step : {"-5", "1e300", "nan", "2.5", "-1e300"}) {
    INFO(step);
    checkpoint.values["step"] = step;
    train::write_checkpoint(file, checkpoint);
    FolderRun again(path);
    CHECK_THROWS_WITH(again.run(), Contains("step"));
    CHECK(again.resumed_at <= 0);
  }
}

TEST_CASE("a resumed run passes over a damaged checkpoint", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    FolderRun run(path, kLively);
    run.trainer_options.checkpoint_every = 4;
    run.run();
  }
  const fs::path newest = path / "checkpoints" / "step-000000012.safetensors";
  fs::copy_file(newest, temporary.path() / "copy");
  const train::Checkpoint expected = train::read_checkpoint(temporary.path() / "copy");
  fs::resize_file(newest, fs::file_size(newest) / 2);
  const ExpectWarning warning(newest.string());
  FolderRun again(path, kLively);
  again.run();
  CHECK(again.resumed_at == 8);
  CHECK(same_bits(expected, checkpoint_at(path, 12)));
}

TEST_CASE("training goes on when the disk is full", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun run(path);
  run.trainer_options.checkpoint_every = 2;
  run.trainer_options.keep_checkpoints = 1;
  std::optional<SmallDisk> disk;
  bool old_stayed = false;
  run.task.data = [&](int64_t step) {
    if (step == 4) disk.emplace(100);
    if (step == 9) {
      old_stayed = fs::exists(path / "checkpoints" / "step-000000004.safetensors");
      disk.reset();
    }
    return small_batch(step);
  };
  const ExpectWarning checkpoint("no checkpoint was written at step"),
      metrics("metrics.jsonl: File too large"), events("tensorboard");
  CHECK(run.run().steps_done == 12);
  CHECK(old_stayed);
  CHECK(checkpoint_at(path, 12).values.at("step") == "12");
  CHECK(!fs::exists(path / "checkpoints" / "step-000000004.safetensors"));
}

TEST_CASE("a scale stuck at its floor ends the run and names the offender", "[train][trainer]") {
  for (const char* preset : {"fp32", "fp16", "fp16-static:8"}) {
    INFO(preset);
    const TemporaryFolder temporary;
    FolderRun run(temporary.path() / "a",
                  {.preset = preset, .scaler = {.init_scale = 4, .min_scale = 4}});
    run.trainer_options.steps = 1000;
    // The second block's last norm has a NaN: every gradient is NaN.
    for (const nn::NamedParameter& named : run.small.model->named_parameters())
      if (named.name == "transformer.ln_f.weight")
        named.parameter->assign(Array::full(named.parameter->shape(), std::nan(""), DType::f32));
    CHECK_THROWS_WITH(run.run(), Contains("100 steps were skipped") &&
                                     Contains("transformer.wte.weight") && Contains("NaN"));
  }
}

TEST_CASE("the best checkpoint by validation loss is kept", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun run(path);
  run.trainer_options.validate_every = 3;
  run.trainer_options.keep_checkpoints = 1;
  std::vector<double> losses = {3, 2, NAN, 2.5};
  bool training_mode = false;
  run.task.validate = [&] {
    training_mode = training_mode || run.small.model->training();
    const double loss = losses.front();
    losses.erase(losses.begin());
    return loss;
  };
  const train::Trainer::Outcome outcome = run.run();
  REQUIRE(outcome.best);
  CHECK(outcome.best->value == 2);
  CHECK(losses.empty());
  CHECK(!training_mode);
  CHECK(run.small.model->training());
  CHECK(train::read_checkpoint(path / "checkpoints" / "best.safetensors").values.at("step") == "6");
  int validations = 0;
  for (const Json& row : rows_of(path / "metrics.jsonl"))
    validations += row.contains("validation_loss");
  CHECK(validations == 4);
}

TEST_CASE("a run ends when its patience is lost, and its best weights can be had",
          "[train][trainer]") {
  const TemporaryFolder folder;
  // By step 2, 4, …: the best is after step 4.
  const auto patient = [](FolderRun& run, int64_t patience) {
    run.trainer_options.validate_every = 2;
    run.trainer_options.patience = patience;
    run.task.validate = [calls = 0]() mutable {
      constexpr double kLosses[] = {5, 3, 4, 3.5, 3.2, 3.1};
      return train::Validation(kLosses[calls++]);
    };
  };
  std::map<std::string, std::vector<float>> best;
  {
    FolderRun run(folder.path() / "run");
    patient(run, 2);
    train::Trainer trainer(run.task, *run.small.optimizer, *run.small.scaler, run.small.preset,
                           run.folder, run.trainer_options, &run.ema);
    CHECK_FALSE(trainer.load_best());
    const train::Trainer::Outcome outcome = trainer.run();
    CHECK(outcome.patience_lost);
    CHECK_FALSE(outcome.stopped);
    CHECK(outcome.steps_done == 8);
    REQUIRE(outcome.best);
    CHECK(outcome.best->value == 3);
    REQUIRE(trainer.load_best());
    best = run.small.weights();
  }
  FolderRun short_run(folder.path() / "short");
  short_run.trainer_options.steps = 4;
  short_run.run();
  CHECK(best == short_run.small.weights());

  // It ended; with more patience it goes on to the end.
  const auto go_on = [&](int64_t patience) {
    FolderRun run(folder.path() / "run");
    patient(run, patience);
    return run.run();
  };
  CHECK(go_on(2).steps_done == 8);
  const train::Trainer::Outcome rest = go_on(0);
  CHECK(rest.steps_done == 12);
  CHECK_FALSE(rest.patience_lost);
}

TEST_CASE("skipped steps are diagnosed and underflow is reported on request", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  SmallRunOptions options = kLively;
  options.scaler = {.init_scale = 0x1p26, .min_scale = 1, .max_scale = 0x1p26};
  std::map<std::string, std::vector<float>> looking, plain;
  {
    FolderRun run(path, options);
    run.trainer_options.diagnose_overflow = true;
    run.trainer_options.underflow_every = 6;
    run.run();
    looking = run.small.weights();
  }
  int skips = 0;
  for (const Json& row : rows_of(path / "metrics.jsonl")) {
    if (!row.contains("skipped")) {
      CHECK(row.contains("underflow_share"));
      continue;
    }
    CHECK(row.contains("overflow") == row.at("skipped").get<bool>());
    CHECK(row.contains("offender") == row.at("skipped").get<bool>());
    if (!row.contains("overflow")) continue;
    ++skips;
    CHECK_THAT(row.at("overflow").get<std::string>(), Contains("the backward pass of"));
  }
  CHECK(skips > 0);
  CHECK(skips < 12);
  const std::vector<Json> reports = rows_of(path / "underflow.jsonl");
  REQUIRE(reports.size() == 2);
  CHECK(reports[0].at("step") == 6);
  CHECK(reports[1].at("step") == 12);
  CHECK(reports[1].at("parameters").at(0).at("name") == "transformer.wte.weight");

  // Looking changed nothing.
  FolderRun run(temporary.path() / "b", options);
  run.run();
  plain = run.small.weights();
  CHECK(plain == looking);
}
