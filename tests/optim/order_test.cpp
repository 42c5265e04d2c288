// What may happen to a model's parameters after an optimizer was made, in every order: each either
// works as if it had happened before, or throws Error that names the parameter. Nothing trains
// nothing silently.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include <binade/amp/preset.h>
#include <binade/nn/linear.h>
#include <binade/nn/lora.h>
#include <binade/optim/adamw.h>
#include <binade/optim/ema.h>
#include <binade/optim/lion.h>
#include <binade/optim/muon.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"
#include "skip.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

// Two layers, of which the first may be taken out, and a norm-like vector.
struct Model : nn::Module {
  Model()
      : fc(add<nn::Linear>("fc", 4, 4)),
        q_proj(add<nn::Linear>("q_proj", 4, 4)),
        norm(add_parameter("norm", Array::full({4}, 1, DType::f32), /*keep_full_precision=*/true)) {
  }
  void take_out_fc() { remove_child("fc"); }
  void give_gradients() {
    for (const nn::NamedParameter& named : named_parameters())
      if (named.parameter->trainable())
        give_gradient(named.parameter,
                      std::vector<float>(static_cast<size_t>(named.parameter->numel()), 0.5f));
  }
  std::shared_ptr<nn::Linear> fc, q_proj;
  nn::ParameterPtr norm;
};

using Values = std::map<std::string, std::vector<double>>;
Values values_of(const nn::Module& model) {
  Values values;
  for (const auto& [name, array] : model.state()) values[name] = array.to_vector<double>();
  return values;
}

// A model with an optimizer that has made a step, with weight decay, and its averages.
struct Run {
  explicit Run(const char* preset) : preset(amp::Preset::parse(preset)) {
    this->preset.apply(model);
    make();
    step();
  }
  void make() {
    adamw = std::make_unique<optim::AdamW>(optim::split_by_decay(model, 0.1));
    adamw->set_learning_rate(0.01);
    ema = std::make_unique<optim::Ema>(*adamw, 0.5);
  }
  void step() {
    adamw->zero_grad();
    model.give_gradients();
    adamw->step();
    ema->update(Array::zeros({}, DType::f32, adamw->device()));
  }
  amp::Preset preset;
  Model model;
  std::unique_ptr<optim::AdamW> adamw;
  std::unique_ptr<optim::Ema> ema;
};

// An action, and what a step after it has to do: "" trains every trainable parameter and leaves the
// others exactly alone; otherwise the action or the step throws Error with this text.
struct Action {
  const char* name;
  std::function<void(Run&)> act;
  std::string error;
  std::string parameter = "";  // that the error names, of a model whose parameters all train
};

// Trains or throws; what is frozen must not move in either case.
void check_action(Run& run, const Action& action, const Action* before = nullptr) {
  INFO(action.name);
  if (before) INFO("after " << before->name);
  std::string error;
  Values was;
  try {
    action.act(run);
    was = values_of(run.model);
    run.step();
  } catch (const Error& thrown) {
    error = thrown.what();
  }
  INFO("error: " << error);
  if (!action.error.empty()) {
    CHECK_THAT(error, Contains(action.error));
    if (!before && !action.parameter.empty())
      CHECK_THAT(error, Contains("parameter " + action.parameter));
    return;
  }
  CHECK(error.empty());
  for (const nn::NamedParameter& named : run.model.named_parameters()) {
    INFO(named.name);
    const std::vector<double> now = named.parameter->master().to_vector<double>();
    CHECK((now != was.at(named.name)) == named.parameter->trainable());
    // The compute copy follows.
    CHECK(named.parameter->tensor().to_vector<double>() ==
          named.parameter->master().to(named.parameter->tensor().dtype()).to_vector<double>());
  }
}

