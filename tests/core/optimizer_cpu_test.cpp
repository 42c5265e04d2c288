// Optimizer updates of the CPU against PyTorch's traces and against scalar code from the papers.
#include <binade/core/kernels/optimizer.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernel_arrays.h"
#include "parsed_json.h"
#include "shared.h"

namespace binade::test {
namespace {

using namespace kernels;

// One group of parameters and the scalars of a step.
struct Group {
  UpdateBuffers buffers;
  UpdateContext context;

  Group(const std::vector<double>& start, DType master, DType grad, DType value, double lr,
        float grad_factor = 1) {
    const Shape shape{static_cast<int64_t>(start.size())};
    buffers.master = array_of(start, shape, master);
    buffers.grad = Array::zeros(shape, grad);
    buffers.value = value == master ? buffers.master : buffers.master.to(value);
    buffers.moment1 = Array::zeros(shape, master);
    buffers.moment2 = Array::zeros(shape, master);
    context.grad_factor = Array::full({1}, static_cast<double>(grad_factor), DType::f32);
    context.found_inf = Array::zeros({1}, DType::f32);
    context.learning_rate = Array::full({1}, lr, master);
    context.step = Array::zeros({1}, DType::i64);
  }
  void finish_step() { cpu::advance_step(context.step, context.found_inf); }
};

// The trace's gradient: see ../shared/fixtures/README.md.
void follow_trace(const nlohmann::json& trace, const std::function<void(Group&)>& update) {
  const auto start = trace.at("start").get<std::vector<double>>();
  const auto target = trace.at("target").get<std::vector<double>>();
  const auto early = trace.at("at_step_10").get<std::vector<double>>();
  const auto last = trace.at("last").get<std::vector<double>>();
  Group group(start, DType::f64, DType::f64, DType::f64, trace.at("lr").get<double>());
  const int steps = trace.at("steps").get<int>();
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < start.size(); ++i) {
      const int64_t at = static_cast<int64_t>(i);
      const double wave = 1 + 0.5 * std::sin(static_cast<double>(at + step));
      write(group.buffers.grad, at, (read(group.buffers.master, at) - target[i]) * wave);
    }
    update(group);
    group.finish_step();
    if (step + 1 == 10) CHECK(worst_error(group.buffers.master, early) < 1e-12);
  }
  CHECK(worst_error(group.buffers.master, last) < 1e-12);
}

TEST_CASE("AdamW and SGD follow PyTorch's traces in f64", "[optimizer][cpu]") {
  const auto path = shared_path("fixtures/optimizers.json");
  if (!path) return;
  const nlohmann::json traces = test::parsed(std::ifstream(*path));
  const nlohmann::json& adamw = traces.at("adamw");
  follow_trace(adamw, [&](Group& group) {
    AdamWParams params;
    params.beta1 = adamw.at("betas")[0];
    params.beta2 = adamw.at("betas")[1];
    params.eps = adamw.at("eps");
    params.weight_decay = adamw.at("weight_decay");
    cpu::optimizer_update(group.buffers, group.context, params);
  });
  for (const char* name : {"sgd_momentum", "sgd_nesterov"}) {
    const nlohmann::json& sgd = traces.at(name);
    follow_trace(sgd, [&](Group& group) {
      SgdParams params;
      params.momentum = sgd.at("momentum");
      params.weight_decay = sgd.value("weight_decay", 0.0);
      params.dampening = sgd.value("dampening", 0.0);
      params.nesterov = std::string(name) == "sgd_nesterov";
      cpu::optimizer_update(group.buffers, group.context, params);
    });
  }
}

// ---- scalar oracles ---------------------------------------------------------------------------

struct Scalar {
  double w, m = 0, v = 0;
};

