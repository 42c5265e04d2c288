// What optimizers keep: flat groups, skipped steps, state, averages, schedules.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <memory>
#include <numbers>
#include <type_traits>

#include <binade/optim/adamw.h>
#include <binade/optim/ema.h>
#include <binade/optim/lion.h>
#include <binade/optim/muon.h>
#include <binade/optim/schedule.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
using Groups = std::vector<optim::ParameterGroup>;

namespace {

// Parameters of mixed shapes and precisions.
struct Model : Parameters {
  Model() {
    matrix = put("matrix", filled(60, 0.3f), {6, 10});
    bias = put("bias", filled(7, -0.2f), {7});
    norm = put("norm", filled(5, 1), {5}, /*keep_full_precision=*/true);
    embedding = put("wte", filled(300, 0.1f), {30, 10});
    set_compute_dtype(DType::f16, /*with_master=*/true);
  }
  static std::vector<float> filled(int count, float first) {
    std::vector<float> values;
    for (int i = 0; i < count; ++i) values.push_back(first + 0.01f * static_cast<float>(i % 13));
    return values;
  }
  void give_gradients(int step) {
    for (const nn::NamedParameter& named : named_parameters()) {
      std::vector<float> g;
      for (int64_t i = 0; i < named.parameter->numel(); ++i)
        g.push_back(std::cos(static_cast<float>(i + 3 * step)));
      give_gradient(named.parameter, g);
    }
  }
  nn::ParameterPtr matrix, bias, norm, embedding;
};

std::vector<std::unique_ptr<optim::Optimizer>> all_optimizers(std::vector<Model>& models) {
  std::vector<std::unique_ptr<optim::Optimizer>> all;
  all.push_back(std::make_unique<optim::AdamW>(optim::split_by_decay(models[0], 0.1)));
  all.push_back(std::make_unique<optim::Sgd>(optim::split_by_decay(models[1], 0.1),
                                             optim::SgdOptions{.momentum = 0.9}));
  all.push_back(std::make_unique<optim::Lion>(optim::split_by_decay(models[2], 0.1)));
  all.push_back(std::make_unique<optim::Muon>(optim::split_by_decay(models[3], 0.1)));
  return all;
}

void take_step(Model& model, optim::Optimizer& optimizer, int step) {
  optimizer.zero_grad();
  model.give_gradients(step);
  optimizer.set_learning_rate(0.01);
  optimizer.step();
}

// Masters, moments and step count, copied.
nn::StateDict everything(const Model& model, const optim::Optimizer& optimizer) {
  nn::StateDict all;
  for (const auto& [name, array] : model.state()) all["model." + name] = array.clone();
  for (const auto& [name, array] : optimizer.state()) all[name] = array.clone();
  return all;
}

bool same_bits(const nn::StateDict& a, const nn::StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, array] : a) {
    const auto other = b.find(name);
    if (other == b.end() || other->second.to_vector<double>() != array.to_vector<double>())
      return false;
  }
  return true;
}

}  // namespace

TEST_CASE("parameters of a group lie in one buffer, with gaps that stay zero",
          "[optim][flat_group]") {
  std::vector<Model> models(4);
  const auto optimizers = all_optimizers(models);
  for (size_t k = 0; k < optimizers.size(); ++k) {
    for (int step = 0; step < 3; ++step) take_step(models[k], *optimizers[k], step);
    INFO(optimizers[k]->name());
    int64_t members = 0;
    for (const optim::FlatGroup& group : optimizers[k]->groups()) {
      const std::vector<float> value = group.value().to_vector<float>(),
                               master = group.master().to_vector<float>();
      std::vector<bool> inside(value.size());
      for (const optim::FlatGroup::Member& member : group.members()) {
        ++members;
        CHECK(member.offset % 128 == 0);
        for (int64_t i = 0; i < member.numel; ++i) {
          CHECK(!inside[static_cast<size_t>(member.offset + i)]);
          inside[static_cast<size_t>(member.offset + i)] = true;
        }
        const nn::Parameter& parameter = *member.parameter.parameter;
        CHECK(parameter.tensor().array().shares_storage(group.value()));
        CHECK(parameter.master().shares_storage(group.master()));
        CHECK(parameter.tensor().to_vector<float>() ==
              parameter.master().to(parameter.tensor().dtype()).to_vector<float>());
      }
      for (size_t i = 0; i < value.size(); ++i)
        if (!inside[i]) CHECK((value[i] == 0 && master[i] == 0));
    }
    CHECK(members == 4);
    CHECK(models[k].norm->tensor().dtype() == DType::f32);
  }
}

