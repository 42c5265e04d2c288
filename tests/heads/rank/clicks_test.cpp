#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/clicks.h>

#include <catch2/catch.hpp>
#include <cmath>

using namespace binade;
using namespace binade::heads::rank;
using Catch::Matchers::Contains;
using Kind = ClickModel::Kind;

namespace {

// Lists of 12 documents with labels 0 to 2 and a weak ranker: its scores hold some of the label.
struct World {
  std::vector<int64_t> offsets = {0};
  std::vector<float> labels, features;  // features: one for each label above 0, and a constant 0
  std::vector<double> scores;

  explicit World(int lists) {
    uint64_t next = 0;
    const auto uniform = [&] { return uniform_of(philox(9, 0, 0, next++).word[0]); };
    for (int q = 0; q < lists; ++q) {
      for (int i = 0; i < 12; ++i) {
        const int label = uniform() < 0.6F ? 0 : uniform() < 0.6F ? 1 : 2;
        labels.push_back(static_cast<float>(label));
        scores.push_back(label + 3.0 * uniform());
        features.push_back(label == 1 ? 1 : 0);
        features.push_back(label == 2 ? 1 : 0);
        features.push_back(0);
      }
      offsets.push_back(static_cast<int64_t>(labels.size()));
    }
  }
  Judged judged() const { return {offsets, labels}; }
};

// Attraction by its definition, for ε = 0.1 and a largest label of 2.
double attraction(double label) {
  return 0.1 + 0.9 * (std::pow(2, label) - 1) / 3;
}

}  // namespace

