// Several optimizers under one GradScaler: PyTorch's order of steps, joint steps, and what the
// scale does.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>

#include <binade/amp/grad_scaler.h>
#include <binade/autograd/ops.h>
#include <binade/optim/ema.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"
#include "skip.h"

using namespace binade;
using namespace binade::test;
using amp::GradScaler;
using Catch::Matchers::Contains;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One parameter and its optimizer, plain SGD with a rate of 1.
struct Net {
  explicit Net(const std::vector<float>& values, DType dtype = DType::f32, Device device = {}) {
    weight = model.put<float>("weight", values, {static_cast<int64_t>(values.size())});
    model.to(device);
    if (is_half(dtype)) model.set_compute_dtype(dtype, /*with_master=*/true);
    sgd.emplace(model.group());
    sgd->set_learning_rate(1);
  }
  void give(const std::vector<float>& gradient) {
    sgd->zero_grad();
    give_gradient(weight, gradient);
  }
  float value() const { return weight->master().to_vector<float>()[0]; }
  optim::Optimizer* get() { return &*sgd; }

  Parameters model;
  nn::ParameterPtr weight;
  std::optional<optim::Sgd> sgd;
};

// ---- PyTorch's semantics, in scalars
// ------------------------------------------------------------- torch/amp/grad_scaler.py, as its
// documentation tells it: a flag for each optimizer; step() updates unless the optimizer's own flag
// is up; update() backs off if any flag is up.
struct ScalarScaler {
  double scale, growth_interval;
  int good_steps = 0;
  bool any_bad = false;

  template <class Update>
  void step(const std::vector<double>& scaled_grads, const Update& update) {
    bool bad = false;
    for (const double g : scaled_grads) bad = bad || !std::isfinite(g);
    any_bad = any_bad || bad;
    if (!bad) update(1 / scale);
  }
  void update() {
    if (any_bad) {
      scale /= 2;
      good_steps = 0;
    } else if (++good_steps == growth_interval) {
      scale *= 2;
      good_steps = 0;
    }
    any_bad = false;
  }
};

double half(double x) {
  return static_cast<double>(Array::full({}, x, DType::f32).to(DType::f16).item());
}

// A discriminator d and a generator g of one f16 weight each; loss_g flows through d:
//   loss_d = d · a,      gradient of d: a
//   loss_g = g · d · b,  gradients of g: d·b, of d: g·b
void follow_gan(Device device) {
  Net d({2}, DType::f16, device), g({3}, DType::f16, device);
  d.sgd->set_learning_rate(0.125);
  g.sgd->set_learning_rate(0.25);
  GradScaler scaler(device, {.init_scale = 4096, .growth_interval = 3});
  ScalarScaler oracle{4096, 3};
  double weight_d = 2, weight_g = 3, copy_d = 2;
  int bad_d = 0, bad_g = 0;
  // Inputs that overflow f16 in d's loss alone, in g's alone (through d, after its step), in both.
  const double inputs[][2] = {{1, 1},    {20, 0.5}, {0.5, 20}, {1, 6},   {20, 20}, {0.25, 0.5},
                              {-1, -1},  {0.5, 1},  {1, 0.25}, {64, 64}, {8, 64},  {0.125, 0.5},
                              {-1, 0.5}, {1, 0.5},  {-1, -1},  {1, 1}};
  for (const auto& [a, b] : inputs) {
    INFO("a " << a << ", b " << b);
    d.sgd->zero_grad();
    g.sgd->zero_grad();
    const auto input = [&](double value) {
      return Tensor(Array::full({1}, value, DType::f32, device));
    };
    const auto in_f32 = [](const Net& net) { return to(net.weight->tensor(), DType::f32); };
    scaler.scale(sum(in_f32(d) * input(a))).backward();
    scaler.step(*d.sgd);
    {
      const double scaled = half(a * oracle.scale);
      bad_d += !std::isfinite(scaled);
      oracle.step({scaled}, [&](double inverse) { weight_d -= 0.125 * scaled * inverse; });
      copy_d = half(weight_d);
    }
    CHECK(d.value() == Approx(weight_d));
    scaler.scale(sum(in_f32(g) * in_f32(d) * input(b))).backward();
    scaler.step(*g.sgd);
    {
      const double scaled = half(copy_d * b * oracle.scale);
      bad_g += !std::isfinite(scaled);
      oracle.step({scaled}, [&](double inverse) { weight_g -= 0.25 * scaled * inverse; });
    }
    // d is what its own step made of it, whatever came into its gradient since.
    CHECK(d.value() == Approx(weight_d));
    CHECK(g.value() == Approx(weight_g));
    const bool any = oracle.any_bad;
    scaler.update();
    oracle.update();
    CHECK(scaler.scale_scalar().item() == oracle.scale);
    CHECK(scaler.found_inf().item() == (any ? 1 : 0));
    CHECK(std::isfinite(d.value()));
    CHECK(std::isfinite(g.value()));
  }
  CHECK(d.sgd->steps_done() == static_cast<int64_t>(std::size(inputs)) - bad_d);
  CHECK(g.sgd->steps_done() == static_cast<int64_t>(std::size(inputs)) - bad_g);
  // Real overflows of each kind.
  CHECK(bad_d > 0);
  CHECK(bad_g > 0);
  CHECK(bad_d != bad_g);
}

}  // namespace

