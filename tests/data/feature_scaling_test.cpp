#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/core/safetensors.h>
#include <binade/data/feature_scaling.h>
#include <binade/data/letor.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "ranking_data.h"
#include "temporary_folder.h"

using namespace binade;
using namespace binade::data;
using binade::test::TemporaryFolder;
using Catch::Matchers::Contains;
using Normalise = FeatureScalingOptions::Normalise;

namespace {

// Lists of heavy-tailed raw values; the last feature is constant.
RankingSet raw_set(uint64_t seed, int64_t rows) {
  std::string text;
  for (int64_t row = 0; row < rows; ++row) {
    text += "1 qid:" + std::to_string(row / 7);
    for (uint64_t f = 1; f <= 5; ++f) {
      const PhiloxBlock draw = philox(seed, f, 0, static_cast<uint64_t>(row));
      const double magnitude = std::exp(uniform_of(draw.word[0]) * static_cast<double>(4 * f));
      text += ' ' + std::to_string(f) + ':' +
              exact_number(draw.word[1] % 3 == 0 ? -magnitude : magnitude);
    }
    text += " 6:0.1\n";
  }
  return parse_letor(text, "raw");
}

std::vector<double> column(const RankingSet& set, int64_t f) {
  std::vector<double> values;
  for (int64_t row = 0; row < set.documents(); ++row)
    values.push_back(set.feature_span()[static_cast<size_t>(row * set.feature_count() + f)]);
  return values;
}

}  // namespace

TEST_CASE("each step of scaling is its formula", "[data][scaling]") {
  const RankingSet train = raw_set(1, 1000), test = raw_set(2, 300);
  for (const char* steps :
       {"none", "log1p", "zscore", "minmax", "clip=0.05", "clip=0.01,log1p,zscore",
        "clip=0.2,minmax", "log1p,minmax", "log1p,zscore,limit=2"}) {
    CAPTURE(steps);
    const auto options = FeatureScalingOptions::parse(steps);
    const auto scaling = FeatureScaling::fit(train, options);
    const RankingSet scaled = scaling.apply(test);
    for (int64_t f = 0; f < 6; ++f) {
      std::vector<double> fitted = column(train, f), values = column(test, f);
      if (options.clip_quantile > 0) {
        std::vector<double> sorted = fitted;
        std::sort(sorted.begin(), sorted.end());
        const auto at = [&](double q) {
          const double place = q * static_cast<double>(sorted.size() - 1);
          const auto i = static_cast<size_t>(std::floor(place));
          const size_t j = std::min(i + 1, sorted.size() - 1);
          return sorted[i] * (1 - (place - std::floor(place))) +
                 sorted[j] * (place - std::floor(place));
        };
        for (auto* all : {&fitted, &values})
          for (double& x : *all)
            x = std::min(std::max(x, at(options.clip_quantile)), at(1 - options.clip_quantile));
      }
      if (options.log1p)
        for (auto* all : {&fitted, &values})
          for (double& x : *all) x = (x < 0 ? -1 : 1) * std::log(1 + std::abs(x));
      double mean = 0, variance = 0;
      for (const double x : fitted) mean += x / static_cast<double>(fitted.size());
      for (const double x : fitted)
        variance += (x - mean) * (x - mean) / static_cast<double>(fitted.size());
      for (int64_t row = 0; row < 300; ++row) {
        double expected = values[row];
        if (options.normalise == Normalise::z_score)
          expected = f == 5 ? 0 : (expected - mean) / std::sqrt(variance);
        if (options.normalise == Normalise::query_min_max) {
          const auto begin = values.begin() + row / 7 * 7;
          const auto end = values.begin() + std::min<int64_t>(300, row / 7 * 7 + 7);
          const double least = *std::min_element(begin, end), most = *std::max_element(begin, end);
          expected = least == most ? 0 : (expected - least) / (most - least);
        }
        expected = std::min(std::max(expected, -options.limit), options.limit);
        CHECK(column(scaled, f)[row] == Approx(expected).epsilon(2e-6).margin(1e-6));
      }
    }
    CHECK_THAT(scaled.notes.back(), Contains("features are scaled: "));
    CHECK(scaled.labels.to_vector<float>() == test.labels.to_vector<float>());
  }
}