std::vector<Action> actions() {
  return {
      {"nothing", [](Run&) {}, ""},
      {"the same preset again", [](Run& run) { run.preset.apply(run.model); }, ""},
      {"another preset",
       [](Run& run) {
         amp::Preset::parse(run.preset.name == "bf16" ? "fp16" : "bf16").apply(run.model);
       },
       "belongs to an optimizer", "fc.weight"},
      {"to the same device", [](Run& run) { run.model.to(Device::cpu()); }, ""},
      {"frozen in part", [](Run& run) { run.model.fc->set_trainable(false); }, ""},
      {"frozen and back",
       [](Run& run) {
         run.model.set_trainable(false);
         run.model.set_trainable(true);
       },
       ""},
      {"frozen after its gradient came",
       [](Run& run) {
         run.model.give_gradients();
         run.model.fc->set_trainable(false);
       },
       ""},
      {"frozen altogether", [](Run& run) { run.model.set_trainable(false); }, "is frozen"},
      {"frozen, then the same preset",
       [](Run& run) {
         run.model.fc->set_trainable(false);
         run.preset.apply(run.model);
       },
       ""},
      {"model state loaded",
       [](Run& run) {
         Model other;
         run.model.load_state(other.state());
       },
       ""},
      {"optimizer state loaded",
       [](Run& run) {
         nn::StateDict state;
         for (const auto& [name, array] : run.adamw->state()) state[name] = array.clone();
         run.adamw->load_state(state);
       },
       ""},
      {"a second optimizer",
       [](Run& run) { optim::Sgd second(optim::split_by_decay(run.model, 0)); },
       "belongs to an optimizer", "fc.weight"},
      {"a second optimizer for what is tied",
       [](Run& run) {
         Parameters other;
         other.tie("shared", run.model.norm);
         optim::Sgd second(other.group());
       },
       "belongs to an optimizer", "norm"},
      {"a second optimizer after the first",
       [](Run& run) {
         run.ema.reset();
         run.adamw.reset();
         run.make();
       },
       ""},
      {"another preset after the first optimizer is gone",
       [](Run& run) {
         run.ema.reset();
         run.adamw.reset();
         run.preset = amp::Preset::parse("fp16");
         run.preset.apply(run.model);
         run.make();
       },
       ""},
      {"the optimizer destroyed before its averages",
       [](Run& run) {
         run.adamw.reset();
         run.ema->swap();
       },
       "EMA: the optimizer whose parameters it follows is gone"},
      {"averages used and given back", [](Run& run) { const optim::Ema::Scope scope(*run.ema); },
       ""},
      {"a step with the averages", [](Run& run) { run.ema->swap(); }, "computes with its averages"},
      {"the averages updated while in use",
       [](Run& run) {
         const optim::Ema::Scope scope(*run.ema);
         run.ema->update(Array::zeros({}, DType::f32));
       },
       "the averages are in use"},
      {"two scopes",
       [](Run& run) {
         const optim::Ema::Scope scope(*run.ema);
         const optim::Ema::Scope again(*run.ema);
       },
       "in use already"},
      {"other averages during a scope",
       [](Run& run) {
         const optim::Ema::Scope scope(*run.ema);
         const optim::Ema other(*run.adamw, 0.9);
       },
       "other averages"},
      {"LoRA's adapters",
       [](Run& run) { const nn::Lora lora(run.model, {.target_modules = {"q_proj"}}); },
       "belongs to an optimizer", "norm"},
      {"a layer taken out", [](Run& run) { run.model.take_out_fc(); }, "is no longer the model's",
       "fc.weight"},
  };
}

}  // namespace

TEST_CASE("after an optimizer was made every change of its parameters trains rightly or throws",
          "[optim][order]") {
  for (const char* preset : {"fp32", "fp16", "bf16", "fp16-no-masters"}) {
    INFO(preset);
    for (const Action& action : actions()) {
      Run run(preset);
      check_action(run, action);
      // And after another change that was taken well.
      for (const Action& before : actions()) {
        if (!before.error.empty()) continue;
        Run twice(preset);
        before.act(twice);
        check_action(twice, action, &before);
      }
    }
  }
}

TEST_CASE("a model whose parameters an optimizer holds does not move to another device",
          "[optim][order][cuda]") {
  if (cuda_device_count() == 0) skip(cuda_unavailable_reason());
  Run run("fp16");
  CHECK_THROWS_WITH(run.model.to(Device::cuda()), Contains("belongs to an optimizer"));
  for (const nn::NamedParameter& named : run.model.named_parameters())
    CHECK(named.parameter->tensor().device().is_cpu());
  run.step();
  run.ema.reset();
  run.adamw.reset();
  run.model.to(Device::cuda());
  run.make();
  check_action(run, {"moved first", [](Run&) {}, ""});
}

TEST_CASE("a refused change of dtype changes no parameter", "[optim][order]") {
  Model model;
  Parameters part;
  part.tie("q", model.q_proj->weight());
  const optim::Sgd sgd(part.group());
  CHECK_THROWS_WITH(amp::Preset::parse("fp16").apply(model), Contains("parameter q belongs"));
  for (const nn::NamedParameter& named : model.named_parameters())
    CHECK(named.parameter->tensor().dtype() == DType::f32);
}

TEST_CASE("what gets trainable under a half preset has a master", "[optim][order]") {
  Model model;
  model.set_trainable(false);
  amp::Preset::parse("fp16").apply(model);
  CHECK(!model.fc->weight()->has_master());
  model.set_trainable(true);
  CHECK(model.fc->weight()->has_master());
  CHECK(model.fc->weight()->master().dtype() == DType::f32);

  Model without;
  without.set_trainable(false);
  amp::Preset::parse("fp16-no-masters").apply(without);
  without.set_trainable(true);
  CHECK(!without.fc->weight()->has_master());
}

