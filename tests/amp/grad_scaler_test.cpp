// GradScaler: the automaton, its contract, the pass over the gradients.
#include <binade/amp/grad_scaler.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include <binade/optim/sgd.h>

#include "gpu.h"
#include "optim/parameters.h"
#include "parsed_json.h"
#include "shared.h"

using namespace binade;
using namespace binade::test;
using amp::GradScaler;
using amp::GradScalerOptions;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One parameter of one element and its optimizer.
struct Scalar {
  explicit Scalar(Device device = {}) {
    weight = model.put<float>("weight", {1}, {1});
    model.to(device);
    sgd.emplace(model.group());
    sgd->set_learning_rate(1);
  }
  void give(float gradient) {
    sgd->zero_grad();
    give_gradient<float>(weight, {gradient});
  }
  Parameters model;
  nn::ParameterPtr weight;
  std::optional<optim::Sgd> sgd;
};

// One step with this gradient; the scale after it.
double step(GradScaler& scaler, Scalar& scalar, float gradient) {
  scalar.give(gradient);
  scaler.step(*scalar.sgd);
  scaler.update();
  return scaler.scale_scalar().item();
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

using Catch::Matchers::Contains;

void follow_trace(Device device) {
  const auto path = shared_path("fixtures/grad_scaler.json");
  if (!path) return;
  std::ifstream file(*path);
  for (const auto& trace : test::parsed(file)) {
    const auto& settings = trace.at("settings");
    GradScalerOptions options;
    options.init_scale = settings.value("init_scale", options.init_scale);
    options.growth_interval = settings.value("growth_interval", options.growth_interval);
    options.growth_factor = settings.value("growth_factor", options.growth_factor);
    options.backoff_factor = settings.value("backoff_factor", options.backoff_factor);
    options.min_scale = 0x1p-100;  // PyTorch has neither floor nor ceiling
    options.max_scale = 0x1p100;
    GradScaler scaler(device, options);
    Scalar scalar(device);
    const auto& found_inf = trace.at("found_inf");
    for (size_t i = 0; i < found_inf.size(); ++i) {
      INFO(settings << ", step " << i);
      const bool bad = found_inf[i].get<int>() != 0;
      CHECK(step(scaler, scalar, bad ? kInf : 1.0f) == trace.at("scale_after")[i].get<double>());
    }
  }
}

}  // namespace

TEST_CASE("GradScaler follows PyTorch's trace", "[amp][grad_scaler]") {
  follow_trace(Device::cpu());
}

TEST_CASE("GradScaler follows PyTorch's trace on a GPU", "[amp][grad_scaler][cuda]") {
  require_gpu();
  follow_trace(test_gpu());
}

TEST_CASE("GradScaler spends its hysteresis credit before it backs off", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1024, .growth_interval = 3, .hysteresis = 3});
  Scalar scalar;
  // Two bad steps are forgiven, the third and every further one backs off.
  CHECK(step(scaler, scalar, kInf) == 1024);
  CHECK(step(scaler, scalar, kInf) == 1024);
  CHECK(step(scaler, scalar, kInf) == 512);
  CHECK(step(scaler, scalar, kNan) == 256);
  // A good step refills the credit.
  CHECK(step(scaler, scalar, 1) == 256);
  CHECK(step(scaler, scalar, kInf) == 256);
  CHECK(step(scaler, scalar, kInf) == 256);
  CHECK(step(scaler, scalar, kInf) == 128);
  // Growth counts good steps in a row.
  CHECK(step(scaler, scalar, 1) == 128);
  CHECK(step(scaler, scalar, 1) == 128);
  CHECK(step(scaler, scalar, kInf) == 128);
  CHECK(step(scaler, scalar, 1) == 128);
  CHECK(step(scaler, scalar, 1) == 128);
  CHECK(step(scaler, scalar, 1) == 256);
  CHECK(scaler.skipped().item() == 8);
}

