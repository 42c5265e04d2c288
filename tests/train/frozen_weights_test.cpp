// What checkpoints hold where a part of the model is frozen.
#include <binade/train/frozen_weights.h>

#include <catch2/catch.hpp>

#if BINADE_HAVE_CUDA
#include <binade/core/cuda/libraries.h>
#endif

#include "gpu.h"
#include "temporary_folder.h"
#include "train/folder_run.h"
#include "train/two_heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

// Linear layers z, b and c in this order, of which the optimizer has only z, and a buffer.
struct Parts : nn::Module {
  Parts() {
    for (const char* name : {"z", "b", "c"})
      layers[name] = add<nn::Linear>(name, 3, 2, false, nn::init::constant(0.5));
    add_buffer("mean", Array::full({2}, 3, DType::f32));
  }
  std::map<std::string, std::shared_ptr<nn::Linear>> layers;

  void set(const std::string& name, double value) {
    layers.at(name)->weight()->assign(Array::full({2, 3}, value, DType::f32));
  }
  double get(const std::string& name) const {
    return layers.at(name)->weight()->master().select(0, 0).select(0, 0).item();
  }
};

struct PartsRun {
  PartsRun() : optimizer({{.parameters = {{"z.weight", model.layers.at("z")->weight()}}}}) {}
  void freeze(const std::vector<std::string>& names) {
    for (const std::string& name : names) model.layers.at(name)->set_trainable(false);
  }

  Parts model;
  optim::AdamW optimizer;
};

std::string names_of(const nn::StateDict& state) {
  std::string names;
  for (const auto& [name, array] : state) names += (names.empty() ? "" : " ") + name;
  return names;
}

// Two heads behind a trunk, in a run folder.
struct HeadsFolderRun {
  explicit HeadsFolderRun(const fs::path& path, const SmallRunOptions& options = {})
      : heads(options), folder(path, /*resume=*/fs::exists(path / "config.json")) {
    task.model = heads.model.get();
    task.data = [](int64_t step) { return two_heads_batch(step, 8, 2); };
    task.loss = [this](const train::LossInputs& in) { return heads.model->loss(in); };
    trainer_options.steps = 8;
    trainer_options.schedule = {.learning_rate = 0.02, .warmup = 3, .total = 8};
    trainer_options.step = heads.base.step_options;
    trainer_options.quiet = true;
    folder.set_config("{}");
  }
  void run() {
    train::Trainer trainer(task, *heads.optimizer, *heads.base.scaler, heads.base.preset, folder,
                           trainer_options);
    trainer.resume();
    resumed_at = trainer.steps_done();
    trainer.run();
  }
  nn::ParameterPtr parameter(const std::string& name) const {
    for (const nn::NamedParameter& named : heads.model->named_parameters())
      if (named.name == name) return named.parameter;
    fail("there is no parameter ", name);
  }

  TwoHeadsRun heads;
  train::RunFolder folder;
  train::Task task;
  train::TrainerOptions trainer_options;
  int64_t resumed_at = 0;
};

constexpr const char* kTrunkWeight = "trunk.transformer.h.1.mlp.c_fc.weight";

void check_resume(const SmallRunOptions& options) {
  const TemporaryFolder temporary;
  const fs::path whole = temporary.path() / "whole", parts = temporary.path() / "parts";
  HeadsFolderRun(whole, options).run();
  {
    HeadsFolderRun first(parts, options);
    first.trainer_options.steps = 5;
    first.run();
  }
  HeadsFolderRun rest(parts, options);
  rest.run();
  CHECK(rest.resumed_at == 5);
  const train::Checkpoint saved = checkpoint_at(whole, 8);
  CHECK(same_bits(saved, checkpoint_at(parts, 8)));
  CHECK(names_of(saved.sections.at("model")) ==
        "head_1.bias head_1.weight head_2.bias head_2.weight");
  CHECK_THAT(saved.values.at("frozen_weights"), Contains(kTrunkWeight));
}

}  // namespace