TEST_CASE("every optimizer leaves frozen members exactly alone", "[optim][order]") {
  for (int kind = 0; kind < 4; ++kind)
    for (const char* preset : {"fp32", "fp16", "fp16-no-masters"}) {
      INFO("kind " << kind << ", " << preset);
      Model model;
      amp::Preset::parse(preset).apply(model);
      const auto groups = optim::split_by_decay(model, 0.5);
      std::unique_ptr<optim::Optimizer> optimizer;
      if (kind == 0) optimizer = std::make_unique<optim::AdamW>(groups);
      if (kind == 1)
        optimizer = std::make_unique<optim::Sgd>(groups, optim::SgdOptions{.momentum = 0.9});
      if (kind == 2) optimizer = std::make_unique<optim::Lion>(groups);
      if (kind == 3) optimizer = std::make_unique<optim::Muon>(groups);
      optimizer->set_learning_rate(0.1);
      const auto everything = [&] {
        Values values = values_of(model);
        for (const auto& [name, array] : optimizer->state())
          values["state." + name] = array.to_vector<double>();
        return values;
      };
      model.give_gradients();
      optimizer->step();
      const Values before = everything();
      // Also where gradients came before it was frozen, alone or in a sum.
      for (const bool accumulated : {false, true}) {
        optimizer->zero_grad();
        model.give_gradients();
        if (accumulated) optimizer->accumulate();
        model.fc->set_trainable(false);
        if (accumulated) model.give_gradients();
        optimizer->step();
        model.fc->set_trainable(true);
      }
      for (const auto& [name, values] : everything()) {
        INFO(name);
        if (kind == 3 && name.find("exp_avg_sq.q_proj.weight") != std::string::npos)
          continue;  // Muon has no use for it
        const bool frozen = name.find("fc.") != std::string::npos;
        CHECK((values == before.at(name)) == frozen);
      }
    }
}

TEST_CASE("a layer's adapter that was merged away ends its optimizer", "[optim][order][lora]") {
  Model model;
  nn::Lora lora(model, {.target_modules = {"q_proj"}});
  optim::Sgd sgd(optim::split_by_decay(model, 0));
  sgd.set_learning_rate(0.1);
  model.give_gradients();
  sgd.step();
  lora.merge();  // the optimizer may still be there
  CHECK_THROWS_WITH(sgd.step(), Contains("lora_A.weight") && Contains("'adapter'"));
}

TEST_CASE("a learning rate that was never set is an error, zero is not", "[optim]") {
  Model model;
  optim::AdamW adamw(optim::split_by_decay(model, 0.1));
  model.give_gradients();
  const Values before = values_of(model);
  CHECK_THROWS_WITH(adamw.step(), Contains("adamw") && Contains("set_learning_rate"));
  CHECK(adamw.steps_done() == 0);
  for (const double wrong : {-1.0, std::nan(""), HUGE_VAL})
    CHECK_THROWS_WITH(adamw.set_learning_rate(wrong), Contains("0 or more"));
  CHECK_THROWS_WITH(adamw.step(), Contains("set_learning_rate"));
  adamw.set_learning_rate(0);
  adamw.step();
  CHECK(adamw.steps_done() == 1);
  CHECK(values_of(model) == before);
}

TEST_CASE("a step without any gradient is an error", "[optim]") {
  Model model;
  optim::Sgd sgd(optim::split_by_decay(model, 0.1));
  sgd.set_learning_rate(1);
  CHECK_THROWS_WITH(sgd.step(), Contains("no gradient reached"));
  sgd.accumulate();
  CHECK_THROWS_WITH(sgd.step(), Contains("no gradient reached"));
  model.give_gradients();
  sgd.step();
  sgd.zero_grad();
  CHECK_THROWS_WITH(sgd.step(), Contains("no gradient reached"));
}

TEST_CASE("a module's state with integers for weights is refused by name", "[optim][order]") {
  Model model;
  const Values before = values_of(model);
  for (const bool strict : {true, false}) {
    nn::StateDict state;
    for (const auto& [name, array] : model.state())
      state[name] = Array::zeros(array.shape(), DType::f32);
    state["q_proj.weight"] = Array::zeros({4, 4}, DType::i64);
    CHECK_THROWS_WITH(model.load_state(state, strict),
                      Contains("kind of dtype") && Contains("q_proj.weight: i64 instead of f32"));
    CHECK(values_of(model) == before);
  }
}