TEST_CASE("scaling is fitted on the training lists and does not depend on threads",
          "[data][scaling]") {
  const RankingSet train = raw_set(3, 10'000);
  const auto options = FeatureScalingOptions::parse("clip=0.01,log1p,zscore");
  const auto one = FeatureScaling::fit(train, options, 1).apply(train, 1);
  const auto many = FeatureScaling::fit(train, options, 7).apply(train, 5);
  CHECK(one.features.to_vector<float>() == many.features.to_vector<float>());
  // A test set's own statistics do not enter: one document alone is scaled as among others.
  const auto scaling = FeatureScaling::fit(train, options);
  const RankingSet test = raw_set(4, 70);
  const RankingSet alone = select_queries(test, std::vector<int64_t>{3});
  const auto all = scaling.apply(test).features.to_vector<float>();
  const auto some = scaling.apply(alone).features.to_vector<float>();
  CHECK(std::equal(some.begin(), some.end(), all.begin() + 21 * 6));
}

TEST_CASE("scaled features fit into f16", "[data][scaling]") {
  // The values of raw web features, and a test value far beyond all of training.
  const RankingSet train =
      parse_letor("1 qid:1 1:1.6e8 2:-72.9 3:0 4:5\n0 qid:1 1:3 2:1e-30 3:1e-20 4:5\n", "train");
  const RankingSet test = parse_letor("1 qid:1 1:3e38 2:-3e38 3:1 4:7\n", "test");
  for (const char* steps : {"none", "log1p", "zscore", "minmax", "log1p,zscore", "log1p,minmax",
                            "clip=0.1", "limit=65504"}) {
    const auto scaling = FeatureScaling::fit(train, FeatureScalingOptions::parse(steps));
    for (const RankingSet& set : {train, test}) {
      const RankingSet scaled = scaling.apply(set);
      for (const float value : scaled.features.to(DType::f16).to_vector<float>()) {
        CAPTURE(steps, value);
        CHECK(std::isfinite(value));
      }
    }
  }
  const auto z = FeatureScaling::fit(train, FeatureScalingOptions::parse("zscore")).apply(test);
  CHECK_THAT(z.notes.back(), Contains("3 values were held at the limit"));
  // A constant feature of training is 0 whatever it is later.
  CHECK(z.feature_span()[3] == 0);
}

TEST_CASE("scaling is kept with the model", "[data][scaling]") {
  const TemporaryFolder folder;
  const RankingSet train = raw_set(5, 500), test = raw_set(6, 70);
  for (const char* steps : {"none", "clip=0.1,log1p,zscore,limit=3", "log1p,minmax"}) {
    const auto scaling = FeatureScaling::fit(train, FeatureScalingOptions::parse(steps));
    scaling.save(folder / "scaling.safetensors");
    const auto loaded = FeatureScaling::load(folder / "scaling.safetensors");
    CHECK(loaded.options().describe() == scaling.options().describe());
    CHECK(loaded == scaling);
    CHECK_FALSE(loaded == FeatureScaling::fit(train, FeatureScalingOptions::parse("log1p")));
    // What is fitted to the lists tells them apart.
    CHECK((loaded == FeatureScaling::fit(test, scaling.options())) ==
          (std::string_view(steps).find("zscore") == std::string_view::npos));
    CHECK(loaded.apply(test).features.to_vector<float>() ==
          scaling.apply(test).features.to_vector<float>());
  }
  const auto scaling = FeatureScaling::load(folder / "scaling.safetensors");
  CHECK_THROWS_WITH(scaling.apply(parse_letor("1 qid:1 5:1\n", "few")),
                    Contains("fitted on 6 features, the set has 5"));

  const auto refused = [&](const std::map<std::string, Array>& tensors, const char* format,
                           const char* steps, const char* what) {
    write_safetensors(folder / "bad", tensors, {{"format", format}, {"steps", steps}});
    CHECK_THROWS_WITH(FeatureScaling::load(folder / "bad"), Contains(what));
  };
  const Array ones = Array::full({2}, 1, DType::f64), zeros = Array::zeros({2}, DType::f64);
  const char* format = "binade feature scaling 1";
  const std::map<std::string, Array> good = {
      {"low", zeros}, {"high", ones}, {"mean", zeros}, {"scale", ones}};
  const auto with = [&](const char* name, const Array& array) {
    auto tensors = good;
    tensors[name] = array;
    return tensors;
  };
  refused(good, "something", "none", "is not a binade feature scaling 1");
  refused(good, format, "logp", "did you mean log1p?");
  refused(with("high", Array::full({3}, 1, DType::f64)), format, "none", "high is f64");
  refused(with("mean", Array::zeros({2}, DType::f32)), format, "none", "mean is f32");
  refused(with("scale", Array::full({2}, -1, DType::f64)), format, "none", "scale has -1");
  refused(with("mean", Array::full({2}, NAN, DType::f64)), format, "none", "mean has nan");
  refused(with("low", Array::full({2}, 4, DType::f64)), format, "none", "held between 4 and 1");
  refused({{"low", zeros}}, format, "none", "has no tensor high");
}

TEST_CASE("steps of scaling from text", "[data][scaling]") {
  for (const char* text : {"limit=1024", "clip=0.001,log1p,zscore,limit=1024", "minmax,limit=3"})
    CHECK(FeatureScalingOptions::parse(text).describe() == text);
  CHECK(FeatureScalingOptions::parse("").describe() == "limit=1024");
  const auto refused = [](const char* text, const char* what) {
    CHECK_THROWS_WITH(FeatureScalingOptions::parse(text), Contains(what));
  };
  refused("zscor", "did you mean zscore?");
  refused("zscore,minmax", "not both");
  refused("clip=0.5", "below 0.5");
  refused("clip=-1", "from 0");
  refused("clip=x", "expected a number");
  refused("clip=nan", "expected a number");
  refused("limit=0", "above 0");
  refused("limit=1e5", "65504");
  const RankingSet none = select_queries(raw_set(1, 7), {});
  CHECK_THROWS_WITH(FeatureScaling::fit(none, {}), Contains("without documents"));
  RankingSet bad = raw_set(1, 7);
  const auto scaling = FeatureScaling::fit(bad, {});
  bad.features.data<float>()[8] = NAN;
  CHECK_THROWS_WITH(FeatureScaling::fit(bad, {}), Contains("expected finite values"));
  CHECK_THROWS_WITH(scaling.apply(bad),
                    Contains("document 1 (from 0) has the value nan for feature 3"));
}

TEST_CASE("raw web features become fit for half precision", "[data][scaling][shared]") {
  const TemporaryFolder folder;
  const auto files = test::ranking_files("MSLR-sample", folder);
  if (files.empty()) return;
  const RankingSet set = read_letor(files);
  float largest = 0;
  for (const float value : set.feature_span()) largest = std::max(largest, std::abs(value));
  CHECK(largest > 1e8F);
  const auto scaled =
      FeatureScaling::fit(set, FeatureScalingOptions::parse("log1p,zscore")).apply(set);
  largest = 0;
  for (const float value : scaled.feature_span()) largest = std::max(largest, std::abs(value));
  CHECK(largest < 200);
  for (int64_t f = 0; f < set.feature_count(); ++f) {
    double sum = 0;
    for (const double x : column(scaled, f)) sum += x;
    CHECK(std::abs(sum / static_cast<double>(set.documents())) < 1e-4);
  }
}
