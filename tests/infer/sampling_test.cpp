#include <binade/infer/sampling.h>

#include <cmath>
#include <map>

#include <catch2/catch.hpp>

using namespace binade;
using infer::sample;
using infer::SamplingOptions;

namespace {

// Logits whose probabilities are 0.5, 0.3, 0.15, 0.05 in another order.
const std::vector<double> kProbabilities = {0.15, 0.5, 0.05, 0.3};

Array logits_of(int64_t rows) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows; ++row)
    for (const double p : kProbabilities) values.push_back(static_cast<float>(std::log(p)));
  return Array::from(values, {rows, 4});
}

std::vector<double> frequencies(const SamplingOptions& options) {
  constexpr int kRows = 50, kSteps = 400;
  std::vector<double> counts(4, 0);
  for (uint64_t step = 0; step < kSteps; ++step)
    for (const int32_t token : sample(logits_of(kRows), options, step))
      ++counts[static_cast<size_t>(token)];
  for (double& count : counts) count /= kRows * kSteps;
  return counts;
}

void check_close(const std::vector<double>& frequencies, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    INFO("token " << i);
    if (expected[i] == 0)
      CHECK(frequencies[i] == 0);
    else  // five standard deviations of 20,000 draws
      CHECK(std::abs(frequencies[i] - expected[i]) < 5 * std::sqrt(0.25 / 20000));
  }
}

}  // namespace

TEST_CASE("greedy takes the largest logit, the first of equals", "[sampling]") {
  const Array logits = Array::from(std::vector<float>{1, 3, 3, 2, 9, 3, 3, 2}, {2, 4});
  CHECK(sample(logits, {}, 0) == std::vector<int32_t>{1, 0});
}

TEST_CASE("forbidden tokens are never chosen", "[sampling]") {
  const Array logits = Array::from(std::vector<float>{1, 3, 2}, {1, 3});
  CHECK(sample(logits, {}, 0, {1}) == std::vector<int32_t>{2});
  for (uint64_t step = 0; step < 100; ++step)
    CHECK(sample(logits, {.temperature = 10}, step, {1, 2})[0] == 0);
}

TEST_CASE("draws follow the probabilities", "[sampling]") {
  check_close(frequencies({.temperature = 1, .seed = 3}), kProbabilities);
  // At temperature 0.5 the probabilities are squared: 0.0225, 0.25, 0.0025, 0.09 of 0.365.
  check_close(frequencies({.temperature = 0.5, .seed = 4}),
              {0.0225 / 0.365, 0.25 / 0.365, 0.0025 / 0.365, 0.09 / 0.365});
}

TEST_CASE("top-k keeps the k most probable tokens", "[sampling]") {
  check_close(frequencies({.temperature = 1, .top_k = 2}), {0, 0.625, 0, 0.375});
  check_close(frequencies({.temperature = 1, .top_k = 99}), kProbabilities);
}

TEST_CASE("top-p keeps the fewest tokens that reach p", "[sampling]") {
  check_close(frequencies({.temperature = 1, .top_p = 0.4}), {0, 1, 0, 0});
  check_close(frequencies({.temperature = 1, .top_p = 0.7}), {0, 0.625, 0, 0.375});
  check_close(frequencies({.temperature = 1, .top_p = 0.9}),
              {0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95});
}

TEST_CASE("a seed gives the same draws, row by row", "[sampling]") {
  const SamplingOptions options{.temperature = 1, .seed = 5};
  const std::vector<int32_t> eight = sample(logits_of(8), options, 2);
  const std::vector<int32_t> three = sample(logits_of(3), options, 2);
  CHECK(std::equal(three.begin(), three.end(), eight.begin()));
  std::map<uint64_t, std::vector<int32_t>> by_seed;
  for (uint64_t seed = 0; seed < 4; ++seed)
    by_seed[seed] = sample(logits_of(32), {.temperature = 1, .seed = seed}, 0);
  CHECK(by_seed[0] != by_seed[1]);
  CHECK(by_seed[2] != by_seed[3]);
}

TEST_CASE("sampling options out of range are refused", "[sampling][bad-input]") {
  const Array logits = logits_of(1);
  CHECK_THROWS_WITH(sample(logits, {.temperature = -1}, 0), Catch::Contains("temperature"));
  CHECK_THROWS_WITH(sample(logits, {.top_k = -1}, 0), Catch::Contains("top_k"));
  CHECK_THROWS_WITH(sample(logits, {.top_p = 0}, 0), Catch::Contains("top_p"));
  CHECK_THROWS_WITH(sample(logits, {.top_p = 1.5}, 0), Catch::Contains("top_p"));
}

TEST_CASE("NaN among the logits is an error", "[sampling][bad-input]") {
  const Array logits = Array::from(std::vector<float>{1, NAN, 2, 3}, {2, 2});
  CHECK_THROWS_WITH(sample(logits, {}, 0), Catch::Contains("row 0"));
}