TEST_CASE("two optimizers in PyTorch's order train a GAN as PyTorch does", "[amp][grad_scaler]") {
  follow_gan(Device::cpu());
}

TEST_CASE("two optimizers in PyTorch's order train a GAN as PyTorch does on a GPU",
          "[amp][grad_scaler][cuda]") {
  if (cuda_device_count() == 0) skip(cuda_unavailable_reason());
  follow_gan(Device::cuda());
}

TEST_CASE("step() applies at once and by its own gradients", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 2});
  Net a({1}), b({1}), c({1});
  a.give({2});
  b.give({kNan});
  c.give({4});
  scaler.step(*a.sgd);
  CHECK(a.value() == 0);                   // before update()
  give_gradient<float>(a.weight, {kInf});  // another loss flows through a
  scaler.step(*b.sgd);
  scaler.step(*c.sgd);
  CHECK(a.value() == 0);
  CHECK(b.value() == 1);
  CHECK(c.value() == -1);
  CHECK(scaler.found_inf(*a.sgd).item() == 0);
  CHECK(scaler.found_inf(*b.sgd).item() == 1);
  CHECK(scaler.norm(*a.sgd).item() == 1);
  CHECK(scaler.norm(*c.sgd).item() == 2);
  scaler.update();
  CHECK(scaler.found_inf().item() == 1);
  CHECK(scaler.norm().item() == Approx(std::sqrt(5.0)));  // over what is finite
  CHECK(scaler.found_inf(*c.sgd).item() == 0);            // still there, for Ema::update
  CHECK(scaler.scale_scalar().item() == 1);
  CHECK(scaler.skipped().item() == 1);
  const amp::Offender offender =
      GradScaler::offender({&*a.sgd, &*b.sgd, &*c.sgd}, scaler.first_bad().to_vector<int64_t>());
  CHECK(offender.optimizer == 1);
  CHECK(offender.is_nan);

  // The next iteration knows nothing of this one.
  a.give({1});
  scaler.step(*a.sgd);
  CHECK_THROWS_WITH(scaler.found_inf(*b.sgd), Contains("no step()"));
  scaler.update();
  CHECK(scaler.found_inf().item() == 0);
  CHECK(scaler.norm().item() == 1);
  CHECK(a.value() == -1);
}

TEST_CASE("clip_norm is for the coming step() alone", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Net a({0}), b({0}), c({0}), d({0});
  a.give({3});
  b.give({4});
  c.give({30});
  d.give({40});
  scaler.clip_norm(2.5);
  scaler.step({a.get(), b.get()});
  scaler.step(*c.sgd);
  scaler.clip_norm(10);
  scaler.step(*d.sgd);
  scaler.update();
  CHECK(a.value() == Approx(-1.5));
  CHECK(b.value() == Approx(-2));
  CHECK(c.value() == -30);
  CHECK(d.value() == Approx(-10));
  CHECK(scaler.norm(*a.sgd).item() == 5);
  CHECK(scaler.norm(*b.sgd).item() == 5);
  CHECK(scaler.norm(*d.sgd).item() == 40);

  // An infinite norm clips nothing, also where the gradient is zero.
  for (const float gradient : {0.0f, 7.0f}) {
    a.sgd->zero_grad();
    const float before = a.value();
    a.give({gradient});
    scaler.clip_norm(HUGE_VAL);
    scaler.step(*a.sgd);
    scaler.update();
    CHECK(a.value() == before - gradient);
  }
}