TEST_CASE("GradScaler stays between floor and ceiling and counts skips at the floor",
          "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(),
                    {.init_scale = 4, .growth_interval = 1, .min_scale = 2, .max_scale = 8});
  Scalar scalar;
  CHECK(step(scaler, scalar, 1) == 8);
  CHECK(step(scaler, scalar, 1) == 8);
  CHECK(step(scaler, scalar, kInf) == 4);
  CHECK(step(scaler, scalar, kInf) == 2);
  CHECK(scaler.at_floor().item() == 0);  // the skips so far began above the floor
  for (int i = 1; i <= 3; ++i) {
    CHECK(step(scaler, scalar, kInf) == 2);
    CHECK(scaler.at_floor().item() == i);
  }
  CHECK(step(scaler, scalar, 1) == 4);
  CHECK(scaler.at_floor().item() == 0);
}

TEST_CASE("a constant scale is its own floor", "[amp][grad_scaler]") {
  for (const char* preset : {"fp32", "fp16-static:256", "fp16-static:0.125"}) {
    INFO(preset);
    const amp::Preset parsed = amp::Preset::parse(preset);
    GradScaler scaler(Device::cpu(), GradScalerOptions::of(parsed));
    Scalar scalar;
    for (int i = 1; i <= 5; ++i) {
      CHECK(step(scaler, scalar, kNan) == parsed.constant_scale);
      CHECK(scaler.at_floor().item() == i);
    }
    CHECK(scalar.weight->tensor().item() == 1);
    CHECK(step(scaler, scalar, 1) == parsed.constant_scale);
    CHECK(scaler.at_floor().item() == 0);
    CHECK(scaler.skipped().item() == 5);
  }
}

TEST_CASE("GradScaler's contract", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu());
  Scalar a, b;
  a.give(1);
  b.give(1);
  CHECK_THAT(error_of([&] { scaler.update(); }), Contains("without a step()"));

  scaler.unscale_(*a.sgd);
  CHECK_THAT(error_of([&] { scaler.unscale_(*a.sgd); }), Contains("twice"));
  scaler.unscale_(*b.sgd);  // another optimizer is another matter
  scaler.step(*a.sgd);
  CHECK_THAT(error_of([&] { scaler.unscale_(*a.sgd); }), Contains("after step()"));
  CHECK_THAT(error_of([&] { scaler.step(*a.sgd); }), Contains("twice"));
  scaler.step(*b.sgd);
  scaler.update();
  CHECK_THAT(error_of([&] { scaler.update(); }), Contains("without a step()"));

  scaler.unscale_(*a.sgd);  // update() begins anew
  CHECK_THAT(error_of([&] { scaler.step({&*a.sgd, &*a.sgd}); }), Contains("twice"));
  CHECK_THAT(error_of([&] { scaler.step(std::vector<optim::Optimizer*>{}); }),
             Contains("without an optimizer"));
  CHECK_THAT(error_of([&] { scaler.step({&*a.sgd, nullptr}); }), Contains("null"));
  CHECK_THAT(error_of([&] { scaler.clip_norm(-1); }), Contains("clip_norm"));
  CHECK_THAT(error_of([&] { scaler.clip_norm(kNan); }), Contains("clip_norm"));
  scaler.step(*a.sgd);
  CHECK_THAT(error_of([&] { scaler.norm(*b.sgd); }), Contains("no step()"));
  scaler.update();

  const Tensor half = Tensor::ones({}, DType::f16), bfloat = Tensor::ones({}, DType::bf16);
  CHECK_THAT(error_of([&] { scaler.scale(half); }), Contains("f32") && Contains("f16"));
  CHECK_THAT(error_of([&] { scaler.scale(bfloat); }), Contains("bf16"));
  CHECK(scaler.scale(Tensor::scalar(3)).item() == 3 * 65536.0);
}