TEST_CASE("tied, frozen and foreign parameters", "[optim][flat_group]") {
  Parameters model;
  const auto a = model.put<float>("a", {1, 2}, {1, 2});
  const auto frozen = model.put<float>("frozen", {3}, {1});
  const auto b = model.put<float>("b", {4}, {1});
  model.tie("a_again", a);
  frozen->set_trainable(false);
  const Groups groups = optim::split_by_decay(model, 0.5);
  REQUIRE(groups.size() == 2);
  REQUIRE(groups[0].parameters.size() == 1);
  CHECK(groups[0].parameters[0].name == "a");
  CHECK(groups[0].weight_decay == 0.5);
  REQUIRE(groups[1].parameters.size() == 1);
  CHECK(groups[1].parameters[0].name == "b");
  CHECK(groups[1].weight_decay == 0);

  optim::Sgd sgd(groups);
  sgd.set_learning_rate(1);
  give_gradient<float>(a, {1, 1});
  give_gradient<float>(a, {1, 1});  // the second use of a tied weight
  sgd.step();
  CHECK(a->tensor().to_vector<float>() == std::vector<float>{-1.5f, -1});
  CHECK(b->tensor().item() == 4);  // no gradient reached it
  CHECK(frozen->tensor().item() == 3);

  const auto named = model.named_parameters();
  CHECK_THROWS_WITH(optim::Sgd(Groups{{named, 1, 0}}), Contains("frozen"));
  CHECK_THROWS_WITH(optim::Sgd(Groups{{{named[0]}, 1, 0}, {{named[0]}, 1, 0}}),
                    Contains("a is in two groups"));
  CHECK_THROWS_WITH(optim::Sgd(Groups{}), Contains("no trainable parameters"));
}

TEST_CASE("a skipped step advances nothing", "[optim]") {
  std::vector<Model> models(4);
  const auto optimizers = all_optimizers(models);
  const Array one = Array::full({}, 1, DType::f32), nan = Array::full({}, NAN, DType::f32);
  for (size_t k = 0; k < optimizers.size(); ++k) {
    INFO(optimizers[k]->name());
    take_step(models[k], *optimizers[k], 0);
    const nn::StateDict before = everything(models[k], *optimizers[k]);
    optimizers[k]->zero_grad();
    models[k].give_gradients(1);
    optimizers[k]->update(nan, /*found_inf=*/one);
    CHECK(same_bits(before, everything(models[k], *optimizers[k])));
    CHECK(optimizers[k]->steps_done() == 1);
    take_step(models[k], *optimizers[k], 1);
    CHECK(!same_bits(before, everything(models[k], *optimizers[k])));
    CHECK(optimizers[k]->steps_done() == 2);
  }
}

TEST_CASE("micro-batches accumulate in f32", "[optim]") {
  Parameters model;
  const auto weight = model.put<float>("weight", {0}, {1});
  model.set_compute_dtype(DType::f16, true);
  optim::Sgd sgd(model.group());
  sgd.set_learning_rate(1);
  // In f16 2048 + 1 is 2048.
  for (const float gradient : {2048.0f, 1.0f, 1.0f, 1.0f}) {
    give_gradient<float>(weight, {gradient});
    sgd.accumulate();
  }
  CHECK(sgd.gradient(sgd.groups()[0]).dtype() == DType::f32);
  sgd.step();
  CHECK(weight->master().item() == -2051);
  sgd.zero_grad();  // ends the sum
  give_gradient<float>(weight, {1});
  sgd.step();
  CHECK(weight->master().item() == -2052);
}

