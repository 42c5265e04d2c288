#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/data/letor.h>
#include <binade/heads/rank/metrics.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "ranking_data.h"

using namespace binade;
using namespace binade::heads::rank;
using Catch::Matchers::Contains;

namespace {

// ---- the oracle: every formula as its definition says, for one order of the documents
using Labels = std::vector<double>;

double plain_gain(const Convention& c, double y) {
  return c.gain == Gain::linear ? y : std::pow(2, y) - 1;
}

double plain_dcg(const Convention& c, const Labels& ranked, size_t k) {
  double sum = 0;
  for (size_t i = 0; i < std::min(k, ranked.size()); ++i) {
    const double r = static_cast<double>(i) + 1;
    double divisor = std::log(r + 1) / std::log(2.0);
    if (c.discount == Discount::letor) divisor = i < 2 ? 1 : std::log(r) / std::log(2.0);
    sum += plain_gain(c, ranked[i]) / divisor;
  }
  return sum;
}

// NaN: nothing relevant.
double plain(const Convention& c, const Metric& metric, const Labels& ranked, double largest) {
  const size_t k = metric.cut == 0 ? ranked.size() : static_cast<size_t>(metric.cut);
  const auto relevant = static_cast<double>(
      std::count_if(ranked.begin(), ranked.end(), [](double y) { return y >= 1; }));
  const double total = std::accumulate(ranked.begin(), ranked.end(), 0.0);
  switch (metric.measure) {
    case Measure::ndcg: {
      Labels ideal = ranked;
      std::sort(ideal.rbegin(), ideal.rend());
      if (total == 0) return NAN;
      if (c.short_lists_zero && ranked.size() < k) return 0;
      return plain_dcg(c, ranked, k) / plain_dcg(c, ideal, k);
    }
    case Measure::map: {
      double sum = 0, seen = 0;
      for (size_t i = 0; i < std::min(k, ranked.size()); ++i)
        if (ranked[i] >= 1) sum += ++seen / static_cast<double>(i + 1);
      return relevant == 0 ? NAN : sum / relevant;
    }
    case Measure::mrr:
      if (relevant == 0) return NAN;
      for (size_t i = 0; i < std::min(k, ranked.size()); ++i)
        if (ranked[i] >= 1) return 1.0 / static_cast<double>(i + 1);
      return 0;
    case Measure::err: {
      double sum = 0, reaches = 1;
      for (size_t i = 0; i < std::min(k, ranked.size()); ++i) {
        const double stops = (std::pow(2, ranked[i]) - 1) / std::pow(2, largest);
        sum += reaches * stops / static_cast<double>(i + 1);
        reaches *= 1 - stops;
      }
      return total == 0 ? NAN : sum;
    }
    case Measure::precision: {
      double hits = 0;
      for (size_t i = 0; i < std::min(k, ranked.size()); ++i) hits += ranked[i] >= 1 ? 1 : 0;
      return relevant == 0 ? NAN : hits / static_cast<double>(k);
    }
    case Measure::arp: {
      double sum = 0;
      for (size_t i = 0; i < ranked.size(); ++i) sum += ranked[i] * static_cast<double>(i + 1);
      return total == 0 ? NAN : sum / total;
    }
  }
  return NAN;
}

struct OverOrders {
  double stable = 0, mean = 0, smallest = 1e9, largest = -1e9;
};

// Over all orders of the documents in which scores do not rise.
OverOrders over_orders(const Convention& c, const Metric& metric, const Labels& labels,
                       const std::vector<double>& scores, double largest) {
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), 0);
  OverOrders out;
  int64_t count = 0;
  do {
    bool falls = true;
    for (size_t i = 1; i < order.size(); ++i) falls &= scores[order[i]] <= scores[order[i - 1]];
    if (!falls) continue;
    Labels ranked;
    for (const size_t i : order) ranked.push_back(labels[i]);
    const double value = plain(c, metric, ranked, largest);
    if (count++ == 0) out.stable = value;  // the first order in alphabetical order is it
    out.mean += value;
    out.smallest = std::min(out.smallest, value);
    out.largest = std::max(out.largest, value);
  } while (std::next_permutation(order.begin(), order.end()));
  out.mean /= static_cast<double>(count);
  return out;
}

struct Draws {
  uint64_t next = 0;
  int below(int limit) {
    return static_cast<int>(philox(7, 0, 0, next++).word[0] % static_cast<uint32_t>(limit));
  }
};

// Lists of up to six documents with many ties, some of them without relevant documents.
struct Case {
  std::vector<int64_t> offsets = {0};
  std::vector<float> labels;
  std::vector<double> scores;