TEST_CASE("GradScaler refuses settings that are not binades", "[amp][grad_scaler]") {
  const auto refused = [](const GradScalerOptions& options) {
    return error_of([&] { GradScaler(Device::cpu(), options); });
  };
  CHECK_THAT(refused({.init_scale = 1000}), Contains("init_scale") && Contains("1000"));
  CHECK_THAT(refused({.growth_factor = 1.5}), Contains("growth_factor"));
  CHECK_THAT(refused({.growth_factor = 0.5}), Contains("growth_factor"));
  CHECK_THAT(refused({.backoff_factor = 0.7}), Contains("backoff_factor"));
  CHECK_THAT(refused({.backoff_factor = 2}), Contains("backoff_factor"));
  CHECK_THAT(refused({.min_scale = 3}), Contains("min_scale"));
  CHECK_THAT(refused({.max_scale = 16777215}), Contains("max_scale"));
  CHECK_THAT(refused({.init_scale = -2}), Contains("init_scale"));
  CHECK_THAT(refused({.init_scale = 0}), Contains("init_scale"));
  CHECK_THAT(refused({.max_scale = HUGE_VAL}), Contains("max_scale"));
  CHECK_THAT(refused({.min_scale = 0x1p-200}), Contains("min_scale"));  // zero in f32
  CHECK_THAT(refused({.init_scale = 0.5}), Contains("outside"));
  CHECK_THAT(refused({.init_scale = 0x1p25}), Contains("outside"));
  CHECK_THAT(refused({.growth_interval = 0}), Contains("growth_interval"));
  CHECK_THAT(refused({.hysteresis = 0}), Contains("hysteresis"));
}

TEST_CASE("optimizers of one step() skip together", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 4});
  Scalar good, bad;
  good.give(4);
  bad.give(kNan);
  scaler.step({&*good.sgd, &*bad.sgd});
  scaler.update();
  CHECK(good.weight->tensor().item() == 1);
  CHECK(bad.weight->tensor().item() == 1);
  CHECK(good.sgd->steps_done() == 0);
  CHECK(scaler.scale_scalar().item() == 2);  // one backoff for the step, not one an optimizer
  CHECK(scaler.skipped().item() == 1);

  good.give(2);
  bad.give(2);
  scaler.step({&*good.sgd, &*bad.sgd});
  scaler.update();
  CHECK(good.weight->tensor().item() == 0);
  CHECK(bad.weight->tensor().item() == 0);
  CHECK(bad.sgd->steps_done() == 1);
}

TEST_CASE("norm and clipping see unscaled gradients of all that step together",
          "[amp][grad_scaler]") {
  const double scale = 1024, learning_rate = 0.5;
  // f16 gradients near both ends of the range: their squares do not fit in f16.
  const std::vector<float> g1 = {30000, -20000, 0.5f, 6.1e-5f}, g2 = {-3, 4000, 12};
  for (const double max_norm : {0.0, 1.0, 20.0, 1e6}) {
    INFO("max_norm " << max_norm);
    Parameters first, second;
    const auto a = first.put<float>("a", {1, 2, 3, 4}, {2, 2});
    const auto b = second.put<float>("b", {5, 6, 7}, {3});
    a->set_compute_dtype(DType::f16, /*with_master=*/true);
    optim::Sgd sgd1(first.group()), sgd2(second.group());
    sgd1.set_learning_rate(learning_rate);
    sgd2.set_learning_rate(learning_rate);
    give_gradient(a, g1);
    give_gradient(b, g2);

    GradScaler scaler(Device::cpu(), {.init_scale = scale});
    scaler.unscale_(sgd1);
    scaler.unscale_(sgd2);
    scaler.clip_norm(max_norm);
    scaler.step({&sgd1, &sgd2});
    scaler.update();

    const std::vector<double> stored = a->tensor().grad().to_vector<double>();
    double square = 0;
    for (double g : stored) square += g / scale * (g / scale);
    for (double g : g2) square += g / scale * (g / scale);
    const double norm = std::sqrt(square);
    const double clip = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1;
    CHECK(scaler.norm().item() == Approx(norm).epsilon(1e-6));
    CHECK(scaler.found_inf().item() == 0);
    const std::vector<double> masters = a->master().to_vector<double>();
    for (size_t i = 0; i < stored.size(); ++i)
      CHECK(masters[i] ==
            Approx(1.0 + static_cast<double>(i) - learning_rate * clip * stored[i] / scale)
                .epsilon(1e-6));
    // The stored gradient stays as it was.
    CHECK(stored[0] == 30000);
  }
}

