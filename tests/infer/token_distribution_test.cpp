#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/infer/token_distribution.h>

#include <cmath>
#include <limits>
#include <numeric>

#include <catch2/catch.hpp>

using namespace binade;
using namespace binade::infer;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("probabilities follow temperature, then top-k, then top-p", "[sampling]") {
  // At temperature 2 the weights are 4, 2, 2, 1, 1 of 10.
  const std::vector<float> logits = {0, std::log(16.F), std::log(4.F), std::log(4.F), 0};
  const auto p = [&](SamplingOptions options) {
    std::vector<double> rounded = token_probabilities(logits, options, "the logits");
    for (double& x : rounded) x = std::round(x * 1e6) / 1e6;
    return rounded;
  };
  using Row = std::vector<double>;
  CHECK(p({.temperature = 2}) == Row{.1, .4, .2, .2, .1});
  CHECK(p({.temperature = 2, .top_k = 2}) == Row{0, .666667, .333333, 0, 0});
  CHECK(p({.temperature = 2, .top_p = .55}) == Row{0, .666667, .333333, 0, 0});
  CHECK(p({.temperature = 2, .top_p = .65}) == Row{0, .5, .25, .25, 0});
  CHECK(p({.temperature = 2, .top_k = 3, .top_p = .7}) == Row{0, .666667, .333333, 0, 0});
  CHECK(p({.temperature = 2, .top_p = .01}) == Row{0, 1, 0, 0, 0});
  CHECK(p({.temperature = 0}) == Row{0, 1, 0, 0, 0});
  CHECK(p({.temperature = 1e-6}) == Row{0, 1, 0, 0, 0});
  CHECK(token_probabilities(std::vector<float>{kInfinity, 0, -kInfinity}, {.temperature = 1}, "") ==
        Row{1, 0, 0});
}

TEST_CASE("sample draws from the distribution that is stated", "[sampling]") {
  std::vector<float> logits;
  for (uint64_t x = 0; x < 12; ++x) logits.push_back(3 * uniform_of(philox(2, 0, 0, x).word[0]));
  constexpr int64_t kRows = 20000;
  std::vector<float> rows;
  for (int64_t row = 0; row < kRows; ++row) rows.insert(rows.end(), logits.begin(), logits.end());
  const Array batch = Array::from(rows, {kRows, 12});
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = .8}, SamplingOptions{.temperature = 1.3, .top_k = 7},
        SamplingOptions{.temperature = 1, .top_p = .7},
        SamplingOptions{.temperature = .9, .top_k = 8, .top_p = .85}}) {
    const std::vector<double> p = token_probabilities(logits, options, "the logits");
    CHECK(std::accumulate(p.begin(), p.end(), 0.0) == Approx(1).epsilon(1e-12));
    std::vector<double> seen(12);
    for (const int32_t token : sample(batch, options, 1)) ++seen[static_cast<size_t>(token)];
    double chi2 = 0;
    int freedom = -1;
    for (size_t x = 0; x < 12; ++x) {
      if (p[x] == 0) {
        CHECK(seen[x] == 0);
        continue;
      }
      chi2 += std::pow(seen[x] - kRows * p[x], 2) / (kRows * p[x]);
      ++freedom;
    }
    // Beyond freedom + 6 √(2 · freedom) + 36 by chance less than once in 10^9.
    CHECK(chi2 < freedom + 6 * std::sqrt(2.0 * freedom) + 36);
  }
}

TEST_CASE("logits without a distribution are refused by name", "[sampling]") {
  const auto refuse = [](const std::vector<float>& logits, const char* word) {
    CHECK_THROWS_WITH(token_probabilities(logits, {.temperature = 1}, "the logits of row 2"),
                      StartsWith("the logits of row 2") && Contains(word));
  };
  refuse({0, std::nanf(""), 1}, "NaN");
  refuse({-kInfinity, -kInfinity}, "minus infinity");
  refuse({}, "empty");
  CHECK_THROWS_WITH(token_probabilities(std::vector<float>{0}, {.temperature = -1}, ""),
                    Contains("temperature"));
  CHECK(most_probable(std::vector<float>{1, 3, 3, 2}) == 1);
}