// Runs 100 steps of `update` and of `oracle` (scalar, g, t from 1) on gradients that depend on the
// parameter, in every mix of dtypes, and compares masters and compute copies.
template <class Update, class Oracle>
void compare_100_steps(double lr, const Update& update, const Oracle& oracle) {
  Random random(67);
  std::normal_distribution<double> normal;
  std::vector<double> start;
  for (int i = 0; i < 2500; ++i) start.push_back(static_cast<float>(normal(random)));
  for (const DType master : {DType::f64, DType::f32})
    for (const DType grad : {DType::f64, DType::f32, DType::f16, DType::bf16})
      for (const DType value : {master, DType::f16, DType::bf16}) {
        INFO(name_of(master) << " masters, " << name_of(grad) << " gradients, " << name_of(value)
                             << " values");
        const float grad_factor = 0.25f;
        Group group(start, master, grad, value, lr, grad_factor);
        const double used_lr = read(group.context.learning_rate, 0);
        std::vector<Scalar> scalars;
        for (const double w : start) scalars.push_back({w});
        for (int t = 1; t <= 100; ++t) {
          for (size_t i = 0; i < start.size(); ++i) {
            const int64_t at = static_cast<int64_t>(i);
            const double wave = std::sin(0.7 * t + static_cast<double>(i));
            write(group.buffers.grad, at, 4 * (0.3 * start[i] + wave));
            oracle(scalars[i], grad_factor * read(group.buffers.grad, at), used_lr, t);
          }
          update(group);
          group.finish_step();
        }
        std::vector<double> expected;
        for (const Scalar& scalar : scalars) expected.push_back(scalar.w);
        REQUIRE(worst_error(group.buffers.master, expected) <
                (master == DType::f64 ? 1e-12 : 2e-5));
        REQUIRE(values_of(group.buffers.value) == values_of(group.buffers.master.to(value)));
      }
}

TEST_CASE("AdamW follows its algorithm over 100 steps", "[optimizer][cpu]") {
  AdamWParams params;
  params.beta1 = 0.8;
  params.beta2 = 0.95;
  params.eps = 1e-6;
  params.weight_decay = 0.1;
  params.lr_factor = 0.5;
  // Loshchilov & Hutter 2019, algorithm 2, with the decay times lr as in PyTorch.
  compare_100_steps(
      0.02, [&](Group& group) { cpu::optimizer_update(group.buffers, group.context, params); },
      [](Scalar& s, double g, double lr, int t) {
        s.m = 0.8 * s.m + 0.2 * g;
        s.v = 0.95 * s.v + 0.05 * g * g;
        const double m_hat = s.m / (1 - std::pow(0.8, t)), v_hat = s.v / (1 - std::pow(0.95, t));
        s.w = s.w - 0.5 * lr * (m_hat / (std::sqrt(v_hat) + 1e-6) + 0.1 * s.w);
      });
}

TEST_CASE("SGD follows PyTorch's definition over 100 steps", "[optimizer][cpu]") {
  for (const bool nesterov : {false, true})
    for (const double momentum : {0.0, 0.9}) {
      SgdParams params;
      params.momentum = momentum;
      params.dampening = nesterov ? 0 : 0.25;
      params.weight_decay = 0.05;
      params.nesterov = nesterov;
      compare_100_steps(
          0.01, [&](Group& group) { cpu::optimizer_update(group.buffers, group.context, params); },
          [&](Scalar& s, double g, double lr, int t) {
            g += 0.05 * s.w;
            if (momentum != 0) {
              s.m = t == 1 ? g : momentum * s.m + (1 - params.dampening) * g;
              g = nesterov ? g + momentum * s.m : s.m;
            }
            s.w -= lr * g;
          });
    }
}

