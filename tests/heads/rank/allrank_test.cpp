// Losses and metrics against what allRank computes: scripts/long/allrank_cases.py says how its
// definitions are brought into line with these, and makes the goldens again.
#include <catch2/catch.hpp>

#include <binade/core/file.h>
#include <binade/heads/rank/metrics.h>
#include <nlohmann/json.hpp>

#include "heads/rank/loss_cases.h"
#include "parsed_json.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;
using nlohmann::json;

namespace {

const json& goldens() {
  static const json file =
      test::parsed(read_text_file(BINADE_SOURCE_DIR "/tests/heads/rank/allrank.json"));
  return file;
}

// The lists of a case; their gradients lie one behind the other, too.
RankBatchValues batch_of(const json& one) {
  RankBatchValues batch;
  batch.offsets.push_back(0);
  for (const int64_t size : one.at("sizes").get<std::vector<int64_t>>())
    batch.offsets.push_back(batch.offsets.back() + size);
  batch.scores = one.at("scores").get<std::vector<double>>();
  batch.labels = one.at("labels").get<std::vector<float>>();
  batch.columns = one.value("columns", int64_t{1});
  return batch;
}

}  // namespace

TEST_CASE("ranking losses and their gradients are allRank's", "[rank][losses]") {
  REQUIRE(goldens().at("losses").size() >= 18);
  for (const json& one : goldens().at("losses")) {
    const auto name = one.at("loss").get<std::string>();
    INFO(name);
    const LossResult expected{one.at("value"), one.at("gradient").get<std::vector<double>>()};
    REQUIRE(largest_of(expected.gradient) > 1e-3);
    check_close(run_loss(batch_of(one), LossSpec::parse(name), DType::f64), expected, 1e-8);
  }
}

TEST_CASE("metrics under the convention allrank are allRank's", "[rank][metrics]") {
  const Convention convention = Convention::preset("allrank");
  for (const json& one : goldens().at("metrics")) {
    const RankBatchValues batch = batch_of(one);
    for (const auto& [name, values] : one.at("metrics").items()) {
      INFO(name);
      const std::vector<Metric> metrics{Metric::parse(name)};
      const auto expected = values.get<std::vector<double>>();
      const Evaluation result =
          evaluate({batch.offsets, batch.labels}, batch.scores, metrics, convention).front();
      REQUIRE(result.each.size() == expected.size());
      for (size_t q = 0; q < expected.size(); ++q) {
        INFO("list " << q);
        CHECK(result.each[q] == Approx(expected[q]).epsilon(1e-9).margin(1e-12));
      }
    }
  }
}