TEST_CASE("a joint step reads its own statistics in any order of unscaling", "[amp][grad_scaler]") {
  std::vector<int> order = {0, 1, 2, 3};
  do {
    for (int bad = 0; bad < 4; ++bad) {
      INFO(order[0] << order[1] << order[2] << order[3] << ", bad " << bad);
      GradScaler scaler(Device::cpu(), {.init_scale = 1});
      std::vector<std::unique_ptr<Net>> nets;
      for (int n = 0; n < 4; ++n) {
        nets.push_back(std::make_unique<Net>(std::vector<float>{0}));
        nets.back()->give({n == bad ? kInf : static_cast<float>(n + 1)});
      }
      for (const int n : order) scaler.unscale_(*nets[static_cast<size_t>(n)]->sgd);
      scaler.step({&*nets[0]->sgd, &*nets[2]->sgd});
      scaler.step({&*nets[3]->sgd, &*nets[1]->sgd});
      scaler.update();
      for (int n = 0; n < 4; ++n) {
        const bool with_bad = n % 2 == bad % 2;
        CHECK(nets[static_cast<size_t>(n)]->value() ==
              (with_bad ? 0.0f : -static_cast<float>(n + 1)));
      }
      const double joint = bad % 2 == 0 ? std::sqrt(4.0 + 16) : std::sqrt(1.0 + 9);
      CHECK(scaler.norm(*nets[bad % 2 == 0 ? 1 : 0]->sgd).item() == Approx(joint));
      CHECK(scaler.found_inf().item() == 1);
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("an optimizer that was only unscaled counts for the scale", "[amp][grad_scaler]") {
  // As in PyTorch: update() goes by every check since the last one.
  GradScaler scaler(Device::cpu(), {.init_scale = 8});
  Net a({0}), b({0});
  a.give({8});
  b.give({kInf});
  scaler.unscale_(*b.sgd);
  scaler.step(*a.sgd);
  scaler.update();
  CHECK(a.value() == -1);
  CHECK(b.value() == 0);
  CHECK(scaler.scale_scalar().item() == 4);
  CHECK(scaler.found_inf().item() == 1);
  CHECK(scaler.found_inf(*a.sgd).item() == 0);
}

TEST_CASE("hysteresis counts updates, not optimizers", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 64, .growth_interval = 2, .hysteresis = 2});
  Net a({0}), b({0});
  const auto iteration = [&](float grad_a, float grad_b) {
    a.give({grad_a});
    b.give({grad_b});
    scaler.step(*a.sgd);
    scaler.step(*b.sgd);
    scaler.update();
    return scaler.scale_scalar().item();
  };
  CHECK(iteration(kInf, kNan) == 64);  // one credit, though both were bad
  CHECK(iteration(1, kInf) == 32);
  CHECK(iteration(kInf, 1) == 16);
  CHECK(iteration(1, 1) == 16);  // refills
  CHECK(iteration(kInf, 1) == 16);
  CHECK(iteration(1, 1) == 16);
  CHECK(iteration(1, 1) == 32);
  CHECK(scaler.skipped().item() == 4);
}

TEST_CASE("a refused step() does nothing", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Net a({1}), b({1});
  Parameters model;
  const auto weight = model.put<float>("weight", {1}, {1});
  optim::Sgd sgd(model.group());
  a.give({1});
  give_gradient<float>(weight, {1});
  CHECK_THROWS_WITH(scaler.step({a.get(), &sgd}), Contains("learning rate"));
  CHECK(a.value() == 1);
  b.give({1});
  b.sgd->zero_grad();
  CHECK_THROWS_WITH(scaler.step(*b.sgd), Contains("no gradient reached"));
  CHECK(b.value() == 1);
  scaler.step(*a.sgd);  // nothing of it was begun
  scaler.update();
  CHECK(a.value() == 0);
}

TEST_CASE("an optimizer that is gone leaves no trace in the scaler", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 2});
  auto first = std::make_unique<Net>(std::vector<float>{1});
  first->give({kInf});
  scaler.step(*first->sgd);
  first.reset();
  // Maybe at the same address.
  Net second({1});
  second.give({2});
  scaler.step(*second.sgd);
  CHECK(second.value() == 0);
  scaler.update();
  CHECK(scaler.scale_scalar().item() == 1);
}

TEST_CASE("each average follows its own optimizer's steps", "[amp][grad_scaler][ema]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Net a({0}), b({0});
  optim::Ema ema_a(*a.sgd, 0.5), ema_b(*b.sgd, 0.5);
  a.give({2});
  b.give({kNan});
  scaler.step(*a.sgd);
  scaler.step(*b.sgd);
  scaler.update();
  ema_a.update(scaler.found_inf(*a.sgd));
  ema_b.update(scaler.found_inf(*b.sgd));
  CHECK(ema_a.state().at("weight").item() == -1);
  CHECK(ema_b.state().at("weight").item() == 0);
}