  explicit Case(Draws& draws, int lists = 40, int largest = 4) {
    for (int q = 0; q < lists; ++q) {
      const int length = draws.below(7);
      const bool relevant = draws.below(5) > 0;
      const int levels = 1 + draws.below(4);
      for (int i = 0; i < length; ++i) {
        labels.push_back(relevant ? static_cast<float>(draws.below(largest + 1)) : 0.0F);
        scores.push_back(draws.below(levels) - 1);
      }
      offsets.push_back(static_cast<int64_t>(labels.size()));
    }
  }
  Judged judged() const { return {offsets, labels}; }
  Labels labels_of(size_t q) const {
    return {labels.begin() + offsets[q], labels.begin() + offsets[q + 1]};
  }
  std::vector<double> scores_of(size_t q) const {
    return {scores.begin() + offsets[q], scores.begin() + offsets[q + 1]};
  }
};

std::vector<Metric> metrics_of(std::initializer_list<const char*> names) {
  std::vector<Metric> metrics;
  for (const char* name : names) metrics.push_back(Metric::parse(name));
  return metrics;
}

const auto kAll = {"ndcg", "ndcg@1", "ndcg@3", "ndcg@10", "map", "map@2", "mrr", "mrr@2",
                   "err",  "err@3",  "p@1",    "p@3",     "p@9", "p",     "arp"};

}  // namespace

TEST_CASE("metrics are what their definitions say of every order of ties", "[rank][metrics]") {
  Draws draws;
  for (const char* preset : {"zero", "trec_eval", "letor4"}) {
    const Case lists(draws, 40, std::string(preset) == "letor4" ? 2 : 4);
    const double largest = *std::max_element(lists.labels.begin(), lists.labels.end());
    const std::vector<Metric> metrics = metrics_of(kAll);
    for (const Ties ties : {Ties::stable, Ties::expected, Ties::best, Ties::worst}) {
      Convention convention = Convention::preset(preset);
      convention.ties = ties;
      convention.empty = EmptyLists::skip;
      const auto results = evaluate(lists.judged(), lists.scores, metrics, convention);
      for (size_t m = 0; m < metrics.size(); ++m) {
        double sum = 0;
        int64_t count = 0, empty = 0;
        for (size_t q = 0; q + 1 < lists.offsets.size(); ++q) {
          CAPTURE(preset, metrics[m].name(), static_cast<int>(ties), q);
          const double actual = results[m].each[q];
          if (lists.labels_of(q).empty()) {
            CHECK(std::isnan(actual));
            continue;
          }
          const OverOrders all =
              over_orders(convention, metrics[m], lists.labels_of(q), lists.scores_of(q), largest);
          if (std::isnan(all.mean)) {
            CHECK(std::isnan(actual));
            ++empty;
            continue;
          }
          const bool high = (ties == Ties::best) != metrics[m].smaller_is_better();
          const double expected = ties == Ties::stable     ? all.stable
                                  : ties == Ties::expected ? all.mean
                                  : high                   ? all.largest
                                                           : all.smallest;
          CHECK(actual == Approx(expected).epsilon(1e-12).margin(1e-13));
          sum += expected;
          ++count;
        }
        CHECK(results[m].lists == count);
        CHECK(results[m].empty == empty);
        CHECK(results[m].mean == Approx(sum / static_cast<double>(count)).epsilon(1e-12));
      }
    }
  }
}

TEST_CASE("expected values of long ties agree with the mean of random orders", "[rank][metrics]") {
  // 60 documents of one score, far beyond what can be enumerated.
  std::vector<float> labels(60, 0.0F);
  for (size_t i = 0; i < labels.size(); i += 7) labels[i] = static_cast<float>(i % 3 + 1);
  const std::vector<int64_t> offsets = {0, 60};
  const std::vector<double> scores(60, 1.0);
  const std::vector<Metric> metrics = metrics_of({"ndcg@10", "map", "mrr", "err@20", "p@5", "arp"});
  Convention convention = Convention::preset("zero");
  convention.ties = Ties::expected;
  const auto expected = evaluate({offsets, labels}, scores, metrics, convention);
  convention.ties = Ties::random;
  constexpr int kDraws = 4000;
  std::vector<double> sum(metrics.size()), squares(metrics.size());
  for (int draw = 0; draw < kDraws; ++draw) {
    convention.seed = static_cast<uint64_t>(draw);
    const auto one = evaluate({offsets, labels}, scores, metrics, convention, 1);
    for (size_t m = 0; m < metrics.size(); ++m)
      sum[m] += one[m].mean, squares[m] += one[m].mean * one[m].mean;
  }
  for (size_t m = 0; m < metrics.size(); ++m) {
    const double mean = sum[m] / kDraws;
    const double error = std::sqrt((squares[m] / kDraws - mean * mean) / kDraws);
    CAPTURE(metrics[m].name(), mean, expected[m].mean, error);
    CHECK(std::abs(mean - expected[m].mean) < 4.5 * error);
  }
}