TEST_CASE("a checkpoint holds what can change: trained weights and buffers", "[train][frozen]") {
  PartsRun run;
  run.freeze({"b", "c"});
  train::FrozenWeights frozen(run.model, run.optimizer);
  CHECK(names_of(frozen.state()) == "mean z.weight");
  CHECK(frozen.fingerprints().find("\"b.weight\":") != std::string::npos);
  CHECK(frozen.fingerprints().find("\"z.weight\":") == std::string::npos);
}

TEST_CASE("nothing frozen leaves no fingerprints", "[train][frozen]") {
  PartsRun run;
  train::FrozenWeights frozen(run.model, run.optimizer);
  CHECK(names_of(frozen.state()) == "b.weight c.weight mean z.weight");
  CHECK(frozen.fingerprints().empty());
}

TEST_CASE("a weight that is frozen during the run is saved all the same", "[train][frozen]") {
  PartsRun run;
  run.freeze({"c"});
  train::FrozenWeights frozen(run.model, run.optimizer);
  run.freeze({"z", "b"});  // of the optimizer's, and one that only could have been trained
  CHECK(names_of(frozen.state()) == "b.weight mean z.weight");
  CHECK(frozen.fingerprints().find("b.weight") == std::string::npos);
}

TEST_CASE("a weight that gets trainable during the run is saved from then on", "[train][frozen]") {
  PartsRun run;
  run.freeze({"b", "c"});
  train::FrozenWeights frozen(run.model, run.optimizer);
  const std::string before = frozen.fingerprints();
  run.model.layers.at("b")->set_trainable(true);
  CHECK(names_of(frozen.state()) == "b.weight mean z.weight");
  run.freeze({"b"});
  CHECK(names_of(frozen.state()) == "b.weight mean z.weight");
  const std::string after = frozen.fingerprints();
  CHECK(after != before);
  CHECK(after.find("c.weight") != std::string::npos);
  CHECK(after.find("b.weight") == std::string::npos);
}

TEST_CASE("frozen weights are read once", "[train][frozen]") {
  PartsRun run;
  run.freeze({"b", "c"});
  train::FrozenWeights frozen(run.model, run.optimizer);
  const std::string before = frozen.fingerprints();
  run.model.set("b", 7);  // a fault of the program: the run began with others
  CHECK(frozen.fingerprints() == before);
  CHECK(train::FrozenWeights(run.model, run.optimizer).fingerprints() != before);
}

TEST_CASE("a checkpoint goes into the model that has its frozen weights", "[train][frozen]") {
  PartsRun saved, other;
  for (PartsRun* run : {&saved, &other}) run->freeze({"b", "c"});
  saved.model.set("z", 2);
  train::FrozenWeights from(saved.model, saved.optimizer), to(other.model, other.optimizer);
  to.load(from.state(), from.fingerprints());
  CHECK(other.model.get("z") == 2);
  CHECK(other.model.get("b") == 0.5);
  CHECK(names_of(to.state()) == "mean z.weight");
  CHECK(to.fingerprints() == from.fingerprints());
}