TEST_CASE("a parameter keeps its hooks when its tensor is made anew", "[optim][order]") {
  Parameters model;
  const nn::ParameterPtr weight = model.put<float>("weight", {1}, {1});
  int kept = 0, removed = 0;
  weight->tensor().register_hook([&](const Array& gradient) {
    ++kept;
    return Array::full(gradient.shape(), 2, gradient.dtype());
  });
  const auto remove = weight->tensor().register_hook([&](const Array&) {
    ++removed;
    return Array();
  });
  model.set_compute_dtype(DType::f16, /*with_master=*/true);
  give_gradient<float>(weight, {1});
  CHECK(kept == 1);
  CHECK(removed == 1);
  {
    optim::Sgd sgd(model.group());
    sgd.set_learning_rate(1);
    remove();
    give_gradient<float>(weight, {1});
    CHECK(kept == 2);
    CHECK(removed == 1);
    sgd.step();
    CHECK(weight->master().item() == 1 - 2);
  }
  model.set_compute_dtype(DType::f32, /*with_master=*/true);
  give_gradient<float>(weight, {1});
  CHECK(kept == 3);
}

TEST_CASE("parameters that one optimizer could not tell apart are refused", "[optim][order]") {
  Parameters a, b;
  a.put<float>("weight", {1}, {1});
  b.put<float>("weight", {2}, {1});
  const std::vector<optim::ParameterGroup> groups = {a.group()[0], b.group()[0]};
  CHECK_THROWS_WITH(optim::AdamW(groups), Contains("two parameters") && Contains("named weight"));
  std::vector<optim::ParameterGroup> both = a.group();
  both[0].parameters.push_back(b.named_parameters()[0]);
  CHECK_THROWS_WITH(optim::AdamW(both), Contains("named weight"));
  both[0].parameters[1].name = "b.weight";
  const optim::AdamW told_apart(both);
  CHECK(told_apart.state().size() == 1 + 2 * 2);
  CHECK_THROWS_WITH(optim::Sgd({{{{"none", nullptr, 0}}, 1, 0}}),
                    Contains("none") && Contains("is null"));
}

TEST_CASE("no setting or saved state of an optimizer makes NaN of its weights", "[optim]") {
  const double infinity = HUGE_VAL, nan = std::nan("");
  Parameters model;
  model.put<float>("weight", {1, 2}, {2});
  const auto group = [&](double lr_factor, double weight_decay) {
    return std::vector<optim::ParameterGroup>{{model.named_parameters(), lr_factor, weight_decay}};
  };
  for (const double wrong : {-1.0, nan, infinity, 1e39}) {
    INFO(wrong);
    CHECK_THROWS_WITH(optim::Sgd(group(wrong, 0)), Contains("lr_factor") && Contains("0 or more"));
    CHECK_THROWS_WITH(optim::Lion(group(1, wrong)), Contains("weight_decay"));
    optim::Sgd sgd(model.group());
    CHECK_THROWS_WITH(sgd.set_learning_rate(wrong), Contains("0 or more"));
  }
  for (const double wrong : {nan, infinity})
    CHECK_THROWS_WITH(optim::Sgd(model.group(), {.momentum = 0.5, .dampening = wrong}),
                      Contains("dampening"));
  for (const double wrong : {0.0, -1.0, nan, infinity, 1e-60}) {
    INFO(wrong);
    CHECK_THROWS_WITH(optim::AdamW(model.group(), {.eps = wrong}), Contains("eps"));
    CHECK_THROWS_WITH(optim::Muon(model.group(), {.adamw = {.eps = wrong}}), Contains("eps"));
  }
  CHECK_THROWS_WITH(optim::Muon(model.group(), {.adamw = {.beta2 = 1}}), Contains("betas"));
  CHECK_THROWS_WITH(optim::Muon(model.group(), {.adamw_lr_factor = nan}), Contains("lr_factor"));

  optim::AdamW adamw(model.group());
  const auto with = [&](const char* name, const Array& values) {
    nn::StateDict state = adamw.state();
    state[name] = values;
    return state;
  };
  CHECK_THROWS_WITH(
      adamw.load_state(with("exp_avg_sq.weight", Array::from(std::vector<float>{0, -1}, {2}))),
      Contains("exp_avg_sq.weight") && Contains("below 0"));
  CHECK_THROWS_WITH(
      adamw.load_state(with("step", Array::from(std::vector<int64_t>{INT64_MAX}, {}))),
      Contains("step count"));
  adamw.load_state(with("exp_avg.weight", Array::from(std::vector<float>{0, -1}, {2})));
  adamw.set_learning_rate(0.1);
  give_gradient<float>(model.named_parameters()[0].parameter, {1, 1});
  adamw.step();
  for (const double value : model.named_parameters()[0].parameter->master().to_vector<double>())
    CHECK(std::isfinite(value));
}
