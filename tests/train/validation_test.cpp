// What a validation reports, which one is the best, and the names that metrics may have.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "temporary_folder.h"
#include "train/folder_run.h"
#include "warnings.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

// Validates every third step of 12 with these results, one after the other.
void validate_with(FolderRun& run, std::vector<train::Validation> results) {
  run.trainer_options.validate_every = 3;
  run.task.validate = [next = size_t{0}, results = std::move(results)]() mutable {
    return results.at(next++);
  };
}

std::string best_step(const fs::path& run) {
  return train::read_checkpoint(run / "checkpoints" / "best.safetensors").values.at("step");
}

train::Validation scored(double loss, double score) {
  return {loss, {}, score};
}

}  // namespace

TEST_CASE("the best checkpoint follows the score where there is one", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun run(path);
  // The lowest loss comes last, what is not finite is never the best.
  validate_with(run, {scored(3, std::nan("")), scored(3, -2), scored(2, 1.5), scored(1, 1.25)});
  const train::Trainer::Outcome outcome = run.run();
  REQUIRE(outcome.best);
  CHECK(outcome.best->by_score);
  CHECK(outcome.best->value == 1.5);
  CHECK(best_step(path) == "9");
  std::vector<Json> scores;
  for (const Json& row : rows_of(path / "metrics.jsonl"))
    if (row.contains("validation_loss")) scores.push_back(row.at("validation_score"));
  CHECK(scores == std::vector<Json>{nullptr, -2.0, 1.5, 1.25});
}

TEST_CASE("without a finite validation there is no best checkpoint", "[train][validation]") {
  const TemporaryFolder temporary;
  for (const double result : {std::nan(""), std::numeric_limits<double>::infinity(),
                              -std::numeric_limits<double>::infinity()}) {
    const fs::path path = temporary.path() / std::to_string(result);
    FolderRun run(path);
    validate_with(run, std::vector<train::Validation>(4, result));
    CHECK(!run.run().best);
    CHECK(!fs::exists(path / "checkpoints" / "best.safetensors"));
  }
}

TEST_CASE("what a run begins with may be its best", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    FolderRun run(path);
    validate_with(run, {scored(1, 5), scored(1, 4), scored(1, 3), scored(1, 2), scored(1, 5)});
    run.trainer_options.validate_first = true;
    const auto before = run.small.weights();
    const train::Trainer::Outcome outcome = run.run();
    REQUIRE(outcome.best);
    CHECK(outcome.best->value == 5);
    CHECK(outcome.best->step == 0);
    CHECK(best_step(path) == "0");
    const auto kept = train::read_checkpoint(path / "checkpoints" / "best.safetensors");
    for (const auto& [name, values] : kept.sections.at("model"))
      CHECK(values.to_vector<float>() == before.at(name));
    CHECK(rows_of(path / "metrics.jsonl").at(0).at("step") == 0);
  }
  // A run that goes on does not begin again.
  FolderRun more(path);
  more.trainer_options.steps = 15;
  more.trainer_options.validate_first = true;
  validate_with(more, {scored(1, 4)});
  const train::Trainer::Outcome outcome = more.run();
  CHECK(outcome.best->step == 0);
  CHECK(best_step(path) == "0");
}

TEST_CASE("a score is called by what it is of", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  const auto named = [](double score) {
    return train::Validation(1, {{"errors", -score}}, score, "errors");
  };
  {
    FolderRun run(path);
    validate_with(run, {named(-7), named(-3), named(-5), named(-4)});
    const train::Trainer::Outcome outcome = run.run();
    CHECK(outcome.best->value == -3);
    CHECK(outcome.best->name == "errors");
    CHECK(outcome.best->shown == 3);
    CHECK(outcome.best->step == 6);
  }
  FolderRun more(path);  // finished before
  const train::Trainer::Outcome outcome = more.run();
  CHECK(outcome.best->name == "errors");
  CHECK(outcome.best->shown == 3);
  CHECK(outcome.best->step == 6);

  FolderRun wrong(temporary.path() / "b");
  validate_with(wrong, {train::Validation(1, {}, 2.0, "errors")});
  CHECK_THROWS_WITH(wrong.run(), Contains("score is said to be errors"));
}

TEST_CASE("the best validation is kept over a resume, with the rule", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    FolderRun run(path);
    validate_with(run, {scored(3, 4), scored(3, 5), scored(2, 2), scored(1, 1)});
    run.run();
  }
  FolderRun more(path);
  more.trainer_options.steps = 18;
  validate_with(more, {scored(9, 4.5), scored(9, 6)});
  const train::Trainer::Outcome outcome = more.run();
  REQUIRE(outcome.best);
  CHECK(outcome.best->by_score);
  CHECK(outcome.best->value == 6);
  CHECK(best_step(path) == "18");
}