TEST_CASE("another frozen weight is refused by name, the first in module order",
          "[train][frozen]") {
  PartsRun saved;
  saved.freeze({"b", "c"});
  saved.model.set("z", 2);
  train::FrozenWeights from(saved.model, saved.optimizer);
  const auto refuses = [&](PartsRun& other, const char* name) {
    INFO(name);
    const double before = other.model.get("z");
    CHECK_THROWS_WITH(
        train::FrozenWeights(other.model, other.optimizer).load(from.state(), from.fingerprints()),
        Contains(concat("frozen weight ", name, ".weight is not the one")));
    CHECK(other.model.get("z") == before);
  };
  {
    PartsRun values;
    values.freeze({"b", "c"});
    values.model.set("c", 0.25);
    refuses(values, "c");
    values.model.set("b", 0.25);
    refuses(values, "b");
  }
  {
    PartsRun dtype;
    dtype.freeze({"b", "c"});
    dtype.model.layers.at("b")->set_compute_dtype(DType::f16, /*with_master=*/false);
    refuses(dtype, "b");
  }
  {
    // The values count also where they could be trained now.
    PartsRun trainable;
    trainable.model.set("b", 0.25);
    refuses(trainable, "b");
  }
  // Of another shape, and of another name.
  const std::string prints = from.fingerprints();
  PartsRun other;
  other.freeze({"b", "c"});
  train::FrozenWeights to(other.model, other.optimizer);
  std::string renamed = prints;
  renamed.replace(renamed.find("c.weight"), 1, "q");
  CHECK_THROWS_WITH(to.load(from.state(), renamed),
                    Contains("frozen weight q.weight of the run is not in this model"));
  CHECK_THROWS_WITH(to.load(from.state(), "{"), Contains("fingerprints of frozen weights"));
  // Neither in the state nor among the fingerprints.
  CHECK_THROWS_WITH(to.load(from.state(), ""),
                    Contains("does not fit the model") && Contains("b.weight, c.weight"));
  CHECK(train::checksum_of(Array::full({2, 3}, 1, DType::f32)) !=
        train::checksum_of(Array::full({3, 2}, 1, DType::f32)));
}

TEST_CASE("a checkpoint that holds everything loads, and stays complete", "[train][frozen]") {
  PartsRun run;
  run.freeze({"b", "c"});
  train::FrozenWeights frozen(run.model, run.optimizer);
  nn::StateDict everything;
  for (const auto& [name, array] : run.model.state()) everything[name] = array.clone();
  everything.at("b.weight").fill(9);
  frozen.load(everything, "");
  CHECK(run.model.get("b") == 9);
  // Another model than this one's would otherwise be needed at the next resume.
  CHECK(names_of(frozen.state()) == "b.weight c.weight mean z.weight");
  CHECK(frozen.fingerprints().empty());
}

TEST_CASE("heads behind a frozen trunk go on bit by bit from checkpoints without it",
          "[train][frozen][trainer]") {
  for (const char* preset : {"fp32", "fp16"}) {
    INFO(preset);
    check_resume({.preset = preset, .dropout = 0.2});
  }
}
TEST_CASE("heads behind a frozen trunk go on bit by bit on the GPU",
          "[train][frozen][trainer][cuda]") {
  require_gpu();
#if BINADE_HAVE_CUDA
  cuda::set_deterministic(true);
  check_resume({.preset = "fp16", .device = test_gpu()});
  cuda::set_deterministic(false);
#endif
}

TEST_CASE("a resume beside another trunk is refused", "[train][frozen][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  HeadsFolderRun(path).run();
  HeadsFolderRun other(path);
  std::vector<float> values = other.parameter(kTrunkWeight)->master().to_vector<float>();
  values[5] = std::nextafter(values[5], 1.0f);
  other.parameter(kTrunkWeight)
      ->assign(Array::from(values, other.parameter(kTrunkWeight)->shape()));
  CHECK_THROWS_WITH(other.run(), Contains(std::string("frozen weight ") + kTrunkWeight +
                                          " is not the one that the run began with"));
}

TEST_CASE("a weight that is frozen half-way through a run is in every checkpoint",
          "[train][frozen][trainer]") {
  const TemporaryFolder temporary;
  const fs::path path = temporary.path() / "a";
  HeadsFolderRun run(path);
  run.trainer_options.checkpoint_every = 2;
  run.trainer_options.keep_checkpoints = 9;
  run.task.data = [&](int64_t step) {
    if (step == 4) run.parameter("head_1.weight")->set_trainable(false);
    return two_heads_batch(step, 8, 2);
  };
  run.run();
  const auto weight = [&](int64_t step) {
    return checkpoint_at(path, step).sections.at("model").at("head_1.weight").to_vector<float>();
  };
  CHECK(weight(2) != weight(4));
  CHECK(weight(4) == weight(8));
}
