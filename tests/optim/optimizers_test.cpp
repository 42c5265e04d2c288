// Every optimizer against a scalar oracle in f64, written from its paper.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include <binade/optim/adamw.h>
#include <binade/optim/lion.h>
#include <binade/optim/muon.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"
#include "parsed_json.h"
#include "shared.h"

using namespace binade;
using namespace binade::test;
using Values = std::vector<double>;

namespace {

// ---- oracles --------------------------------------------------------------------------------

// One update of all elements of a parameter; t counts from 1.
using Oracle = std::function<void(Values& w, const Values& g, int t, double lr)>;

Oracle adamw_oracle(double beta1, double beta2, double eps, double decay) {
  auto m = std::make_shared<Values>(), v = std::make_shared<Values>();
  return [=](Values& w, const Values& g, int t, double lr) {
    m->resize(w.size());
    v->resize(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      (*m)[i] = beta1 * (*m)[i] + (1 - beta1) * g[i];
      (*v)[i] = beta2 * (*v)[i] + (1 - beta2) * g[i] * g[i];
      const double m_hat = (*m)[i] / (1 - std::pow(beta1, t));
      const double v_hat = (*v)[i] / (1 - std::pow(beta2, t));
      w[i] = w[i] - lr * (m_hat / (std::sqrt(v_hat) + eps) + decay * w[i]);
    }
  };
}

Oracle sgd_oracle(double momentum, double dampening, bool nesterov, double decay) {
  auto buffer = std::make_shared<Values>();
  return [=](Values& w, const Values& g, int t, double lr) {
    buffer->resize(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      double d = g[i] + decay * w[i];
      if (momentum != 0) {
        (*buffer)[i] = t == 1 ? d : momentum * (*buffer)[i] + (1 - dampening) * d;
        d = nesterov ? d + momentum * (*buffer)[i] : (*buffer)[i];
      }
      w[i] -= lr * d;
    }
  };
}

Oracle lion_oracle(double beta1, double beta2, double decay) {
  auto m = std::make_shared<Values>();
  return [=](Values& w, const Values& g, int, double lr) {
    m->resize(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      const double c = beta1 * (*m)[i] + (1 - beta1) * g[i];
      const double sign = (c > 0) - (c < 0);
      w[i] -= lr * (sign + decay * w[i]);
      (*m)[i] = beta2 * (*m)[i] + (1 - beta2) * g[i];
    }
  };
}

// A matrix as rows; products by the definition.
using Matrix = std::vector<Values>;

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), Values(b[0].size(), 0));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < b[0].size(); ++j)
      for (size_t k = 0; k < b.size(); ++k) c[i][j] += a[i][k] * b[k][j];
  return c;
}

