#include <binade/infer/sampling.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/core/random.h>
#include <binade/infer/slot_states.h>

#include "core/sample_cases.h"
#include "nn/tiny_models.h"

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

// Sampling by its definition: all tokens sorted, probabilities in f64, running sums.
int32_t draw_by_hand(const std::vector<float>& logits, const SamplingOptions& options,
                     uint64_t step, uint64_t place) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  if (options.temperature == 0) return order[0];
  size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  std::vector<double> weights;
  for (size_t i = 0; i < kept; ++i)
    weights.push_back(std::exp(
        (double{logits[static_cast<size_t>(order[i])]} - logits[static_cast<size_t>(order[0])]) /
        options.temperature));
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1) {
    double sum = 0;
    size_t count = 0;
    while (count < kept && (count == 0 || sum < options.top_p * total)) sum += weights[count++];
    kept = count;
    total = sum;
  }
  double left = uniform_of(philox(options.seed, step, place, 0).word[0]) * total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

void check_draws(Device device) {
  test::Random random(5);
  for (const int64_t vocabulary : {1, 5, 300, 5000}) {
    const Array logits = test::logits_of_all_kinds(8, vocabulary, DType::f32, random);
    if (vocabulary == 1) test::set_all(logits, 1);
    const Array moved = logits.to(device);
    for (const kernels::SampleRules& rules : test::sample_rules(vocabulary)) {
      INFO("V " << vocabulary << ", temperature " << rules.temperature << ", top-k " << rules.top_k
                << ", top-p " << rules.top_p);
      const SamplingOptions options{rules.temperature, rules.top_k, rules.top_p, rules.seed};
      for (const uint64_t step : {0, 3}) {
        std::vector<int32_t> expected;
        for (int64_t row = 0; row < 8; ++row)
          expected.push_back(draw_by_hand(logits.select(0, row).to_vector<float>(), options, step,
                                          static_cast<uint64_t>(row)));
        CHECK(sample(moved, options, step) == expected);
      }
    }
  }
}

void check_states(Device device) {
  using infer::SlotStates;
  // Token 2 is the most probable, then 1, 0, 3; 2 stops, but not before two tokens.
  const Array logits =
      Array::from(std::vector<float>{1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0}, {3, 4}, device);
  SlotStates states(3, {.stop_ids = {2}, .forbidden = {2}, .forbidden_for = 2}, device);
  const auto seen = [&] {
    std::vector<int32_t> values = states.packed().to_vector<int32_t>();
    return values;
  };
  states.sample(logits);
  CHECK(seen() == std::vector<int32_t>{0, 0, 0, 0, 0, 0});  // nobody was started
  states.start({2, 0}, {{.limit = 1}, {.limit = 9}});
  states.sample(logits);
  CHECK(seen() == std::vector<int32_t>{1, 0, 1, 1, 0, 0});  // slot 2 is at its limit
  states.start({1}, {{}});
  states.sample(logits);
  CHECK(seen() == std::vector<int32_t>{1, 1, 1, 1, 1, 0});
  states.sample(logits);  // slot 0 has its two
  CHECK(seen() == std::vector<int32_t>{2, 1, 1, 0, 1, 0});
  states.stop({1});
  states.sample(logits);
  CHECK(seen() == std::vector<int32_t>{2, 1, 1, 0, 0, 0});
  // Rows of another order.
  states.start({0, 1, 2}, {{.drawn = 5}, {.drawn = 5}, {.drawn = 5}});
  const Array two = Array::from(std::vector<float>{0, 9, 0, 0, 0, 0, 0, 9}, {2, 4}, device);
  states.sample(two, Array::from(std::vector<int32_t>{2, 1}, {2}, device));
  CHECK(seen() == std::vector<int32_t>{0, 3, 1, 1, 1, 1});
}

}  // namespace

TEST_CASE("draws are those of the definition", "[sampling]") {
  check_draws(Device::cpu());
}
TEST_CASE("draws are those of the definition on the GPU", "[sampling][cuda]") {
  check_draws(test::cuda_or_skip());
}
TEST_CASE("slots stop at stop ids and limits, one by one", "[sampling]") {
  check_states(Device::cpu());
}
TEST_CASE("slots stop at stop ids and limits, one by one on the GPU", "[sampling][cuda]") {
  check_states(test::cuda_or_skip());
}

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

namespace {

void check_bad_logits(Device device) {
  const auto row_0 = [&](float x, float y) {
    return Array::from(std::vector<float>{x, y, 2, 3}, {2, 2}, device);
  };
  for (const double temperature : {0.0, 1.0}) {
    const SamplingOptions options{.temperature = temperature};
    CHECK_THROWS_WITH(sample(row_0(1, NAN), options, 0), Catch::Contains("row 0"));
    CHECK_THROWS_WITH(sample(row_0(-NAN, 1), options, 0), Catch::Contains("row 0"));
    CHECK_THROWS_WITH(sample(row_0(-INFINITY, -INFINITY), options, 0), Catch::Contains("row 0"));
    CHECK(sample(row_0(-INFINITY, -1e30f), options, 0)[0] == 1);
    CHECK(sample(row_0(-1e30f, INFINITY), options, 0)[0] == 1);
  }
}

}  // namespace

TEST_CASE("NaN among the logits is an error", "[sampling][bad-input]") {
  check_bad_logits(Device::cpu());
}
TEST_CASE("NaN among the logits is an error on the GPU", "[sampling][bad-input][cuda]") {
  check_bad_logits(test::cuda_or_skip());
}