TEST_CASE("Lion follows its algorithm over 100 steps", "[optimizer][cpu]") {
  LionParams params;
  params.weight_decay = 0.3;
  // Chen et al. 2023, algorithm 2. A sign may flip where the blend is a rounding error: the
  // gradients keep away from 0 on average, and f64 shows the formula.
  Random random(71);
  std::normal_distribution<double> normal;
  std::vector<double> start;
  for (int i = 0; i < 700; ++i) start.push_back(normal(random));
  Group group(start, DType::f64, DType::f64, DType::bf16, 1e-3);
  std::vector<Scalar> scalars;
  for (const double w : start) scalars.push_back({w});
  for (int t = 1; t <= 100; ++t) {
    for (size_t i = 0; i < start.size(); ++i) {
      Scalar& s = scalars[i];
      const double g = i == 0 ? 0 : s.w + std::sin(0.7 * t + static_cast<double>(i));
      write(group.buffers.grad, static_cast<int64_t>(i), g);
      const double c = 0.9 * s.m + 0.1 * g;
      const double direction = c > 0 ? 1 : c < 0 ? -1 : 0;
      s.w -= 1e-3 * (direction + 0.3 * s.w);
      s.m = 0.99 * s.m + 0.01 * g;
    }
    cpu::optimizer_update(group.buffers, group.context, params);
    group.finish_step();
  }
  std::vector<double> expected;
  for (const Scalar& scalar : scalars) expected.push_back(scalar.w);
  CHECK(worst_error(group.buffers.master, expected) < 1e-12);
  CHECK(values_of(group.buffers.value) == values_of(group.buffers.master.to(DType::bf16)));
}

void apply_direction(const Group& group, const Array& direction, double lr_factor,
                     double weight_decay) {
  UpdateContext context = group.context;
  context.grad_factor = {};
  cpu::optimizer_update({direction, group.buffers.master, group.buffers.value, {}, {}}, context,
                        DirectionParams{lr_factor, weight_decay});
}

// Of the group's masters.
void update_average(const Array& average, const Group& group, double decay) {
  cpu::optimizer_update({group.buffers.master, average, {}, {}, {}},
                        {.grad_factor = {}, .found_inf = group.context.found_inf},
                        AverageParams{{.decay = decay}});
}

TEST_CASE("moving averages and given directions", "[optimizer][cpu]") {
  Random random(73);
  const std::vector<double> start = values_of(random_array({3000}, DType::f32, random));
  Group group(start, DType::f32, DType::f16, DType::f16, 0.1);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Array direction = random_array({3000}, dtype, random);
    std::vector<double> expected = values_of(group.buffers.master);
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] = expected[i] * (1 - 0.1 * 0.2 * 0.5) -
                    0.1 * 0.2 * read(direction, static_cast<int64_t>(i));
    apply_direction(group, direction, 0.2, 0.5);
    CHECK(worst_error(group.buffers.master, expected) < 1e-6);
    CHECK(values_of(group.buffers.value) == values_of(group.buffers.master.to(DType::f16)));
  }
  const Array average = array_of(start, {3000}, DType::f32);
  std::vector<double> expected = start;
  for (size_t i = 0; i < expected.size(); ++i)
    expected[i] = 0.99 * expected[i] + 0.01 * read(group.buffers.master, static_cast<int64_t>(i));
  update_average(average, group, 0.99);
  CHECK(worst_error(average, expected) < 1e-6);
}

TEST_CASE("a skipped step writes nothing and does not count", "[optimizer][cpu]") {
  Random random(79);
  const std::vector<double> start = values_of(random_array({100}, DType::f32, random));
  Group group(start, DType::f32, DType::f16, DType::f16, 0.1);
  group.buffers.grad.fill(INFINITY);
  group.context.found_inf.fill(1);
  cpu::optimizer_update(group.buffers, group.context, AdamWParams{});
  cpu::optimizer_update(group.buffers, group.context, SgdParams{});
  cpu::optimizer_update(group.buffers, group.context, LionParams{});
  apply_direction(group, group.buffers.grad, 1, 0.1);
  const Array average = Array::zeros({100}, DType::f32);
  update_average(average, group, 0.5);
  group.finish_step();
  CHECK(values_of(group.buffers.master) == start);
  CHECK(values_of(group.buffers.moment1) == std::vector<double>(100));
  CHECK(values_of(average) == std::vector<double>(100));
  CHECK(group.context.step.item() == 0);
}

}  // namespace
}  // namespace binade::test
