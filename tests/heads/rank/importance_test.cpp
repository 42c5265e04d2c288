// Permutation importance: against permutations, scores and metrics that the test makes itself.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include <catch2/catch.hpp>

#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/importance.h>
#include <binade/heads/rank/training.h>

#include "gpu.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;
namespace rank = heads::rank;
using Kind = rank::RankerConfig::Kind;

namespace {

constexpr int64_t kFeatures = 6;
const amp::Preset kFull = amp::Preset::parse("fp32");

// Features 0 to 2 speak of the label, 3 says nothing, 4 is the same everywhere, 5 within a list.
data::RankingSet lists_of(const std::vector<int64_t>& lengths) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<int64_t> offsets = {0};
  std::vector<float> features, labels;
  std::vector<std::string> ids;
  for (const int64_t length : lengths) {
    for (int64_t d = 0; d < length; ++d) {
      const auto label = static_cast<float>(random() % 3);
      labels.push_back(label);
      for (const float x :
           {label + normal(random), 3 * label + 4 * normal(random),
            random() % 3 == 0 ? label : 0.0F, normal(random), 2.5F, static_cast<float>(ids.size())})
        features.push_back(x);
    }
    offsets.push_back(offsets.back() + length);
    ids.push_back(std::to_string(ids.size()));
  }
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  data::RankingSet set;
  set.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())});
  set.features = Array::from(features, {offsets.back(), kFeatures});
  set.labels = Array::from(labels, {offsets.back()});
  set.query_ids = data::Texts(views);
  return set;
}
const std::vector<int64_t> kLengths = {7, 3, 1, 12, 9, 2, 30, 5};

rank::SavedRanker ranker_of(Kind kind, const data::RankingSet& set, const std::string& scaling) {
  RandomState::current().set_seed(11);
  rank::RankerConfig config;
  config.features = kFeatures;
  config.kind = kind;
  config.hidden = {8};
  config.dim = 8;
  config.blocks = 1;
  rank::SavedRanker saved{
      std::make_shared<rank::Ranker>(config), rank::LossSpec::parse("lambdarank"), {}};
  if (!scaling.empty())
    saved.scaling = data::FeatureScaling::fit(set, data::FeatureScalingOptions::parse(scaling));
  saved.ranker->eval();
  return saved;
}

// ---- the oracle
// Which document's value each one gets, as importance.h says: Fisher and Yates from the last place
// on, place ⌊r·count/2^64⌋ by 64 bits r, two of which are a block of Philox.
std::vector<int64_t> shuffled(const data::RankingSet& set, bool within, uint64_t seed,
                              uint64_t feature, uint64_t repeat) {
  std::vector<int64_t> rows(static_cast<size_t>(set.documents()));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<int64_t> ends = {0, set.documents()};
  if (within) ends.assign(set.offset_span().begin(), set.offset_span().end());
  uint64_t draws = 0;
  for (size_t part = 0; part + 1 < ends.size(); ++part)
    for (int64_t last = ends[part + 1] - 1; last > ends[part]; --last) {
      const PhiloxBlock block = philox(seed, feature << 32 | repeat, 2, draws / 2);
      const uint32_t* words = block.word + (draws % 2) * 2;
      ++draws;
      __extension__ using Wide = unsigned __int128;
      const Wide r = static_cast<Wide>(words[0]) << 32 | words[1];
      const auto place = static_cast<int64_t>(r * static_cast<Wide>(last - ends[part] + 1) >> 64);
      std::swap(rows[static_cast<size_t>(last)], rows[static_cast<size_t>(ends[part] + place)]);
    }
  return rows;
}

data::RankingSet permuted(const data::RankingSet& set, int64_t feature,
                          const std::vector<int64_t>& rows) {
  data::RankingSet other = set;
  std::vector<float> features = set.features.to_vector<float>();
  for (size_t i = 0; i < rows.size(); ++i)
    features[i * kFeatures + static_cast<size_t>(feature)] =
        set.feature_span()[static_cast<size_t>(rows[i] * kFeatures + feature)];
  other.features = Array::from(features, set.features.shape());
  return other;
}

