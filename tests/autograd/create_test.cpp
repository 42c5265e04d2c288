// Tensors from numbers, counts and chance.
#include <binade/autograd/create.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/core/random.h>

#include "gpu.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

TEST_CASE("tensors of numbers in the source have their shape and dtype", "[create]") {
  const Tensor row = tensor({1, 2.5, -3});
  CHECK(row.shape() == Shape{3});
  CHECK(row.dtype() == DType::f32);
  CHECK_FALSE(row.requires_grad());
  CHECK(row.to_vector<double>() == std::vector<double>{1, 2.5, -3});

  const Tensor matrix = tensor({{1, 2, 3}, {4, 5, 6}}, DType::i64);
  CHECK(matrix.shape() == Shape{2, 3});
  CHECK(matrix.to_vector<int64_t>() == std::vector<int64_t>{1, 2, 3, 4, 5, 6});

  CHECK(tensor({{1, 2}, {3, 4}}).set_requires_grad(true).requires_grad());
  CHECK_THROWS_WITH(tensor({{1, 2}, {3}}), Contains("rows of 2 and of 1"));
}

TEST_CASE("arange counts from 0", "[create]") {
  CHECK(arange(4).to_vector<int64_t>() == std::vector<int64_t>{0, 1, 2, 3});
  CHECK(arange(3, DType::f32).to_vector<float>() == std::vector<float>{0, 1, 2});
  CHECK(arange(0).numel() == 0);
}

TEST_CASE("arange steps from start to before the end", "[create]") {
  CHECK(arange(2, 5).to_vector<int64_t>() == std::vector<int64_t>{2, 3, 4});
  CHECK(arange(5, 0, -2).to_vector<int64_t>() == std::vector<int64_t>{5, 3, 1});
  CHECK(arange(1, 2, 0.25, DType::f32).to_vector<float>() ==
        std::vector<float>{1, 1.25, 1.5, 1.75});
  CHECK(arange(3, 3).numel() == 0);
  CHECK(arange(3, 3, -1).numel() == 0);
  const int64_t large = int64_t{1} << 52;
  CHECK(arange(static_cast<double>(large), static_cast<double>(large + 2)).to_vector<int64_t>() ==
        std::vector<int64_t>{large, large + 1});
  for (const DType half : {DType::f16, DType::bf16})
    CHECK(arange(0, 3, 1, half).to_vector<double>() == std::vector<double>{0, 1, 2});
  CHECK_THROWS_WITH(arange(0, 1, 0.1), Contains("0.1") && Contains("i64") && Contains("f32"));
  CHECK_THROWS_WITH(arange(0, 1, 0), Contains("step not 0"));
  CHECK_THROWS_WITH(arange(0, 1, -1), Contains("do not lead from 0 to 1"));
  CHECK_THROWS_WITH(arange(0, INFINITY), Contains("finite"));
  CHECK_THROWS_WITH(arange(0, 1e30), Contains("too many"));
}

TEST_CASE("linspace has both its ends, at even distances", "[create]") {
  CHECK(linspace(0, 1, 5).to_vector<float>() == std::vector<float>{0, 0.25, 0.5, 0.75, 1});
  CHECK(linspace(3, -1, 3, DType::f64).to_vector<double>() == std::vector<double>{3, 1, -1});
  CHECK(linspace(7, 9, 1).to_vector<float>() == std::vector<float>{7});
  CHECK(linspace(7, 9, 0).numel() == 0);
  // 0.1 is no double: only the last one is told.
  CHECK(linspace(0, 0.7, 8, DType::f64).to_vector<double>().back() == 0.7);
  CHECK(linspace(0, 0.7, 8, DType::f16).dtype() == DType::f16);
  CHECK_THROWS_WITH(linspace(0, 1, -1), Contains("linspace") && Contains("-1"));
  CHECK_THROWS_WITH(linspace(0, 1, 3, DType::i64), Contains("linspace") && Contains("i64"));
}

TEST_CASE("eye has ones on its diagonal", "[create]") {
  CHECK(eye(2).to_vector<float>() == std::vector<float>{1, 0, 0, 1});
  CHECK(eye(2, 3, DType::i64).to_vector<int64_t>() == std::vector<int64_t>{1, 0, 0, 0, 1, 0});
  CHECK(eye(3, 2, DType::bf16).to_vector<float>() == std::vector<float>{1, 0, 0, 1, 0, 0});
  CHECK(eye(3, 1, DType::boolean).to_vector<int64_t>() == std::vector<int64_t>{1, 0, 0});
  CHECK(eye(0).shape() == Shape{0, 0});
  CHECK(eye(0, 3).shape() == Shape{0, 3});
  CHECK(eye(3, 0).shape() == Shape{3, 0});
  CHECK_THROWS_WITH(eye(-1), Contains("eye") && Contains("-1"));
}