TEST_CASE("lists without relevant documents count what the convention says", "[rank][metrics]") {
  // One list ranked perfectly, one without relevant documents, one without documents.
  const std::vector<int64_t> offsets = {0, 2, 4, 4};
  const std::vector<float> labels = {2, 0, 0, 0};
  const std::vector<double> scores = {2, 1, 5, 6};
  const std::map<std::string, double> expected = {
      {"lightgbm", 1.0}, {"xgboost", 1.0}, {"allrank", 1.0}, {"tfr", 0.5},  {"rax", 0.5},
      {"dasalc", 1.0},   {"letor4", 0.5},  {"one", 1.0},     {"zero", 0.5}, {"skip", 1.0}};
  for (const auto& [name, mean] : expected) {
    CAPTURE(name);
    const auto metrics = metrics_of({"ndcg@2", "map", "mrr", "p@1", "err", "arp"});
    const auto results = evaluate({offsets, labels, 2}, scores, metrics, Convention::preset(name));
    const bool skip = name == "dasalc" || name == "skip";
    for (size_t m = 0; m < 4; ++m) {
      CHECK(results[m].mean == Approx(mean));
      CHECK(results[m].empty == 1);
      CHECK(results[m].lists == (skip ? 1 : 2));
    }
    CHECK(results[5].mean == Approx(1.0));  // ARP has no value there
    CHECK(results[5].lists == 1);
  }
  // Nothing counts: no number is made up.
  const std::vector<float> none = {0, 0, 0, 0};
  const auto nothing =
      evaluate({offsets, none}, scores, metrics_of({"ndcg"}), Convention::preset("skip"));
  CHECK(std::isnan(nothing[0].mean));
  CHECK(nothing[0].lists == 0);
}

TEST_CASE("presets differ where the programs do", "[rank][metrics]") {
  const std::vector<int64_t> offsets = {0, 4};
  const std::vector<float> labels = {0, 1, 2, 1};
  const std::vector<double> scores = {4, 3, 2, 1};
  const auto at = [&](const char* preset, const char* metric) {
    Convention convention = Convention::preset(preset);
    if (convention.ties == Ties::name) convention.ties = Ties::stable;
    return evaluate({offsets, labels}, scores, metrics_of({metric}), convention)[0].mean;
  };
  const double l3 = std::log2(3.0), l5 = std::log2(5.0);
  // 2^y − 1 at 1/log2(1 + r).
  CHECK(at("lightgbm", "ndcg") == Approx((1 / l3 + 3 / 2.0 + 1 / l5) / (3 + 1 / l3 + 1 / 2.0)));
  CHECK(at("trec_eval", "ndcg") == Approx((1 / l3 + 2 / 2.0 + 1 / l5) / (2 + 1 / l3 + 1 / 2.0)));
  CHECK(at("letor4", "ndcg@4") == Approx((1 + 3 / l3 + 1 / 2.0) / (3 + 1 + 1 / l3)));
  CHECK(at("letor4", "ndcg@5") == 0);
  CHECK(at("lightgbm", "ndcg@5") > 0.5);
}

TEST_CASE("ties by falling names are trec_eval's", "[rank][metrics]") {
  const std::vector<int64_t> offsets = {0, 3};
  const std::vector<float> labels = {0, 1, 0};
  const std::vector<double> scores = {1, 1, 1};
  const std::vector<std::string> names = {"b", "a", "c"};
  const auto order = falling_names(
      3, [&](int64_t i) -> std::string_view { return names[static_cast<size_t>(i)]; });
  const Convention convention = Convention::preset("trec_eval");
  const auto result =
      evaluate({offsets, labels, 0, order}, scores, metrics_of({"mrr"}), convention);
  CHECK(result[0].mean == Approx(1.0 / 3));
  CHECK_THROWS_WITH(evaluate({offsets, labels}, scores, metrics_of({"mrr"}), convention),
                    Contains("need the names of the documents"));
}

