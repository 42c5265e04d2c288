// Rankers in the forms of other programs: an ONNX model computes their scores of raw features, a C
// header is refused where it could not (tests/programs/export_ranker.sh compiles it).
#include <cmath>
#include <random>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/ops.h>
#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/c_header.h>
#include <binade/heads/rank/onnx.h>
#include <binade/heads/rank/training.h>

#include "heads/rank/onnx_graph.h"

using namespace binade;
using Catch::Matchers::Contains;
namespace rank = heads::rank;
namespace onnx = binade::test::onnx;
using Kind = rank::RankerConfig::Kind;

namespace {

constexpr int64_t kFeatures = 7;

// Raw features of all sizes: counts up to 1e8, tiny ones, a constant, one that is mostly 0,
// negative ones, and one whose mean is far larger than its deviation.
data::RankingSet raw_lists(const std::vector<int64_t>& lengths) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<int64_t> offsets = {0};
  std::vector<float> features;
  std::vector<std::string> ids;
  for (const int64_t length : lengths) {
    for (int64_t d = 0; d < length; ++d)
      for (const double x : {std::exp(5 + 4 * normal(random)), 1e-12 * normal(random), 3.0,
                             random() % 4 == 0 ? 1.0 : 0.0, -50 * std::abs(normal(random)),
                             1e6 + normal(random), 1e8 * (normal(random) > 1)})
        features.push_back(static_cast<float>(x));
    offsets.push_back(offsets.back() + length);
    ids.push_back(std::to_string(ids.size()));
  }
  const std::vector<std::string_view> views(ids.begin(), ids.end());
  data::RankingSet set;
  set.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())});
  set.features = Array::from(features, {offsets.back(), kFeatures});
  set.labels = Array::zeros({offsets.back()}, DType::f32);
  set.query_ids = data::Texts(views);
  return set;
}

rank::SavedRanker made(const rank::RankerConfig& config, const std::string& loss,
                       const std::string& scaling, const data::RankingSet& set) {
  RandomState::current().set_seed(5);
  rank::SavedRanker saved{std::make_shared<rank::Ranker>(config), rank::LossSpec::parse(loss), {}};
  if (!scaling.empty())
    saved.scaling = data::FeatureScaling::fit(set, data::FeatureScalingOptions::parse(scaling));
  // Norms that do something, and rows that are nearly constant, where epsilon counts.
  std::mt19937 random(2);
  nn::StateDict state = saved.ranker->state();
  for (auto& [name, values] : state) {
    if (name.find("norm") == std::string::npos) continue;
    std::vector<float> drawn(static_cast<size_t>(values.numel()));
    for (float& x : drawn) x = 0.5F + static_cast<float>(random() % 1000) / 1000;
    values = Array::from(drawn, values.shape());
  }
  if (state.contains("layers.0.linear.weight"))
    state["layers.0.linear.weight"] = (Tensor(state["layers.0.linear.weight"]) * 0.01).array();
  saved.ranker->load_state(state);
  saved.ranker->eval();
  return saved;
}

// The largest difference between the model's scores, list by list, and the ranker's.
double difference(const rank::SavedRanker& saved, const data::RankingSet& set) {
  const rank::ResidentSet resident(saved.scaling ? saved.scaling->apply(set) : set, DType::f32,
                                   Device::cpu());
  const std::vector<double> expected =
      rank::score(*saved.ranker, resident, saved.loss, amp::Preset::parse("fp32"));
  const std::string bytes = rank::to_onnx(saved);
  const onnx::Model model(bytes);
  double worst = 0;
  for (int64_t q = 0; q < set.queries(); ++q) {
    const int64_t begin = set.offset_span()[q], end = set.offset_span()[q + 1];
    onnx::Value list = onnx::made({end - begin, kFeatures}, onnx::kFloat);
    std::copy(set.feature_span().begin() + begin * kFeatures,
              set.feature_span().begin() + end * kFeatures, list.numbers.begin());
    const std::vector<double> scores = model.run(list);
    REQUIRE(scores.size() == static_cast<size_t>(end - begin));
    for (int64_t d = begin; d < end; ++d) {
      const double score = expected[static_cast<size_t>(d)];
      worst = std::max(worst, std::abs(scores[static_cast<size_t>(d - begin)] - score) /
                                  std::max(1.0, std::abs(score)));
    }
  }
  return worst;
}

rank::RankerConfig config_of(Kind kind, int64_t outputs = 1) {
  return {.features = kFeatures,
          .kind = kind,
          .hidden = {9, 6},
          .outputs = outputs,
          .dim = 8,
          .blocks = 2,
          .heads = 2};
}

}  // namespace