TEST_CASE("a backward after accumulate() belongs to the sum", "[optim]") {
  Parameters model;
  const auto weight = model.put<float>("weight", {0}, {1});
  const auto other = model.put<float>("other", {0}, {1});
  optim::Sgd sgd(model.group());
  sgd.set_learning_rate(1);
  give_gradient<float>(weight, {2});
  sgd.accumulate();
  give_gradient<float>(weight, {3});
  give_gradient<float>(weight, {4});
  give_gradient<float>(other, {5});
  sgd.step();
  CHECK(weight->tensor().item() == -9);
  CHECK(other->tensor().item() == -5);
  sgd.step();  // the sum stands until zero_grad(), as a gradient does
  CHECK(weight->tensor().item() == -18);
}

TEST_CASE("a parameter without elements trains beside others, and alone", "[optim]") {
  Parameters model, alone;
  model.put<float>("none", {}, {0, 3});
  const auto weight = model.put<float>("weight", {1}, {1, 1});
  const auto empty = alone.put<float>("none", {}, {0});
  optim::AdamW adamw(optim::split_by_decay(model, 0));
  adamw.set_learning_rate(0.5);
  give_gradient<float>(weight, {1});
  adamw.step();
  CHECK(weight->tensor().item() == Approx(0.5));
  optim::AdamW lonely(alone.group());
  lonely.set_learning_rate(1);
  give_gradient<float>(empty, {});
  lonely.step();
  CHECK(lonely.steps_done() == 1);
}

TEST_CASE("an optimizer goes on from its saved state bit by bit", "[optim]") {
  std::vector<Model> models(4), others(4);
  const auto optimizers = all_optimizers(models), restored = all_optimizers(others);
  for (size_t k = 0; k < optimizers.size(); ++k) {
    INFO(optimizers[k]->name());
    for (int step = 0; step < 5; ++step) take_step(models[k], *optimizers[k], step);
    others[k].load_state(models[k].state());
    restored[k]->load_state(optimizers[k]->state());
    CHECK(restored[k]->steps_done() == 5);
    for (int step = 5; step < 10; ++step) {
      take_step(models[k], *optimizers[k], step);
      take_step(others[k], *restored[k], step);
    }
    CHECK(same_bits(everything(models[k], *optimizers[k]), everything(others[k], *restored[k])));

    const nn::StateDict before = everything(others[k], *restored[k]);
    nn::StateDict state = optimizers[k]->state();
    const std::string first = state.begin()->first;
    state.erase(first);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains(first));
    state[first] = Array::zeros({1, 2, 3}, DType::f32);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains(first) && Contains("shape"));
    state = optimizers[k]->state();
    state["stranger"] = Array::zeros({1}, DType::f32);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains("another optimizer or model"));
    // Numbers that no optimizer has written.
    for (const double wrong : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      state = optimizers[k]->state();
      state[first] = state[first].clone();
      state[first].view({state[first].numel()}).slice(0, 1, 2).fill(wrong);
      CHECK_THROWS_WITH(restored[k]->load_state(state), Contains(first) && Contains("not finite"));
    }
    state = optimizers[k]->state();
    state[first] = state[first].to(DType::i32);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains(first) && Contains("i32"));
    state[first] = Array();
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains(first));
    state = optimizers[k]->state();
    state["step"] = Array::full({}, -1, DType::i64);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains("negative step"));
    state["step"] = Array::full({}, 3, DType::f32);
    CHECK_THROWS_WITH(restored[k]->load_state(state), Contains("step") && Contains("f32"));
    CHECK(same_bits(before, everything(others[k], *restored[k])));
  }
}