// Mean NDCG@4 over lists that have a relevant document, ties in order.
double ndcg(const data::RankingSet& set, const std::vector<double>& scores) {
  double sum = 0, count = 0;
  for (size_t q = 0; q + 1 < set.offset_span().size(); ++q) {
    std::vector<size_t> order(static_cast<size_t>(set.offset_span()[q + 1] - set.offset_span()[q]));
    std::iota(order.begin(), order.end(), static_cast<size_t>(set.offset_span()[q]));
    const auto gains = [&](const auto& better) {
      std::stable_sort(order.begin(), order.end(), better);
      double total = 0;
      for (size_t r = 0; r < std::min<size_t>(4, order.size()); ++r)
        total +=
            (std::exp2(set.label_span()[order[r]]) - 1) / std::log2(2.0 + static_cast<double>(r));
      return total;
    };
    const double found = gains([&](size_t a, size_t b) { return scores[a] > scores[b]; });
    const double ideal =
        gains([&](size_t a, size_t b) { return set.label_span()[a] > set.label_span()[b]; });
    if (ideal == 0) continue;
    sum += found / ideal;
    ++count;
  }
  return sum / count;
}

rank::ImportanceOptions options_of(bool within) {
  rank::ImportanceOptions options;
  options.metric = rank::Metric::parse("ndcg@4");
  options.convention = rank::Convention::preset("skip");
  options.repeats = 4;
  options.seed = 9;
  options.within_lists = within;
  return options;
}

}  // namespace

TEST_CASE("importance is what permutations by hand cost", "[rank][importance]") {
  const data::RankingSet set = lists_of(kLengths);
  for (const Kind kind : {Kind::linear, Kind::mlp, Kind::attention})
    for (const char* scaling : {"", "log1p,zscore", "minmax"})
      for (const bool within : {false, true}) {
        CAPTURE(rank::name_of(kind), scaling, within);
        const rank::SavedRanker saved = ranker_of(kind, set, scaling);
        const auto score = [&](const data::RankingSet& raw) {
          const rank::ResidentSet resident(saved.scaling ? saved.scaling->apply(raw) : raw,
                                           DType::f32, Device::cpu());
          return rank::score(*saved.ranker, resident, saved.loss, kFull);
        };
        const rank::ImportanceOptions options = options_of(within);
        const rank::Importance found = rank::permutation_importance(saved, set, kFull, options);
        const double before = ndcg(set, score(set));
        CHECK(found.baseline.mean == Approx(before).margin(1e-12));
        REQUIRE(found.features.size() == kFeatures);
        double last = 2;
        int64_t constants = 0;
        for (const rank::FeatureImportance& one : found.features) {
          CAPTURE(one.feature);
          const int64_t column = one.feature - 1;
          double sum = 0, square = 0;
          REQUIRE(one.drops.size() == 4);
          for (uint64_t repeat = 0; repeat < 4; ++repeat) {
            const auto rows = shuffled(set, within, 9, static_cast<uint64_t>(column), repeat);
            const double drop = before - ndcg(set, score(permuted(set, column, rows)));
            CHECK(one.drops[repeat] == Approx(drop).margin(1e-12));
            sum += drop;
            square += drop * drop;
          }
          CHECK(one.drop == Approx(sum / 4).margin(1e-12));
          CHECK(one.deviation ==
                Approx(std::sqrt(std::max(0.0, (square - sum * sum / 4) / 3))).margin(1e-7));
          CHECK(one.drop <= last);
          last = one.drop;
          constants += one.constant ? 1 : 0;
          // Within lists the last feature is the same; minmax makes it 0 for all.
          CHECK(one.constant == (column == 4 || (column == 5 && within)));
        }
        CHECK(found.documents_scored == set.documents() * (1 + 4 * (kFeatures - constants)));
      }
}