TEST_CASE("an ONNX model scores raw features as the ranker does", "[rank][onnx]") {
  const data::RankingSet set = raw_lists({5, 1, 12, 30, 2});
  for (const Kind kind : {Kind::linear, Kind::mlp, Kind::attention})
    for (const char* scaling : {"log1p,zscore", "zscore", "log1p", "clip=0.05,log1p,zscore,limit=2",
                                "minmax", "clip=0.1,minmax,limit=0.7", "limit=3"}) {
      CAPTURE(rank::name_of(kind), scaling);
      CHECK(difference(made(config_of(kind), "lambdarank", scaling, set), set) < 1e-5);
    }
  rank::RankerConfig plain = config_of(Kind::mlp);
  plain.layer_norm = false;
  CHECK(difference(made(plain, "mse", "log1p,zscore", set), set) < 1e-5);
  plain.hidden = {};
  CHECK(difference(made(plain, "mse", "log1p,zscore", set), set) < 1e-5);
  // Without any scaling: features that a network takes as they are.
  data::RankingSet small = raw_lists({6, 3});
  small.features =
      data::FeatureScaling::fit(small, data::FeatureScalingOptions::parse("log1p,zscore"))
          .apply(small)
          .features;
  CHECK(difference(made(config_of(Kind::attention), "mse", "", small), small) < 1e-5);
}

TEST_CASE("an ONNX model gives what documents are ranked by, of every kind of outputs",
          "[rank][onnx]") {
  const data::RankingSet set = raw_lists({8, 4});
  for (const auto& loss : rank::loss_table()) {
    const std::string name(loss.name);
    CAPTURE(name);
    const int64_t outputs = rank::output_columns(rank::LossSpec::parse(name), 4);
    CHECK(difference(made(config_of(Kind::mlp, outputs), name, "log1p,zscore", set), set) < 1e-5);
  }
}

TEST_CASE("an ONNX model says what it is", "[rank][onnx]") {
  const data::RankingSet set = raw_lists({8, 4});
  const auto model_of = [&](Kind kind, const char* scaling) {
    const rank::SavedRanker saved = made(config_of(kind), "lambdarank:truncation=5", scaling, set);
    const std::string bytes = rank::to_onnx(saved);
    const onnx::Model model(bytes);
    CHECK(model.input == "features");
    CHECK(model.output == "scores");
    CHECK(model.ir_version == 8);
    CHECK(model.opset == 17);
    CHECK(model.metadata.at("loss") == "lambdarank:truncation=5");
    CHECK(model.metadata.at("documents") ==
          (rank::needs_list(saved) ? "of one list" : "each by itself"));
    // Weights are the ranker's to the bit.
    const auto& weight = model.constants.at("output.weight");
    const auto expected = saved.ranker->state().at("output.weight").to_vector<float>();
    CHECK(weight.numbers == std::vector<double>(expected.begin(), expected.end()));
    return model.metadata.at("scaling");
  };
  CHECK(model_of(Kind::mlp, "log1p,zscore") == "log1p,zscore,limit=1024");
  CHECK(model_of(Kind::attention, "") == "none");
  CHECK(rank::needs_list(made(config_of(Kind::mlp), "mse", "minmax", set)));
  CHECK(rank::needs_list(made(config_of(Kind::attention), "mse", "", set)));
  CHECK_FALSE(rank::needs_list(made(config_of(Kind::linear), "mse", "zscore", set)));
}

TEST_CASE("a C header is refused where it could not score a document", "[rank][c_header]") {
  const data::RankingSet set = raw_lists({8, 4});
  const auto header = [&](Kind kind, const char* scaling, const char* name) {
    return rank::to_c_header(made(config_of(kind), "mse", scaling, set), name);
  };
  CHECK_THAT(header(Kind::mlp, "zscore", "web_2"),
             Contains("static inline float web_2_score(const float* features)") &&
                 Contains("web_2_features = 7") && !Contains("@"));
  CHECK_THROWS_WITH(header(Kind::attention, "zscore", "a"), Contains("attention ranker cannot be"));
  CHECK_THROWS_WITH(header(Kind::linear, "minmax", "a"), Contains("minmax"));
  for (const char* name : {"", "2a", "a-b", "a b", "\xC3\xA4"})
    CHECK_THROWS_WITH(header(Kind::linear, "", name), Contains("cannot begin names of C"));
  rank::RankerConfig wide = config_of(Kind::mlp);
  wide.hidden = {65537};
  CHECK_THROWS_WITH(rank::to_c_header(made(wide, "mse", "", set), "a"), Contains("too wide"));
}