TEST_CASE("users of the position model click as often as it says", "[rank][clicks]") {
  // One list, ranked by its scores: 2, 0, 1.
  const std::vector<int64_t> offsets = {0, 3};
  const std::vector<float> labels = {0, 1, 2};
  const std::vector<double> scores = {2, 1, 3};
  ClickOptions options;
  options.model.eta = 0.7;
  options.sessions = 40'000;
  const ClickLog log = simulate_clicks({offsets, labels}, scores, options);
  CHECK(log.sessions() == 40'000);
  CHECK(log.documents[0] == 2);
  CHECK(log.documents[1] == 0);
  const double ranked[] = {2, 0, 1};
  const auto rates = click_rates(log);
  REQUIRE(rates.size() == 10);
  double both = 0;
  for (int64_t s = 0; s < log.sessions(); ++s)
    both += log.clicks[log.offsets[s]] * log.clicks[log.offsets[s] + 2];
  std::vector<double> expected;
  for (int r = 1; r <= 3; ++r) {
    expected.push_back(std::pow(r, -0.7) * attraction(ranked[r - 1]));
    const double error = std::sqrt(expected.back() * (1 - expected.back()) / 40'000);
    CHECK(std::abs(rates[r - 1] - expected.back()) <= 4.5 * error);
  }
  CHECK(std::isnan(rates[3]));
  // Ranks do not know of each other.
  const double joint = expected[0] * expected[2];
  CHECK(std::abs(both / 40'000 - joint) < 4.5 * std::sqrt(joint / 40'000));
}

TEST_CASE("users of the cascade model click as often as it says", "[rank][clicks]") {
  const std::vector<int64_t> offsets = {0, 3};
  const std::vector<float> labels = {1, 2, 0};
  const std::vector<double> scores = {3, 2, 1};
  for (const auto& [stop, patience] : {std::pair(1.0, 1.0), std::pair(0.4, 0.8)}) {
    ClickOptions options;
    options.model.kind = Kind::cascade;
    options.model.stop = stop;
    options.model.patience = patience;
    options.sessions = 40'000;
    const ClickLog log = simulate_clicks({offsets, labels}, scores, options);
    const auto rates = click_rates(log);
    double arrives = 1;
    for (int r = 0; r < 3; ++r) {
      const double a = attraction(labels[r]), expected = arrives * a;
      CHECK(std::abs(rates[r] - expected) <= 4.5 * std::sqrt(expected * (1 - expected) / 40'000));
      arrives *= a * (1 - stop) + (1 - a) * patience;
    }
    if (stop == 1)
      for (int64_t s = 0; s < log.sessions(); ++s)
        CHECK(log.clicks[3 * s] + log.clicks[3 * s + 1] + log.clicks[3 * s + 2] <= 1);
  }
}

// The standard deviation of the ratio of two counts of clicks, relative to it: those at `rank` and
// at rank 1, of all sessions or of those with this intervention.
double relative_error(const ClickLog& log, int64_t rank, bool interventions) {
  double first = 0, other = 0;
  for (int64_t s = 0; s < log.sessions(); ++s) {
    if (interventions && log.swapped[s] != rank) continue;
    first += log.clicks[log.offsets[s]];
    other += log.clicks[log.offsets[s] + rank - 1];
  }
  return std::sqrt(1 / first + 1 / other);
}

TEST_CASE("planted propensities are recovered", "[rank][clicks]") {
  const World world(400);
  for (const double eta : {0.5, 1.0, 1.5}) {
    CAPTURE(eta);
    ClickOptions options;
    options.model.eta = eta;
    options.shown = 8;
    options.sessions = 300;
    options.swap_share = 0.5;
    options.seed = 4;
    const ClickLog log = simulate_clicks(world.judged(), world.scores, options);
    const auto swaps = swap_propensities(log);
    const auto em = em_propensities(log);
    REQUIRE(swaps.size() == 8);
    // Without any intervention, through what features say.
    options.swap_share = 0;
    const ClickLog plain = simulate_clicks(world.judged(), world.scores, options);
    const auto regression = regression_em_propensities(plain, world.features, 3);
    const auto rates = click_rates(plain);
    double naive = 0, best = 0;
    for (int64_t rank = 1; rank <= 8; ++rank) {
      const double truth = std::pow(static_cast<double>(rank), -eta);
      CAPTURE(rank, truth);
      if (rank == 1) continue;
      CHECK(swaps[rank - 1] == Approx(truth).epsilon(4.5 * relative_error(log, rank, true)));
      CHECK(em[rank - 1] == Approx(truth).epsilon(4.5 * relative_error(log, rank, false)));
      CHECK(regression[rank - 1] ==
            Approx(truth).epsilon(4.5 * relative_error(plain, rank, false)));
      naive += std::abs(rates[rank - 1] / rates[0] - truth);
      best += std::abs(regression[rank - 1] - truth);
    }
    // Which click rates are not: the ranker put relevant documents first.
    CHECK(naive > 4 * best);
  }
}

TEST_CASE("a session depends on its list and number alone", "[rank][clicks]") {
  const World world(20);
  ClickOptions options;
  options.swap_share = 0.3;
  options.sessions = 5;
  const ClickLog few = simulate_clicks(world.judged(), world.scores, options);
  options.sessions = 9;
  const ClickLog many = simulate_clicks(world.judged(), world.scores, options);
  for (int64_t q = 0; q < 20; ++q)
    for (int64_t s = 0; s < 5; ++s) {
      const int64_t a = few.offsets[q * 5 + s], b = many.offsets[q * 9 + s];
      CHECK(few.swapped[q * 5 + s] == many.swapped[q * 9 + s]);
      for (int64_t i = 0; i < 10; ++i) {
        CHECK(few.documents[a + i] == many.documents[b + i]);
        CHECK(few.clicks[a + i] == many.clicks[b + i]);
      }
    }
  options.seed = 1;
  CHECK(simulate_clicks(world.judged(), world.scores, options).clicks != many.clicks);
}

TEST_CASE("interventions put ranks 1 and k at each other's place half of the time",
          "[rank][clicks]") {
  const World world(100);
  ClickOptions options;
  options.swap_share = 1;
  options.sessions = 100;
  options.shown = 4;
  const ClickLog log = simulate_clicks(world.judged(), world.scores, options);
  options.swap_share = 0;
  const ClickLog plain = simulate_clicks(world.judged(), world.scores, options);
  double times[5] = {}, swapped[5] = {};
  for (int64_t s = 0; s < log.sessions(); ++s) {
    const int32_t k = log.swapped[s];
    REQUIRE((k >= 2 && k <= 4));
    ++times[k];
    const int64_t at = log.offsets[s];
    const bool changed = log.documents[at] != plain.documents[at];
    swapped[k] += changed ? 1 : 0;
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t from = changed && i == 0 ? k - 1 : changed && i == k - 1 ? 0 : i;
      CHECK(log.documents[at + i] == plain.documents[at + from]);
    }
  }
  for (int k = 2; k <= 4; ++k) {
    CHECK(std::abs(times[k] - 10'000 / 3.0) < 4.5 * std::sqrt(10'000 * 2 / 9.0));
    CHECK(std::abs(swapped[k] - times[k] / 2) < 4.5 * std::sqrt(times[k] / 4));
  }
}

TEST_CASE("short lists, empty lists and ranks that nobody saw", "[rank][clicks]") {
  const std::vector<int64_t> offsets = {0, 2, 2, 3};
  const std::vector<float> labels = {2, 1, 2};
  const std::vector<double> scores = {1, 2, 3};
  ClickOptions options;
  options.swap_share = 1;
  options.sessions = 50;
  const ClickLog log = simulate_clicks({offsets, labels}, scores, options);
  CHECK(log.sessions() == 100);  // none of the list without documents
  CHECK(log.swapped[99] == 0);   // one document cannot change places
  for (const auto& propensities :
       {swap_propensities(log), em_propensities(log),
        regression_em_propensities(log, std::vector<float>{1, 0, 1}, 1)}) {
    REQUIRE(propensities.size() == 10);
    CHECK(propensities[0] == 1);
    CHECK(propensities[1] > 0);
    CHECK(std::isnan(propensities[2]));
  }
}

TEST_CASE("click models out of range are refused", "[rank][clicks]") {
  const World world(3);
  const auto refused = [&](auto change, const char* what) {
    ClickOptions options;
    change(options);
    CHECK_THROWS_WITH(simulate_clicks(world.judged(), world.scores, options), Contains(what));
  };
  refused([](ClickOptions& o) { o.model.eta = -1; }, "eta");
  refused([](ClickOptions& o) { o.model.eta = NAN; }, "eta");
  refused([](ClickOptions& o) { o.model.noise = 1; }, "noise");
  refused([](ClickOptions& o) { o.model.stop = 1.5; }, "stop");
  refused([](ClickOptions& o) { o.model.patience = -0.5; }, "patience");
  refused([](ClickOptions& o) { o.swap_share = 2; }, "share of interventions");
  refused([](ClickOptions& o) { o.shown = 0; }, "1 document or more");
  refused([](ClickOptions& o) { o.sessions = 0; }, "1 session or more");
  refused([](ClickOptions& o) { o.shown = 1, o.swap_share = 0.1; }, "2 or more are shown");
  refused([](ClickOptions& o) { o.model.largest_label = 1; }, "larger than the largest one");
  CHECK_THROWS_WITH(simulate_clicks(world.judged(), std::vector<double>(5), {}),
                    Contains("5 scores for 36 documents"));

  const ClickLog log = simulate_clicks(world.judged(), world.scores, {});
  CHECK_THROWS_WITH(swap_propensities(log), Contains("no sessions with interventions"));
  CHECK_THROWS_WITH(em_propensities(log, {.iterations = 0}), Contains("1 iteration or more"));
  CHECK_THROWS_WITH(regression_em_propensities(log, world.features, 4),
                    Contains("has no features"));
  CHECK_THROWS_WITH(regression_em_propensities(log, world.features, 0), Contains("needs features"));
  std::vector<float> bad = world.features;
  for (float& value : bad) value = NAN;
  CHECK_THROWS_WITH(regression_em_propensities(log, bad, 3), Contains("is not finite"));
}