TEST_CASE("counts are the same on both devices", "[create][cuda]") {
  require_gpu();
  const Device gpu = test_gpu();
  const auto same = [&](const auto& make) {
    CHECK(make(gpu).template to_vector<double>() ==
          make(Device::cpu()).template to_vector<double>());
  };
  same([](Device on) { return arange(3, 20, 4, DType::i64, on); });
  same([](Device on) { return arange(1, 0, -0.125, DType::f16, on); });
  same([](Device on) { return linspace(-1, 2, 301, DType::f32, on); });
  same([](Device on) { return eye(5, 7, DType::bf16, on); });
}

TEST_CASE("normals and uniforms have their moments", "[create]") {
  RandomState::current().set_seed(5);
  constexpr double kCount = 1 << 20;
  // Five standard errors of each.
  for (const bool normal : {true, false}) {
    const Shape shape = {1 << 20};
    const auto values = (normal ? randn(shape) : rand(shape)).to_vector<double>();
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / kCount;
    double squares = 0;
    for (const double value : values) squares += (value - mean) * (value - mean);
    const double variance = normal ? 1 : 1.0 / 12, fourth = normal ? 3 : 1.0 / 80;
    CHECK(std::abs(mean - (normal ? 0 : 0.5)) < 5 * std::sqrt(variance / kCount));
    CHECK(std::abs(squares / kCount - variance) <
          5 * std::sqrt((fourth - variance * variance) / kCount));
    if (!normal) {
      CHECK(*std::min_element(values.begin(), values.end()) >= 0);
      CHECK(*std::max_element(values.begin(), values.end()) < 1);
    }
  }
}

TEST_CASE("randint draws every number of its range about equally often, and no other", "[create]") {
  RandomState::current().set_seed(6);
  constexpr int64_t kLow = -3, kHigh = 4, kCount = 70000;
  std::vector<double> seen(kHigh - kLow);
  for (const int64_t value : randint(kLow, kHigh, {kCount}).to_vector<int64_t>()) {
    REQUIRE(value >= kLow);
    REQUIRE(value < kHigh);
    ++seen[static_cast<size_t>(value - kLow)];
  }
  double chi_squared = 0;
  for (const double count : seen) chi_squared += (count - 10000) * (count - 10000) / 10000;
  CHECK(chi_squared < 22.5);  // 6 degrees of freedom: once in a thousand

  CHECK(randint(7, 8, {3}).to_vector<int64_t>() == std::vector<int64_t>{7, 7, 7});
  // Large numbers are exact: f32 holds none of these.
  const int64_t large = (int64_t{1} << 40) + 1;
  for (const int64_t value : randint(large, large + 2, {50}).to_vector<int64_t>())
    CHECK((value == large || value == large + 1));
  for (const int64_t value : randint(0, int64_t{1} << 24, {100000}).to_vector<int64_t>())
    REQUIRE(value < int64_t{1} << 24);
  CHECK_THROWS_WITH(randint(3, 3, {1}), Contains("from 3 to below 3"));
  CHECK_THROWS_WITH(randint(0, (int64_t{1} << 24) + 1, {1}), Contains("expected 1 to 16777216"));
  CHECK_THROWS_AS(randint(INT64_MIN, INT64_MAX, {1}), Error);
}

TEST_CASE("randperm has every number once, in an order of the seed", "[create]") {
  const auto drawn = [](uint64_t seed) {
    RandomState::current().set_seed(seed);
    return randperm(1000).to_vector<int64_t>();
  };
  std::vector<int64_t> order = drawn(1);
  CHECK(order == drawn(1));
  CHECK(order != drawn(2));
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) REQUIRE(order[i] == static_cast<int64_t>(i));
  CHECK(randperm(0).numel() == 0);
}

TEST_CASE("what is drawn follows from seed and step, and differs from draw to draw", "[create]") {
  RandomState& state = RandomState::current();
  state.begin_step(3, 10);
  const auto first = randn({64}).to_vector<float>(), second = randn({64}).to_vector<float>();
  CHECK(first != second);
  state.begin_step(3, 10);
  CHECK(randn({64}).to_vector<float>() == first);
  state.begin_step(3, 11);
  CHECK(randn({64}).to_vector<float>() != first);
}

TEST_CASE("the GPU draws what the CPU draws", "[create][gpu]") {
  require_gpu();
  const auto drawn = [](Device device) {
    RandomState::current().begin_step(4, 2);
    std::vector<std::vector<double>> all;
    all.push_back(rand({1000}, device).to_vector<double>());
    all.push_back(randint(-5, 1000, {1000}, device).to_vector<double>());
    all.push_back(randperm(1000, device).to_vector<double>());
    return all;
  };
  CHECK(drawn(test_gpu()) == drawn(Device::cpu()));
  CHECK(tensor({{1, 2}}, DType::f16, test_gpu()).device() == test_gpu());
}