TEST_CASE("clip_norm is for one update", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Scalar scalar;
  scalar.give(10);
  scaler.clip_norm(1);
  scaler.step(*scalar.sgd);
  scaler.update();
  CHECK(scalar.weight->tensor().item() == Approx(0).margin(1e-6));
  step(scaler, scalar, 10);
  CHECK(scalar.weight->tensor().item() == Approx(-10).margin(1e-5));
}

TEST_CASE("a norm beyond the range skips the step", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Scalar scalar;
  step(scaler, scalar, 1e30f);
  // 1e60 is beyond f32: whether the sum is kept in f64 or not, nothing non-finite is written.
  CHECK(std::isfinite(scalar.weight->tensor().item()));
}

TEST_CASE("the offender is the first parameter in module order", "[amp][grad_scaler]") {
  // Norm-like parameters stay f32, so the flat groups are not in module order.
  Parameters model;
  const auto a = model.put<float>("a", {1, 1, 1}, {3}, /*keep_full_precision=*/true);
  const auto b = model.put<float>("b", {1, 1}, {2, 1});
  const auto c = model.put<float>("c", {1, 1}, {2}, true);
  const auto d = model.put<float>("d", {1, 1}, {2, 1});
  model.set_compute_dtype(DType::f16, true);
  optim::Sgd sgd(optim::split_by_decay(model, 0.1));
  sgd.set_learning_rate(0.1);
  REQUIRE(sgd.groups().size() >= 2);
  GradScaler scaler(Device::cpu());

  struct Case {
    std::vector<float> a, b, c, d;
    std::string name;
    bool is_nan;
    int64_t element;
  };
  const Case cases[] = {
      {{0, 0, 0}, {0, 0}, {0, 0}, {0, kInf}, "d", false, 1},
      {{0, 0, 0}, {0, 0}, {kNan, 0}, {kInf, 0}, "c", true, 0},
      {{0, 0, 0}, {0, -kInf}, {kNan, 0}, {kNan, 0}, "b", false, 1},
      {{0, 0, kNan}, {kInf, 0}, {kInf, 0}, {0, 0}, "a", true, 2},
      {{0, kInf, kNan}, {kNan, 0}, {0, 0}, {0, 0}, "a", false, 1},
  };
  for (const Case& given : cases) {
    sgd.zero_grad();
    give_gradient(a, given.a);
    give_gradient(b, given.b);
    give_gradient(c, given.c);
    give_gradient(d, given.d);
    scaler.step(sgd);
    scaler.update();
    CHECK(scaler.found_inf().item() == 1);
    const amp::Offender offender =
        GradScaler::offender({&sgd}, scaler.first_bad().to_vector<int64_t>());
    CHECK(offender.parameter == given.name);
    CHECK(offender.is_nan == given.is_nan);
    CHECK(offender.element == given.element);
  }

  sgd.zero_grad();  // parameters that no gradient reached count as zero
  give_gradient<float>(b, {1, 2});
  scaler.step(sgd);
  scaler.update();
  CHECK(scaler.found_inf().item() == 0);
  CHECK_THAT(
      error_of([&] { GradScaler::offender({&sgd}, scaler.first_bad().to_vector<int64_t>()); }),
      Contains("no offender"));
}