TEST_CASE("EMA follows its formula, and swaps", "[optim][ema]") {
  Model model;
  optim::AdamW adamw(optim::split_by_decay(model, 0.1));
  const double decay = 0.9;
  optim::Ema ema(adamw, decay);
  std::vector<double> expected = model.matrix->master().to_vector<double>();
  const Array good = Array::zeros({}, DType::f32), bad = Array::full({}, 1, DType::f32);
  for (int step = 0; step < 20; ++step) {
    take_step(model, adamw, step);
    ema.update(step == 7 ? bad : good);
    if (step == 7) continue;
    const std::vector<double> master = model.matrix->master().to_vector<double>();
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] = decay * expected[i] + (1 - decay) * master[i];
  }
  const std::vector<double> average = ema.state().at("matrix").to_vector<double>();
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(average[i] == Approx(expected[i]).epsilon(1e-5));

  const nn::StateDict before = everything(model, adamw);
  const std::vector<float> value = model.matrix->tensor().to_vector<float>();
  ema.swap();
  CHECK(model.matrix->master().to_vector<double>() == average);
  CHECK(model.matrix->tensor().to_vector<double>() ==
        model.matrix->master().to(DType::f16).to_vector<double>());
  CHECK(model.norm->tensor().to_vector<float>() == model.norm->master().to_vector<float>());
  CHECK(!same_bits(before, everything(model, adamw)));
  ema.swap();
  CHECK(same_bits(before, everything(model, adamw)));
  CHECK(model.matrix->tensor().to_vector<float>() == value);
  CHECK(ema.state().at("matrix").to_vector<double>() == average);

  optim::Ema other(adamw, decay);
  CHECK(other.state().at("matrix").to_vector<double>() != average);
  other.load_state(ema.state());
  CHECK(other.state().at("matrix").to_vector<double>() == average);
  nn::StateDict state = ema.state();
  state.erase("bias");
  CHECK_THROWS_WITH(other.load_state(state), Contains("bias"));
  state["bias"] = Array::full({7}, NAN, DType::f32);
  CHECK_THROWS_WITH(other.load_state(state), Contains("bias") && Contains("not finite"));
  state["bias"] = Array::zeros({7}, DType::i64);
  CHECK_THROWS_WITH(other.load_state(state), Contains("bias") && Contains("i64"));
  state = ema.state();
  state["stranger"] = Array::zeros({1}, DType::f32);
  CHECK_THROWS_WITH(other.load_state(state), Contains("another optimizer or model"));
  CHECK(other.state().at("matrix").to_vector<double>() == average);
  CHECK_THROWS_AS(optim::Ema(adamw, 0), Error);
  CHECK_THROWS_AS(optim::Ema(adamw, 1), Error);
}

TEST_CASE("the decay of EMA may grow with the updates", "[optim][ema]") {
  using Kind = optim::EmaDecay::Kind;
  struct Case {
    optim::EmaDecay decay;
    std::function<double(double)> after;  // the decay after so many updates
  };
  const std::vector<Case> cases = {
      {{.decay = 0.4, .kind = Kind::ratio}, [](double n) { return (1 + n) / (10 + n); }},
      {{.decay = 0.8, .kind = Kind::power},
       [](double n) { return 1 - 1 / std::cbrt((1 + n) * (1 + n)); }},
      {{.decay = 0.7, .kind = Kind::power, .exponent = 0.75},
       [](double n) { return 1 - std::pow(1 + n, -0.75); }}};
  for (const Case& one : cases) {
    Model model;
    optim::AdamW adamw(optim::split_by_decay(model, 0.1));
    optim::Ema ema(adamw, one.decay);
    std::vector<double> expected = model.matrix->master().to_vector<double>();
    bool grew = false, reached = false;
    for (int step = 0; step < 12; ++step) {
      take_step(model, adamw, step);
      ema.update();
      const double decay = std::min(one.decay.decay, one.after(step));
      (decay < one.decay.decay ? grew : reached) = true;
      const std::vector<double> master = model.matrix->master().to_vector<double>();
      for (size_t i = 0; i < expected.size(); ++i)
        expected[i] = decay * expected[i] + (1 - decay) * master[i];
    }
    CHECK((grew && reached));  // both sides of the minimum
    const std::vector<double> average = ema.state().at("matrix").to_vector<double>();
    for (size_t i = 0; i < expected.size(); ++i)
      CHECK(average[i] == Approx(expected[i]).epsilon(1e-5));
  }
  Model model;
  optim::AdamW adamw(optim::split_by_decay(model, 0.1));
  CHECK_THROWS_WITH(optim::Ema(adamw, {.decay = 0.9, .kind = Kind::power, .exponent = 0}),
                    Contains("exponent above 0") && Contains("0"));
}