TEST_CASE("a feature that a ranker does not use has no importance at all", "[rank][importance]") {
  const data::RankingSet set = lists_of(kLengths);
  const rank::SavedRanker saved = ranker_of(Kind::linear, set, "zscore");
  nn::StateDict state = saved.ranker->state();
  state["output.weight"] = Array::from(std::vector<float>{1, 0.5F, 0, 0, 3, 0.1F}, {1, kFeatures});
  saved.ranker->load_state(state);
  for (const char* metric : {"ndcg@4", "map", "arp"}) {
    rank::ImportanceOptions options = options_of(false);
    options.metric = rank::Metric::parse(metric);
    for (const rank::FeatureImportance& one :
         rank::permutation_importance(saved, set, kFull, options).features) {
      CAPTURE(metric, one.feature);
      if (one.feature == 1) CHECK(one.drop > 0.05);  // also of ARP, which rises
      if (one.feature < 3 || one.feature > 5) continue;
      CHECK(one.drops == std::vector<double>(4, 0.0));
      CHECK(one.deviation == 0);
      CHECK(one.constant == (one.feature == 5));
    }
  }
}

TEST_CASE("importance is the same with features numbered from 0, and by its seed",
          "[rank][importance]") {
  data::RankingSet set = lists_of(kLengths);
  const rank::SavedRanker saved = ranker_of(Kind::mlp, set, "zscore");
  rank::ImportanceOptions options = options_of(false);
  const auto one = rank::permutation_importance(saved, set, kFull, options).features;
  set.first_index = 0;
  const auto other = rank::permutation_importance(saved, set, kFull, options).features;
  for (size_t i = 0; i < one.size(); ++i) {
    CHECK(one[i].feature == other[i].feature + 1);
    CHECK(one[i].drops == other[i].drops);
  }
  options.seed = 10;
  CHECK(rank::permutation_importance(saved, set, kFull, options).features[0].drops != one[0].drops);
  options.repeats = 1;
  CHECK(rank::permutation_importance(saved, set, kFull, options).features[0].deviation == 0);
}

TEST_CASE("importance is refused where it says nothing", "[rank][importance][bad_input]") {
  data::RankingSet set = lists_of(kLengths);
  const rank::SavedRanker saved = ranker_of(Kind::linear, set, "");
  rank::ImportanceOptions options = options_of(false);
  const auto found = [&] { rank::permutation_importance(saved, set, kFull, options); };
  options.repeats = 0;
  CHECK_THROWS_WITH(found(), Contains("1 permutation or more"));
  options.repeats = 2;
  const Array labels = set.labels;
  set.labels = Array::zeros({set.documents()}, DType::f32);
  CHECK_THROWS_WITH(found(), Contains("no list has a value of NDCG@4"));
  set.labels = labels;
  set.features = set.features.slice(1, 0, 5).contiguous();
  CHECK_THROWS_WITH(found(), Contains("the ranker has 6 features, the lists have 5"));
}

TEST_CASE("importance on a GPU is that of the CPU", "[rank][importance][cuda]") {
  require_gpu();
  const data::RankingSet set = lists_of(std::vector<int64_t>(50, 20));
  for (const Kind kind : {Kind::mlp, Kind::attention}) {
    const rank::SavedRanker saved = ranker_of(kind, set, "zscore");
    const auto host = rank::permutation_importance(saved, set, kFull, options_of(false));
    saved.ranker->to(test_gpu());
    const auto device = rank::permutation_importance(saved, set, kFull, options_of(false));
    for (const rank::FeatureImportance& one : host.features) {
      const auto same = std::find_if(device.features.begin(), device.features.end(),
                                     [&](const auto& x) { return x.feature == one.feature; });
      CHECK(same->drop == Approx(one.drop).margin(2e-3));  // scores that rounding swaps
    }
  }
}