TEST_CASE("another rule for the best begins its record anew, and says so", "[train][validation]") {
  for (const bool score_first : {false, true}) {
    INFO(score_first);
    const TemporaryFolder temporary;
    const fs::path path = temporary.path() / "a";
    {
      FolderRun run(path);
      // Better than what follows, under either rule.
      validate_with(run, std::vector<train::Validation>(
                             4, score_first ? scored(0.5, 100) : train::Validation(-100)));
      run.run();
    }
    FolderRun more(path);
    more.trainer_options.steps = 18;
    validate_with(more, score_first ? std::vector<train::Validation>{7, 6}
                                    : std::vector<train::Validation>{scored(7, 1), scored(7, 2)});
    const ExpectWarning warning(score_first ? "validations have no score from step 15 on"
                                            : "validations have a score from step 15 on");
    const train::Trainer::Outcome outcome = more.run();
    REQUIRE(outcome.best);
    CHECK(outcome.best->by_score == !score_first);
    CHECK(outcome.best->value == (score_first ? 6 : 2));
    CHECK(best_step(path) == "18");
  }
}

TEST_CASE("a checkpoint without a rule has a loss as its best", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  {
    FolderRun run(path);
    validate_with(run, {3, 2, 4, 5});
    run.run();
  }
  train::Checkpoint old = checkpoint_at(path, 12);
  CHECK(old.values.erase("best_by") == 1);
  train::write_checkpoint(path / "checkpoints" / "step-000000012.safetensors", old);
  FolderRun again(path);
  validate_with(again, {});
  const train::Trainer::Outcome outcome = again.run();
  REQUIRE(outcome.best);
  CHECK(outcome.best->value == 2);
  CHECK(!outcome.best->by_score);
}

TEST_CASE("scalars of a validation are metrics under their names", "[train][validation]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun run(path);
  run.task.validate = [] {
    return train::Validation(2, {{"top1_head_1", 0.5}, {"tau", 1.75}}, 1.75);
  };
  run.run();
  const Json row = rows_of(path / "metrics.jsonl").back();
  CHECK(row.at("validation_loss") == 2);
  CHECK(row.at("validation_top1_head_1") == 0.5);
  CHECK(row.at("validation_tau") == 1.75);
  CHECK(row.at("validation_score") == 1.75);
}

TEST_CASE("scalars of the loss are metrics under their names", "[train][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  FolderRun run(path);
  run.task.loss = [loss = run.task.loss](const train::LossInputs& in) -> train::Loss {
    return {loss(in).value, {{"head_1", Tensor::scalar(0.25)}, {"place", in.step}}};
  };
  run.run();
  const std::vector<Json> rows = rows_of(path / "metrics.jsonl");
  REQUIRE(rows.size() == 12);
  for (const Json& row : rows) {
    CHECK(row.at("head_1") == 0.5);  // of two micro-batches
    CHECK(row.at("place") == 2 * (row.at("step").get<int>() - 1));
  }
}

TEST_CASE("a scalar with the name of a metric is refused", "[train][trainer]") {
  const TemporaryFolder temporary;
  std::set<std::string> taken = {"validation_score", "validation_anything"};
  {
    // Every name that a run writes by itself.
    SmallRunOptions options{.preset = "fp16",
                            .scaler = {.init_scale = 0x1p26, .min_scale = 1, .max_scale = 0x1p26}};
    FolderRun run(temporary.path() / "all", options);
    run.trainer_options.diagnose_overflow = true;
    run.trainer_options.underflow_every = 6;
    run.task.validate = [] { return 1.0; };
    run.run();
    for (const Json& row : rows_of(temporary.path() / "all" / "metrics.jsonl"))
      for (const auto& [name, value] : row.items()) taken.insert(name);
  }
  CHECK(taken.size() == 17);
  for (const std::string& name : taken) {
    INFO(name);
    FolderRun run(temporary.path() / name);
    run.task.loss = [&, loss = run.task.loss](const train::LossInputs& in) -> train::Loss {
      return {loss(in).value, {{name, Tensor::scalar(1)}}};
    };
    CHECK_THROWS_WITH(run.run(), Contains("a scalar named " + name));
  }
  for (const std::string name : {"loss", "score"}) {
    FolderRun run(temporary.path() / ("validation " + name));
    run.task.validate = [name] { return train::Validation(1, {{name, 2}}); };
    CHECK_THROWS_WITH(run.run(), Contains("a validation reports a scalar named " + name));
  }
}