Matrix transposed(const Matrix& a) {
  Matrix t(a[0].size(), Values(a.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  return t;
}

// X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X, five times from X = u/‖u‖, on the side with fewer rows.
Matrix newton_schulz(Matrix x) {
  if (x.size() > x[0].size()) return transposed(newton_schulz(transposed(x)));
  double square = 0;
  for (const Values& row : x)
    for (double value : row) square += value * value;
  for (Values& row : x)
    for (double& value : row) value /= std::sqrt(square) + 1e-7;
  for (int iteration = 0; iteration < 5; ++iteration) {
    const Matrix gram = product(x, transposed(x));
    const Matrix linear = product(gram, x), cubic = product(gram, linear);
    for (size_t i = 0; i < x.size(); ++i)
      for (size_t j = 0; j < x[0].size(); ++j)
        x[i][j] = 3.4445 * x[i][j] - 4.7750 * linear[i][j] + 2.0315 * cubic[i][j];
  }
  return x;
}

Oracle muon_oracle(size_t rows, size_t columns, double momentum, double decay) {
  auto m = std::make_shared<Values>();
  return [=](Values& w, const Values& g, int, double lr) {
    m->resize(w.size());
    Matrix u(rows, Values(columns));
    for (size_t i = 0; i < w.size(); ++i) {
      (*m)[i] = momentum * (*m)[i] + g[i];
      u[i / columns][i % columns] = g[i] + momentum * (*m)[i];
    }
    const Matrix o = newton_schulz(u);
    const double s =
        std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
    for (size_t i = 0; i < w.size(); ++i)
      w[i] -= lr * (s * o[i / columns][i % columns] + decay * w[i]);
  };
}

// ---- the comparison -------------------------------------------------------------------------

constexpr int kSteps = 100;

Values start_values(size_t count, double phase) {
  Values values;
  for (size_t i = 0; i < count; ++i)
    values.push_back(std::sin(phase + 1.7 * static_cast<double>(i)));
  return values;
}

// The gradient of something like a bowl around `target`, which differs from step to step.
Values gradient_at(const Values& w, const Values& target, int step) {
  Values g;
  for (size_t i = 0; i < w.size(); ++i)
    g.push_back((w[i] - target[i]) *
                (1 + 0.5 * std::sin(static_cast<double>(i) + static_cast<double>(step))));
  return g;
}

Values rounded(const Values& values, DType dtype) {
  return Array::from(values, {static_cast<int64_t>(values.size())}).to(dtype).to_vector<double>();
}

struct Subject {
  std::string name;  // of the parameter
  Shape shape;
  Oracle oracle;
};

// Runs the optimizer on parameters of `dtype` and the oracles on the same gradients.
void compare(const std::function<std::unique_ptr<optim::Optimizer>(Parameters&)>& make,
             const std::vector<Subject>& subjects, DType dtype, double tolerance) {
  Parameters model;
  std::vector<nn::ParameterPtr> parameters;
  std::vector<Values> oracle, target;
  for (const Subject& subject : subjects) {
    const auto count = static_cast<size_t>(subject.shape.numel());
    Values start = rounded(start_values(count, static_cast<double>(oracle.size())),
                           is_half(dtype) ? DType::f32 : dtype);
    if (dtype == DType::f64) {
      parameters.push_back(model.put(subject.name, start, subject.shape));
    } else {
      parameters.push_back(
          model.put(subject.name, std::vector<float>(start.begin(), start.end()), subject.shape));
    }
    oracle.push_back(start);
    target.push_back(start_values(count, 5 + static_cast<double>(oracle.size())));
  }
  if (is_half(dtype)) model.set_compute_dtype(dtype, /*with_master=*/true);
  const auto optimizer = make(model);
  for (int step = 0; step < kSteps; ++step) {
    const double lr = 0.01 * (1 + 0.25 * (step % 4));
    optimizer->zero_grad();
    for (size_t p = 0; p < subjects.size(); ++p) {
      const Values g = rounded(gradient_at(oracle[p], target[p], step), dtype);
      give_gradient(parameters[p], g);
      subjects[p].oracle(oracle[p], g, step + 1, lr);
    }
    optimizer->set_learning_rate(lr);
    optimizer->step();
  }
  CHECK(optimizer->steps_done() == kSteps);
  for (size_t p = 0; p < subjects.size(); ++p) {
    const Values ours = parameters[p]->master().to_vector<double>();
    double worst = 0;
    for (size_t i = 0; i < ours.size(); ++i)
      worst = std::max(worst, std::abs(ours[i] - oracle[p][i]));
    INFO(subjects[p].name << " in " << concat(dtype));
    CHECK(worst < tolerance);
    CHECK(parameters[p]->tensor().to_vector<double>() == rounded(ours, dtype));
  }
}

void compare_all(const std::function<std::unique_ptr<optim::Optimizer>(Parameters&)>& make,
                 const std::function<std::vector<Subject>()>& subjects, double f32_tolerance) {
  compare(make, subjects(), DType::f64, 1e-11);
  compare(make, subjects(), DType::f32, f32_tolerance);
  compare(make, subjects(), DType::f16, f32_tolerance);
  compare(make, subjects(), DType::bf16, f32_tolerance);
}

}  // namespace

TEST_CASE("AdamW follows its oracle", "[optim][adamw]") {
  compare_all(
      [](Parameters& model) {
        return std::make_unique<optim::AdamW>(
            optim::split_by_decay(model, 0.1),
            optim::AdamWOptions{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8});
      },
      [] {
        return std::vector<Subject>{{"matrix", {3, 50}, adamw_oracle(0.9, 0.95, 1e-8, 0.1)},
                                    {"vector", {7}, adamw_oracle(0.9, 0.95, 1e-8, 0)}};
      },
      2e-5);
}

TEST_CASE("SGD follows its oracle", "[optim][sgd]") {
  struct Row {
    double momentum, dampening;
    bool nesterov;
    double decay;
  };
  for (const Row& row : {Row{0, 0, false, 0}, Row{0, 0, false, 0.02}, Row{0.9, 0, false, 0},
                         Row{0.9, 0.5, false, 0.01}, Row{0.8, 0, true, 0}, Row{0.9, 0, true, 0.05}})
    compare_all(
        [&](Parameters& model) {
          return std::make_unique<optim::Sgd>(
              model.group(row.decay),
              optim::SgdOptions{
                  .momentum = row.momentum, .dampening = row.dampening, .nesterov = row.nesterov});
        },
        [&] {
          return std::vector<Subject>{
              {"a", {130}, sgd_oracle(row.momentum, row.dampening, row.nesterov, row.decay)},
              {"b", {2, 3}, sgd_oracle(row.momentum, row.dampening, row.nesterov, row.decay)}};
        },
        2e-5);
}

TEST_CASE("Lion follows its oracle", "[optim][lion]") {
  // In f64 only: where the sign turns, a rounding error in f32 becomes a whole step.
  compare(
      [](Parameters& model) {
        return std::make_unique<optim::Lion>(model.group(0.1),
                                             optim::LionOptions{.beta1 = 0.9, .beta2 = 0.99});
      },
      {{"weight", {4, 33}, lion_oracle(0.9, 0.99, 0.1)}}, DType::f64, 1e-11);
}

TEST_CASE("Muon follows its oracle, and AdamW's for the rest", "[optim][muon]") {
  compare_all(
      [](Parameters& model) {
        return std::make_unique<optim::Muon>(
            model.group(0.05),
            optim::MuonOptions{
                .momentum = 0.95, .adamw = {.beta1 = 0.9, .beta2 = 0.95}, .adamw_lr_factor = 0.1});
      },
      [] {
        const auto slow = [](const Oracle& oracle) -> Oracle {
          return [=](Values& w, const Values& g, int t, double lr) { oracle(w, g, t, 0.1 * lr); };
        };
        return std::vector<Subject>{
            {"wide", {4, 9}, muon_oracle(4, 9, 0.95, 0.05)},
            {"tall", {10, 3}, muon_oracle(10, 3, 0.95, 0.05)},
            {"square", {5, 5}, muon_oracle(5, 5, 0.95, 0.05)},
            {"bias", {6}, slow(adamw_oracle(0.9, 0.95, 1e-8, 0.05))},
            {"wte.weight", {4, 5}, slow(adamw_oracle(0.9, 0.95, 1e-8, 0.05))},
            {"lm_head.weight", {4, 5}, slow(adamw_oracle(0.9, 0.95, 1e-8, 0.05))}};
      },
      2e-4);
}

TEST_CASE("groups have learning rates and decays of their own", "[optim]") {
  Parameters model;
  const auto a = model.put<double>("a", {1}, {1}), b = model.put<double>("b", {1}, {1});
  const auto named = model.named_parameters();
  optim::Sgd sgd({{{named[0]}, 1, 0.5}, {{named[1]}, 3, 0}});
  sgd.set_learning_rate(0.125);
  give_gradient<double>(a, {2});
  give_gradient<double>(b, {2});
  sgd.step();
  CHECK(a->master().item() == 1 - 0.125 * (2 + 0.5));
  CHECK(b->master().item() == 1 - 3 * 0.125 * 2);
}

TEST_CASE("optimizers agree with PyTorch's", "[optim]") {
  const auto path = shared_path("fixtures/optimizers.json");
  if (!path) return;
  std::ifstream file(*path);
  const nlohmann::json fixture = test::parsed(file);
  for (const char* name : {"adamw", "sgd_momentum", "sgd_nesterov"}) {
    INFO(name);
    const auto& given = fixture.at(name);
    const auto number = [&](const char* key, double otherwise) {
      return given.value(key, otherwise);
    };
    const double momentum = number("momentum", 0), decay = number("weight_decay", 0);
    Parameters model;
    const auto weight = model.put("weight", given.at("start").get<Values>(), {6, 10});
    const Values target = given.at("target").get<Values>();
    std::unique_ptr<optim::Optimizer> optimizer;
    if (std::string(name) == "adamw") {
      const auto betas = given.at("betas").get<Values>();
      optimizer = std::make_unique<optim::AdamW>(
          model.group(decay), optim::AdamWOptions{betas[0], betas[1], number("eps", 0)});
    } else {
      optimizer = std::make_unique<optim::Sgd>(
          model.group(decay), optim::SgdOptions{.momentum = momentum,
                                                .dampening = number("dampening", 0),
                                                .nesterov = std::string(name) == "sgd_nesterov"});
    }
    optimizer->set_learning_rate(number("lr", 0));
    const auto check_against = [&](const char* key) {
      const Values expected = given.at(key).get<Values>();
      const Values ours = weight->master().to_vector<double>();
      for (size_t i = 0; i < ours.size(); ++i) CHECK(ours[i] == Approx(expected[i]).epsilon(1e-11));
    };
    const int steps = given.at("steps").get<int>();
    for (int step = 0; step < steps; ++step) {
      optimizer->zero_grad();
      give_gradient(weight, gradient_at(weight->master().to_vector<double>(), target, step));
      optimizer->step();
      if (step == 9) check_against("at_step_10");
    }
    check_against("last");
  }
}

TEST_CASE("optimizers refuse settings out of range", "[optim]") {
  Parameters model;
  model.put<float>("a", {1}, {1});
  const auto group = model.group();
  CHECK_THROWS_AS(optim::AdamW(group, {.beta1 = 1}), Error);
  CHECK_THROWS_AS(optim::AdamW(group, {.beta2 = -0.1}), Error);
  CHECK_THROWS_AS(optim::AdamW(group, {.eps = 0}), Error);
  CHECK_THROWS_AS(optim::Sgd(group, {.momentum = 1}), Error);
  CHECK_THROWS_AS(optim::Sgd(group, {.nesterov = true}), Error);
  CHECK_THROWS_AS(optim::Sgd(group, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}), Error);
  CHECK_THROWS_AS(optim::Lion(group, {.beta1 = 1}), Error);
  CHECK_THROWS_AS(optim::Muon(group, {.momentum = 0}), Error);
  CHECK_THROWS_AS(optim::Muon(group, {.iterations = 0}), Error);
}