TEST_CASE("GradScaler's state round trip", "[amp][grad_scaler]") {
  const GradScalerOptions options{.init_scale = 64, .growth_interval = 5, .hysteresis = 3};
  GradScaler original(Device::cpu(), options);
  Scalar scalar;
  for (float gradient : {1.0f, kInf, kInf, kInf, kInf, 1.0f, 1.0f, kInf})
    step(original, scalar, gradient);

  GradScaler restored(Device::cpu(), options);
  restored.load_state(original.state());
  CHECK(restored.inv_scale_scalar().item() == 1 / restored.scale_scalar().item());
  for (float gradient : {kInf, kInf, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, kNan, kNan, kNan}) {
    CHECK(step(restored, scalar, gradient) == step(original, scalar, gradient));
    const nn::StateDict a = original.state(), b = restored.state();
    for (const auto& [name, value] : a) CHECK(b.at(name).item() == value.item());
  }

  nn::StateDict state = original.state();
  state.erase("credit");
  CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains("credit"));
  state = original.state();
  state["scale"] = Array::full({}, 1000, DType::f32);
  CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains("power of two"));
  state["scale"] = Array::full({2}, 1024, DType::f32);
  CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains("scale"));

  // Every entry must be such a number; nothing changes otherwise.
  const nn::StateDict before = restored.state();
  for (const char* name : {"scale", "tracker", "credit", "skipped", "at_floor"}) {
    INFO(name);
    const bool floating = std::string(name) == "scale";
    state = original.state();
    state.erase(name);
    CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains(name));
    state[name] = Array();
    CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains(name));
    state[name] = Array::full({}, 4, floating ? DType::i32 : DType::f32);
    CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains(name));
    state[name] = Array::full({}, -4, floating ? DType::f32 : DType::i32);
    CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains(name));
  }
  for (const double scale : {HUGE_VAL, std::nan(""), 0.0}) {
    state = original.state();
    state["scale"] = Array::full({}, scale, DType::f32);
    CHECK_THAT(error_of([&] { restored.load_state(state); }), Contains("power of two"));
  }
  for (const auto& [name, value] : before) CHECK(restored.state().at(name).item() == value.item());

  scalar.give(1);
  restored.unscale_(*scalar.sgd);
  CHECK_THAT(error_of([&] { restored.load_state(before); }), Contains("update()"));
}

TEST_CASE("a saved scale does not leave the options it is loaded under", "[amp][grad_scaler]") {
  GradScaler saved(Device::cpu(), {.init_scale = 1024, .growth_interval = 100, .hysteresis = 5});
  Scalar scalar;
  for (int i = 0; i < 7; ++i) step(saved, scalar, 1);
  const nn::StateDict state = saved.state();

  GradScaler constant(Device::cpu(), GradScalerOptions::of(amp::Preset::parse("fp16-static:8")));
  constant.load_state(state);
  CHECK(constant.scale_scalar().item() == 8);
  CHECK(constant.inv_scale_scalar().item() == 1.0 / 8);
  CHECK(step(constant, scalar, 1) == 8);

  GradScaler lower(Device::cpu(), {.init_scale = 64, .max_scale = 128});
  lower.load_state(state);
  CHECK(lower.scale_scalar().item() == 128);
  GradScaler higher(Device::cpu(), {.init_scale = 65536, .min_scale = 4096});
  higher.load_state(state);
  CHECK(higher.scale_scalar().item() == 4096);
  CHECK(higher.inv_scale_scalar().item() == 1.0 / 4096);
  CHECK(higher.at_floor().item() == 0);

  // Counters beyond the new limits: seven good steps are enough for growth, five credits become 2.
  GradScaler other(Device::cpu(), {.init_scale = 64, .growth_interval = 4, .hysteresis = 2});
  other.load_state(state);
  CHECK(step(other, scalar, 1) == 2048);
  other.load_state(state);
  CHECK(step(other, scalar, kInf) == 1024);
  CHECK(step(other, scalar, kInf) == 512);
}

TEST_CASE("saved counts beyond what counters hold do not wrap", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  const auto with = [&](const char* name, int64_t count) {
    nn::StateDict state = scaler.state();
    state[name] = Array::from(std::vector<int64_t>{count}, {});
    return state;
  };
  scaler.load_state(with("at_floor", int64_t{1} << 40));
  CHECK(scaler.at_floor().item() == INT32_MAX);
  scaler.load_state(with("at_floor", 3));
  for (const char* name : {"tracker", "credit", "skipped", "at_floor"}) {
    CHECK_THAT(error_of([&] { scaler.load_state(with(name, INT64_MAX)); }),
               Contains(name) && Contains("no count"));
    CHECK(scaler.at_floor().item() == 3);
  }
}
