#include <binade/nn/init.h>

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/autograd/ops/activation.h>
#include <binade/core/random.h>

#include "nn/tiny_models.h"

using namespace binade;
using namespace binade::nn;

namespace {

struct Moments {
  double mean, stddev, low, high;
};
Moments moments_of(const Initialiser& initialiser, const Shape& shape) {
  RandomState::current().set_seed(3);
  const std::vector<double> values = initialiser(shape, Device::cpu()).to_vector<double>();
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {sum / n, std::sqrt(squares / n - sum * sum / n / n), *low, *high};
}

}  // namespace

TEST_CASE("initialisers have the moments of their papers", "[init]") {
  const Shape matrix = {300, 200}, filter = {64, 32, 3, 3};
  struct Case {
    const char* name;
    Initialiser initialiser;
    Shape shape;
    double stddev;
    bool bounded;
  };
  // Glorot & Bengio: 2 / (in + out); He et al.: 2 / in; a filter's fans count its 9 positions.
  const Case cases[] = {
      {"normal", init::normal(0.02), matrix, 0.02, false},
      {"uniform", init::uniform(-3, 3), matrix, std::sqrt(3.0), true},
      {"xavier_uniform", init::xavier_uniform(), matrix, std::sqrt(2.0 / 500), true},
      {"xavier_normal", init::xavier_normal(), filter, std::sqrt(2.0 / (9 * 96)), false},
      {"kaiming_uniform", init::kaiming_uniform(), matrix, std::sqrt(2.0 / 200), true},
      {"kaiming_normal", init::kaiming_normal(), filter, std::sqrt(2.0 / (9 * 32)), false},
  };
  for (const Case& test : cases) {
    INFO(test.name);
    const Moments moments = moments_of(test.initialiser, test.shape);
    CHECK(std::abs(moments.mean) < 0.03 * test.stddev);
    CHECK(moments.stddev == Approx(test.stddev).epsilon(0.02));
    const double bound = std::sqrt(3.0) * test.stddev;
    CHECK((moments.high <= bound * 1.0001 && moments.low >= -bound * 1.0001) == test.bounded);
  }
}

TEST_CASE("a seed gives the same weights, the next draw others", "[init]") {
  const auto draw = [] { return init::normal()({100}, Device::cpu()).to_vector<float>(); };
  RandomState::current().set_seed(1);
  const std::vector<float> first = draw(), second = draw();
  RandomState::current().set_seed(1);
  CHECK(draw() == first);
  CHECK(first != second);
}

TEST_CASE("initial weights share no random number with the draws of step 0", "[init]") {
  // The uniforms behind a mask and behind weights, in the order of elements: with shared counters
  // the mask is a threshold of the weights.
  const int64_t n = 4096;
  const auto weights = [&] { return init::uniform(0, 1)({n}, Device::cpu()).to_vector<float>(); };
  const auto kept_where_high = [&](const std::vector<float>& values) {
    const std::vector<float> mask =
        dropout(Tensor::ones({n}), 0.5, /*training=*/true).to_vector<float>();
    int64_t agree = 0;
    for (size_t i = 0; i < values.size(); ++i) agree += (values[i] >= 0.5f) == (mask[i] != 0);
    return static_cast<double>(agree) / static_cast<double>(n);
  };
  RandomState& random = RandomState::current();
  random.set_seed(3);
  const std::vector<float> built = weights();
  random.begin_step(3, 0);
  CHECK(kept_where_high(built) == Approx(0.5).margin(0.05));

  // Data that step 0 draws through an initialiser are not the weights, nor is its first mask.
  random.begin_step(3, 0);
  const std::vector<float> data = weights();
  CHECK(data != built);
  random.begin_step(3, 0);
  CHECK(kept_where_high(data) == Approx(0.5).margin(0.05));
}

TEST_CASE("initialisers draw the same uniforms on the GPU", "[init][cuda]") {
  const Device device = test::cuda_or_skip();
  RandomState::current().set_seed(1);
  const Array cpu = init::xavier_uniform()({50, 40}, Device::cpu());
  RandomState::current().set_seed(1);
  CHECK(init::xavier_uniform()({50, 40}, device).to_vector<float>() == cpu.to_vector<float>());
}

TEST_CASE("fans of a vector are refused", "[init]") {
  CHECK_THROWS_WITH(init::kaiming_normal()({3}, Device::cpu()), Catch::Contains("fan-in"));
}