TEST_CASE("one line makes an optimizer of a whole module", "[optim]") {
  struct Pair {
    const char* name;
    std::function<std::unique_ptr<optim::Optimizer>(const Model&)> whole, grouped;
  };
  const optim::WholeModule how{.learning_rate = 0.01, .weight_decay = 0.3};
  const auto pair = [&](const char* name, auto tag, const auto& options) {
    using Kind = typename decltype(tag)::type;
    return Pair{name,
                [=](const Model& model) { return std::make_unique<Kind>(model, how, options); },
                [=](const Model& model) {
                  std::vector<optim::ParameterGroup> group = {{{}, 1, 0.3}};
                  group[0].parameters = model.named_parameters();
                  auto optimizer = std::make_unique<Kind>(group, options);
                  optimizer->set_learning_rate(0.01);
                  return optimizer;
                }};
  };
  const std::vector<Pair> pairs = {
      pair("adamw", std::type_identity<optim::AdamW>(), optim::AdamWOptions{.beta1 = 0.5}),
      pair("sgd", std::type_identity<optim::Sgd>(), optim::SgdOptions{.momentum = 0.9}),
      pair("lion", std::type_identity<optim::Lion>(), optim::LionOptions{.beta2 = 0.9}),
      pair("muon", std::type_identity<optim::Muon>(), optim::MuonOptions{.momentum = 0.9})};
  for (const Pair& one : pairs) {
    CAPTURE(one.name);
    Model a, b;
    const auto whole = one.whole(a), grouped = one.grouped(b);
    CHECK(whole->learning_rate() == 0.01);
    for (int step = 0; step < 3; ++step) {
      take_step(a, *whole, step);
      take_step(b, *grouped, step);
    }
    CHECK(same_bits(everything(a, *whole), everything(b, *grouped)));
  }

  Model model;
  model.bias->set_trainable(false);
  optim::Sgd sgd(model, {.weight_decay = 0.5});
  for (const optim::FlatGroup& group : sgd.groups()) {
    CHECK(group.weight_decay() == 0.5);
    for (const auto& member : group.members()) CHECK(member.parameter.name != "bias");
  }
  CHECK_THROWS_WITH(sgd.check_ready(), Contains("learning rate"));
  CHECK_THROWS_WITH(optim::Lion(Model(), {.learning_rate = -1}), Contains("learning rate"));
}

TEST_CASE("EMA averages statistics beside the weights", "[optim][ema]") {
  Model model;
  optim::AdamW adamw(optim::split_by_decay(model, 0.1));
  const Tensor mean(Array::from(std::vector<float>{1, -2}, {2})),
      count(Array::from(std::vector<int64_t>{3}, {1}));
  optim::Ema ema(adamw, 0.75, {{"norm.running_mean", mean}, {"norm.count", count}});
  CHECK(ema.state().count("norm.count") == 0);  // not a number to average
  const Array good = Array::zeros({}, DType::f32), bad = Array::full({}, 1, DType::f32);
  const auto average = [&] { return ema.state().at("norm.running_mean").to_vector<double>(); };
  CHECK(average() == std::vector<double>{1, -2});
  mean.array().copy_from(Array::from(std::vector<float>{5, 2}, {2}));
  ema.update(bad);
  CHECK(average() == std::vector<double>{1, -2});
  ema.update(good);
  CHECK(average() == std::vector<double>{2, -1});
  {
    const optim::Ema::Scope scope(ema);
    CHECK(mean.to_vector<double>() == std::vector<double>{2, -1});
    CHECK(average() == std::vector<double>{2, -1});
  }
  CHECK(mean.to_vector<double>() == std::vector<double>{5, 2});
  optim::Ema other(adamw, 0.75, {{"norm.running_mean", mean}});
  other.load_state(ema.state());
  CHECK(other.state().at("norm.running_mean").to_vector<double>() == std::vector<double>{2, -1});
  optim::Ema without(adamw, 0.75);  // a checkpoint of before they were averaged
  CHECK_THROWS_WITH(other.load_state(without.state()), Contains("norm.running_mean"));
}

