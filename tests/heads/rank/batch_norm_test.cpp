// Batch norm over documents, against its formula in f64.
#include <cmath>
#include <limits>
#include <random>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/heads/rank/batch_norm.h>

#include "gpu.h"

using namespace binade;
using namespace binade::test;
namespace rank = heads::rank;

namespace {

constexpr int64_t kWidth = 3;

std::vector<float> drawn(int64_t count, uint32_t seed, float mean = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, 2);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& x : values) x = normal(random);
  return values;
}

// Columns of y, of the running statistics after one batch, and of the gradient of Σ g·y.
struct Expected {
  std::vector<double> y, dx, mean, var, dweight, dbias;
};
Expected by_formula(const std::vector<float>& x, const std::vector<float>& g,
                    const std::vector<float>& weight, const std::vector<float>& bias,
                    const std::vector<bool>& counts) {
  const size_t rows = counts.size(), width = weight.size();
  Expected e;
  e.y.resize(rows * width);
  e.dx.resize(rows * width);
  double n = 0;
  for (const bool one : counts) n += one;
  for (size_t c = 0; c < width; ++c) {
    const auto at = [&](const std::vector<float>& v, size_t r) -> double {
      return v[r * width + c];
    };
    double mean = 0, var = 0;
    for (size_t r = 0; r < rows; ++r) mean += counts[r] ? at(x, r) / n : 0;
    for (size_t r = 0; r < rows; ++r) var += counts[r] ? std::pow(at(x, r) - mean, 2) / n : 0;
    const double inverse = 1 / std::sqrt(var + 1e-5);
    double g_sum = 0, gx_sum = 0;
    for (size_t r = 0; r < rows; ++r) {
      const double normed = (at(x, r) - mean) * inverse;
      e.y[r * width + c] = normed * weight[c] + bias[c];
      g_sum += at(g, r);
      gx_sum += at(g, r) * normed;
    }
    // What moves the statistics moves every row that is normed by them.
    for (size_t r = 0; r < rows; ++r) {
      const double normed = (at(x, r) - mean) * inverse;
      const double through = counts[r] ? (g_sum + normed * gx_sum) / n : 0;
      e.dx[r * width + c] = weight[c] * inverse * (at(g, r) - through);
    }
    e.dweight.push_back(gx_sum);
    e.dbias.push_back(g_sum);
    e.mean.push_back(0.1 * mean);
    e.var.push_back(0.9 + 0.1 * var * n / std::max(n - 1, 1.0));
  }
  return e;
}

void check_close(const Array& found, const std::vector<double>& expected, double tolerance) {
  const auto values = found.to(Device::cpu()).to(DType::f64).to_vector<double>();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i)
    CHECK(values[i] == Approx(expected[i]).epsilon(tolerance).margin(tolerance));
}

void compare(Device device, DType dtype, int64_t rows, int64_t filled, double tolerance) {
  CAPTURE(concat(device), name_of(dtype), rows, filled);
  const std::vector<float> weight = {1.5F, -0.5F, 2}, bias = {0.25F, 1, -1};
  std::vector<float> x = drawn(rows * kWidth, 1, 3), g = drawn(rows * kWidth, 2);
  std::vector<bool> counts(static_cast<size_t>(rows), true);
  std::vector<float> documents(static_cast<size_t>(rows), 1);
  for (int64_t r = rows - filled; r < rows; ++r) {
    counts[static_cast<size_t>(r)] = false;
    documents[static_cast<size_t>(r)] = 0;
    // The loss reads no such row.
    for (int64_t c = 0; c < kWidth; ++c) g[static_cast<size_t>(r * kWidth + c)] = 0;
  }
  for (auto* values : {&x, &g})
    *values = Array::from(*values, {rows * kWidth}).to(dtype).to(DType::f32).to_vector<float>();
  rank::BatchNorm norm(kWidth);
  norm.load_state({{"weight", Array::from(weight, {kWidth})},
                   {"bias", Array::from(bias, {kWidth})},
                   {"running_mean", Array::zeros({kWidth}, DType::f32)},
                   {"running_var", Array::full({kWidth}, 1, DType::f32)}});
  norm.to(device);
  const Tensor input = Tensor(Array::from(x, {rows, kWidth}).to(dtype).to(device), true);
  const Tensor mask = filled > 0 ? Tensor::from(documents, {rows, 1}, device) : Tensor();
  const Tensor y = norm.forward(input, mask);
  CHECK(y.dtype() == dtype);
  sum(to(y, DType::f32) * Tensor(Array::from(g, {rows, kWidth}).to(device))).backward();
  const Expected expected = by_formula(x, g, weight, bias, counts);
  check_close(y.array(), expected.y, tolerance);
  check_close(input.grad(), expected.dx, tolerance);
  const auto parameters = norm.named_parameters();
  check_close(parameters[0].parameter->tensor().grad(), expected.dweight, 1e-4);
  check_close(parameters[1].parameter->tensor().grad(), expected.dbias, 1e-4);
  check_close(norm.state().at("running_mean"), expected.mean, 1e-5);
  check_close(norm.state().at("running_var"), expected.var, 1e-5);
  // In evaluation mode: the running statistics, as steps too, and whatever rows there are.
  norm.eval();
  std::vector<double> still;
  const rank::BatchNormSteps steps =
      rank::batch_norm_steps({{"n.weight", norm.state().at("weight")},
                              {"n.bias", norm.state().at("bias")},
                              {"n.running_mean", norm.state().at("running_mean")},
                              {"n.running_var", norm.state().at("running_var")}},
                             "n");
  std::vector<double> by_steps;
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % kWidth;
    still.push_back((x[i] - expected.mean[c]) / std::sqrt(expected.var[c] + 1e-5) * weight[c] +
                    bias[c]);
    by_steps.push_back((static_cast<double>(x[i]) - steps.mean.data<float>()[c]) *
                           steps.scale.data<float>()[c] +
                       steps.bias.data<float>()[c]);
  }
  check_close(norm.forward(input).array(), still, tolerance);
  for (size_t i = 0; i < still.size(); ++i)
    CHECK(by_steps[i] == Approx(still[i]).epsilon(1e-5).margin(1e-5));
}

}  // namespace

TEST_CASE("batch norm is that of the rows that are documents", "[rank][batch_norm]") {
  for (const auto& [rows, filled] : {std::pair{40, 0}, {40, 13}, {2, 0}, {9, 8}}) {
    compare({}, DType::f32, rows, filled, 2e-4);
    compare({}, DType::f16, rows, filled, 2e-2);
  }
}

TEST_CASE("a batch whose statistics are not finite moves nothing", "[rank][batch_norm]") {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    rank::BatchNorm norm(2);
    norm.forward(Tensor::from(std::vector<float>{1, bad, 3, 4}, {2, 2}, {}));
    const auto mean = norm.state().at("running_mean").to_vector<float>(),
               var = norm.state().at("running_var").to_vector<float>();
    CHECK(mean[0] == Approx(0.2));
    CHECK(var[0] == Approx(1.1));
    CHECK(mean[1] == 0);
    CHECK(var[1] == 1);
  }
}

TEST_CASE("batch norm on a GPU is that of the rows that are documents",
          "[rank][batch_norm][cuda]") {
  require_gpu();
  compare(test_gpu(), DType::f32, 40, 13, 2e-4);
  compare(test_gpu(), DType::f16, 40, 13, 2e-2);
}