TEST_CASE("gradients that come after unscale_ are refused where they would be lost",
          "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Net a({0});
  a.give({1});
  a.sgd->accumulate();
  scaler.unscale_(*a.sgd);
  give_gradient<float>(a.weight, {kInf});
  CHECK_THROWS_WITH(scaler.step(*a.sgd), Contains("after unscale_()"));
}

TEST_CASE("what is not finite in the gap behind a parameter skips the step and is named",
          "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Parameters model;
  const auto a = model.put<float>("a", {1, 1, 1}, {3});
  const auto b = model.put<float>("b", {1}, {1});
  optim::Sgd sgd(model.group());
  sgd.set_learning_rate(1);
  give_gradient<float>(a, {1, 1, 1});
  sgd.groups()[0].grad().slice(0, 5, 6).fill(kNan);
  scaler.step(sgd);
  scaler.update();
  CHECK(scaler.found_inf().item() == 1);
  CHECK(a->tensor().to_vector<float>() == std::vector<float>{1, 1, 1});
  const amp::Offender offender =
      GradScaler::offender({&sgd}, scaler.first_bad().to_vector<int64_t>());
  CHECK(offender.parameter == "a");
  CHECK(offender.element == 5);
  CHECK(offender.is_nan);
}

TEST_CASE("a step() after unscale_ refuses gradients that are others by now",
          "[amp][grad_scaler]") {
  using Change = std::pair<const char*, std::function<void(Net&)>>;
  const Change changes[] = {
      {"another backward", [](Net& a) { give_gradient<float>(a.weight, {kInf}); }},
      {"another iteration", [](Net& a) { a.give({kInf}); }},
      {"zero_grad", [](Net& a) { a.sgd->zero_grad(); }},
      {"a sum that goes on",
       [](Net& a) {
         give_gradient<float>(a.weight, {kInf});
         a.sgd->accumulate();
       }},
      {"a sum that begins anew",
       [](Net& a) {
         a.give({kInf});
         a.sgd->accumulate();
       }},
      {"a write", [](Net& a) { a.sgd->gradient(a.sgd->groups()[0]).slice(0, 0, 1).fill(kInf); }}};
  for (const bool sums : {false, true}) {
    for (const auto& [name, change] : changes) {
      INFO(name << (sums ? " with a sum under way" : ""));
      GradScaler scaler(Device::cpu(), {.init_scale = 1});
      Net a({1});
      a.give({1});
      if (sums) a.sgd->accumulate();
      scaler.unscale_(*a.sgd);
      change(a);
      CHECK_THROWS_WITH(scaler.step(*a.sgd), Contains("after unscale_()") && Contains("update()"));
      CHECK(a.value() == 1);
      scaler.update();  // ends the iteration
      a.give({1});
      scaler.step(*a.sgd);
      scaler.update();
      CHECK(a.value() == 0);
    }
  }
}

TEST_CASE("a refused joint step() has seen none of its gradients", "[amp][grad_scaler]") {
  GradScaler scaler(Device::cpu(), {.init_scale = 1});
  Net a({1}), b({1});
  a.give({kInf});
  b.sgd->zero_grad();
  CHECK_THROWS_WITH(scaler.step({a.get(), b.get()}), Contains("no gradient reached"));
  CHECK_THROWS_WITH(scaler.update(), Contains("without a step()"));
  a.give({1});
  b.give({1});
  scaler.unscale_(*a.sgd);  // not twice
  scaler.step({a.get(), b.get()});
  scaler.update();
  CHECK(a.value() == 0);
  CHECK(b.value() == 0);
  CHECK(scaler.found_inf().item() == 0);
}

TEST_CASE("update() ends an iteration that unscaled and made no step", "[amp][grad_scaler]") {
  // PyTorch's goes by the checks, too, whoever has stepped.
  GradScaler scaler(Device::cpu(), {.init_scale = 8});
  Net a({1});
  a.give({kInf});
  scaler.unscale_(*a.sgd);
  CHECK_THROWS_WITH(scaler.load_state(scaler.state()), Contains("between unscale_()"));
  scaler.update();
  CHECK(scaler.scale_scalar().item() == 4);
  CHECK(scaler.skipped().item() == 1);
  CHECK_THROWS_WITH(scaler.norm(*a.sgd), Contains("no step()"));
  scaler.load_state(scaler.state());
  a.give({4});
  scaler.unscale_(*a.sgd);
  scaler.step(*a.sgd);
  scaler.update();
  CHECK(a.value() == 0);
}