TEST_CASE("after a scope of averages the model has its own bits again", "[optim][ema]") {
  for (const bool masters : {true, false}) {
    INFO("masters " << masters);
    Model model;
    if (!masters) model.set_compute_dtype(DType::f16, false);
    optim::AdamW adamw(optim::split_by_decay(model, 0.1));
    optim::Ema ema(adamw, 0.9);
    for (int step = 0; step < 5; ++step) {
      take_step(model, adamw, step);
      ema.update(Array::zeros({}, DType::f32));
    }
    const auto bits = [&] {
      nn::StateDict all = everything(model, adamw);
      for (const nn::NamedParameter& named : model.named_parameters())
        all["copy." + named.name] = named.parameter->tensor().array().clone();
      for (const auto& [name, array] : ema.state()) all["average." + name] = array.clone();
      return all;
    };
    const nn::StateDict before = bits();
    const auto looks = [&] {
      const optim::Ema::Scope scope(ema);
      // The averages, rounded where the weights are half.
      const Array average = before.at("average.matrix");
      CHECK(model.matrix->master().to_vector<double>() ==
            average.to(model.matrix->master().dtype()).to_vector<double>());
      CHECK(model.matrix->tensor().to_vector<double>() ==
            average.to(DType::f16).to_vector<double>());
      CHECK(ema.state().at("matrix").to_vector<double>() == average.to_vector<double>());
      throw Error("validation failed");
    };
    CHECK_THROWS_WITH(looks(), Contains("validation failed"));
    CHECK(same_bits(before, bits()));
    ema.swap();
    ema.swap();
    CHECK(same_bits(before, bits()));
  }
}

TEST_CASE("learning-rate schedules", "[optim][schedule]") {
  using Kind = optim::Schedule::Kind;
  optim::Schedule schedule{.kind = Kind::cosine,
                           .learning_rate = 0.5,
                           .warmup = 10,
                           .total = 111,
                           .decay = 21,
                           .final_factor = 0.2};
  for (const Kind kind : {Kind::constant, Kind::linear, Kind::cosine, Kind::wsd}) {
    schedule.kind = kind;
    for (int step = 0; step < 10; ++step)
      CHECK(schedule.at(step) == Approx(0.05 * (step + 1)));  // reaches the rate at its end
    CHECK(schedule.at(10) == Approx(0.5));
  }
  schedule.kind = Kind::constant;
  CHECK(schedule.at(100000) == 0.5);

  // The decay runs from step 10 to the last step, 110.
  schedule.kind = Kind::linear;
  CHECK(schedule.at(35) == Approx(0.5 - 0.4 * 0.25));
  CHECK(schedule.at(110) == Approx(0.1));
  CHECK(schedule.at(5000) == Approx(0.1));

  schedule.kind = Kind::cosine;
  CHECK(schedule.at(60) == Approx(0.3));
  CHECK(schedule.at(35) == Approx(0.1 + 0.4 * (1 + std::numbers::sqrt2 / 2) / 2));
  CHECK(schedule.at(110) == Approx(0.1));
  for (int step = 10; step < 110; ++step) CHECK(schedule.at(step + 1) < schedule.at(step));

  schedule.kind = Kind::wsd;
  CHECK(schedule.at(89) == 0.5);
  CHECK(schedule.at(90) == Approx(0.5));
  CHECK(schedule.at(100) == Approx(0.3));
  CHECK(schedule.at(110) == Approx(0.1));

  schedule.warmup = 0;
  schedule.kind = Kind::cosine;
  CHECK(schedule.at(0) == 0.5);

  CHECK(optim::Schedule::parse_kind("wsd") == Kind::wsd);
  CHECK_THROWS_WITH(optim::Schedule::parse_kind("step"), Contains("cosine"));
}