TEST_CASE("documents are ranked by falling scores", "[rank][metrics]") {
  const std::vector<int64_t> offsets = {0, 3, 3, 5};
  const std::vector<float> labels = {0, 1, 0, 2, 0};
  const std::vector<double> scores = {1, 7, 1, -2, 5};
  Convention convention = Convention::preset("zero");
  CHECK(ranked_documents({offsets, labels}, scores, convention) ==
        std::vector<int64_t>{1, 0, 2, 4, 3});
}

TEST_CASE("names of metrics and conventions", "[rank][metrics]") {
  CHECK(Metric::parse("NDCG@10") == Metric{Measure::ndcg, 10});
  CHECK(Metric::parse("precision@3") == Metric{Measure::precision, 3});
  for (const char* name : {"NDCG@10", "MAP", "MRR@5", "ERR", "P@10", "ARP"})
    CHECK(Metric::parse(name).name() == name);
  for (const char* bad : {"ndcg@0", "ndcg@-1", "ndcg@", "ndcg@1.5", "ndcg@nan", "ndcg@1e10", "p@x",
                          "ndcg@10@2", "ndcg@ 1"})
    CHECK_THROWS_WITH(Metric::parse(bad), Contains("expected a whole number from 1"));
  CHECK_THROWS_WITH(Metric::parse("arp@3"), Contains("no cut"));
  CHECK_THROWS_WITH(Metric::parse("ndgc"), Contains("did you mean ndcg?"));
  CHECK_THROWS_WITH(Metric::parse(""), Contains("no metric"));
  CHECK_THROWS_WITH(Convention::preset("lightgmb"), Contains("did you mean lightgbm?"));
  CHECK_THROWS_WITH(parse_ties("stabel"), Contains("did you mean stable?"));
  CHECK_THROWS_WITH(parse_empty_lists("nil"), Contains("zero, one, skip"));
  for (const std::string& name : Convention::preset_names())
    CHECK(Convention::preset(name).name == name);
  CHECK(Convention::preset("letor4").describe(Metric::parse("ndcg@10")) ==
        "gain 2^y-1, discount 1, 1, 1/log2(r), lists shorter than 10 count 0, lists without "
        "relevant documents count 0, ties by input order");
  CHECK(Convention::preset("one").describe(Metric::parse("arp")) ==
        "weight y, lists without relevant documents left out, ties by input order");
}

TEST_CASE("what cannot be measured is refused", "[rank][metrics]") {
  const std::vector<int64_t> offsets = {0, 2};
  const std::vector<float> labels = {1, 0};
  const auto metrics = metrics_of({"ndcg"});
  const auto measure = [&](const std::vector<int64_t>& o, const std::vector<float>& l,
                           const std::vector<double>& s, const char* preset = "zero") {
    return evaluate({o, l}, s, metrics, Convention::preset(preset));
  };
  CHECK_THROWS_WITH(measure(offsets, labels, {1, 2, 3}), Contains("3 scores for 2 documents"));
  CHECK_THROWS_WITH(measure(offsets, labels, {1, NAN}), Contains("the score of document 1"));
  CHECK_THROWS_WITH(measure(offsets, {1, -1}, {1, 2}),
                    Contains("document 1 (from 0) has the label -1"));
  CHECK_THROWS_WITH(measure(offsets, {1, NAN}, {1, 2}),
                    Contains("document 1 (from 0) has the label"));
  CHECK_THROWS_WITH(measure(offsets, {1, 3}, {1, 2}, "letor4"),
                    Contains("whole numbers from 0 to 2"));
  CHECK_THROWS_WITH(measure(offsets, {1, 0.5F}, {1, 2}, "lightgbm"),
                    Contains("gain table of lightgbm"));
  CHECK_THROWS_WITH(measure(offsets, {1, 31}, {1, 2}, "lightgbm"), Contains("from 0 to 30"));
  CHECK_THROWS_WITH(measure({0, 3}, labels, {1, 2}), Contains("at most the number of documents"));
  CHECK_THROWS_WITH(measure({0, 2, 1, 2}, labels, {1, 2}), Contains("fall from 2 to 1 at list 1"));
  CHECK_THROWS_WITH(measure({1, 2}, labels, {1, 2}), Contains("from 0"));
  CHECK_THROWS_WITH(measure({}, labels, {1, 2}), Contains("from 0"));
  // Rows behind the last list belong to no list and are not looked at; infinities are scores.
  CHECK(measure({0, 2}, {1, 0, NAN}, {INFINITY, -INFINITY, NAN})[0].mean == 1);
}

TEST_CASE("MQ2008's feature 39 scores what each convention says of it", "[rank][metrics][shared]") {
  const test::TemporaryFolder folder;
  const auto files = test::ranking_files("MQ2008", folder);
  if (files.empty()) return;
  const data::RankingSet set = data::read_letor(files);
  REQUIRE(set.queries() == 784);
  REQUIRE(set.documents() == 15211);
  REQUIRE(set.feature_count() == 46);
  std::vector<double> scores;
  for (int64_t i = 0; i < set.documents(); ++i)
    scores.push_back(set.feature_span()[static_cast<size_t>(i * 46 + 38)]);
  const Judged judged = {set.offset_span(), set.label_span()};
  const auto metrics = metrics_of({"ndcg@10"});
  const std::map<std::string, double> expected = {
      {"letor4", 0.2234}, {"zero", 0.4955}, {"skip", 0.6888}, {"one", 0.7761}};
  for (const auto& [name, value] : expected) {
    CAPTURE(name);
    const auto result = evaluate(judged, scores, metrics, Convention::preset(name));
    CHECK(result[0].mean == Approx(value).margin(1e-4));
    CHECK(result[0].empty == 220);
  }
  // The exact expectation of a random ranker.
  Convention random = Convention::preset("skip");
  random.ties = Ties::expected;
  const std::vector<double> same(scores.size(), 0.0);
  CHECK(evaluate(judged, same, metrics, random)[0].mean == Approx(0.4667).margin(1e-4));
  const auto bounds = tie_bounds(judged, scores, metrics, Convention::preset("skip"))[0];
  CHECK(bounds.worst <= 0.6888);
  CHECK(bounds.best >= 0.6887);
}

TEST_CASE("the randomisation test gives the p-value of all sign patterns", "[rank][metrics]") {
  const std::vector<double> a = {0.5, 0.7, 0.2, 0.9, NAN, 0.4};
  const std::vector<double> b = {0.4, 0.5, 0.3, 0.6, NAN, 0.4};
  // The differences .1 .2 −.1 .3 0 sum up to .5: counted in tenths, which do not round.
  int hits = 0;
  for (int signs = 0; signs < 32; ++signs) {
    const int tenths[] = {1, 2, -1, 3, 0};
    int sum = 0;
    for (int i = 0; i < 5; ++i) sum += (signs >> i & 1) != 0 ? tenths[i] : -tenths[i];
    hits += std::abs(sum) >= 5 ? 1 : 0;
  }
  const PairedTest test = paired_test(a, b);
  CHECK(test.exact);
  CHECK(test.lists == 5);
  CHECK(test.rounds == 32);
  CHECK(test.mean_difference == Approx(0.1));
  CHECK(test.p_value == Approx(hits / 32.0));

  // Drawn patterns come near the exact value, and are the same every time.
  std::vector<double> c, d;
  Draws draws;
  for (int i = 0; i < 14; ++i) {
    c.push_back(draws.below(100) / 100.0 + 0.1);
    d.push_back(draws.below(100) / 100.0);
  }
  const PairedTest exact = paired_test(c, d, 1 << 14);
  const PairedTest drawn = paired_test(c, d, 10'000, 3);
  CHECK(exact.exact);
  CHECK_FALSE(drawn.exact);
  const double error = std::sqrt(exact.p_value * (1 - exact.p_value) / 10'000);
  CHECK(std::abs(drawn.p_value - exact.p_value) < 4.5 * error + 1e-4);
  CHECK(paired_test(c, d, 10'000, 3).p_value == drawn.p_value);
  CHECK(paired_test(c, c, 1000).p_value == 1);
  CHECK(paired_test({}, {}).lists == 0);

  CHECK_THROWS_WITH(paired_test(a, c), Contains("6 and 14"));
  CHECK_THROWS_WITH(paired_test(a, std::vector<double>(6, 1.0)), Contains("list 4"));
  CHECK_THROWS_WITH(paired_test(c, d, 0), Contains("1 round or more"));
}

TEST_CASE("the chance of a small p-value without a difference is that p-value", "[rank][metrics]") {
  // Pairs of equal distribution: p-values are uniform.
  Draws draws;
  int below = 0;
  constexpr int kTests = 400;
  for (int t = 0; t < kTests; ++t) {
    std::vector<double> a, b;
    for (int i = 0; i < 30; ++i) a.push_back(draws.below(1000)), b.push_back(draws.below(1000));
    below += paired_test(a, b, 400, static_cast<uint64_t>(t)).p_value <= 0.2 ? 1 : 0;
  }
  CHECK(below > kTests * 0.2 - 4 * std::sqrt(kTests * 0.2 * 0.8));
  CHECK(below < kTests * 0.2 + 4 * std::sqrt(kTests * 0.2 * 0.8));
}
