// NDCG and MRR on the device against the metrics on the host.
#include <binade/core/error.h>
#include <binade/core/random.h>
#include <binade/heads/rank/device_metrics.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "gpu.h"

using namespace binade;
using namespace binade::heads::rank;
using Catch::Matchers::Contains;

namespace {

// Lists of many lengths, scores with many ties, rows behind the last list that nobody may read.
struct Batch {
  std::vector<int64_t> offsets = {0};
  std::vector<float> labels, scores;

  Batch(uint64_t seed, const std::vector<int64_t>& lengths) {
    uint64_t next = 0;
    const auto below = [&](uint32_t limit) { return philox(seed, 0, 0, next++).word[0] % limit; };
    for (const int64_t length : lengths) {
      const bool relevant = below(4) > 0;
      const uint32_t levels = 1 + below(200);
      for (int64_t i = 0; i < length; ++i) {
        labels.push_back(relevant && below(3) == 0 ? static_cast<float>(below(5)) : 0.0F);
        scores.push_back(static_cast<float>(below(levels)) / 4 - 10);
      }
      offsets.push_back(offsets.back() + length);
    }
    for (int i = 0; i < 50; ++i) {
      labels.push_back(i % 2 == 0 ? NAN : 3.0F);
      scores.push_back(NAN);
    }
  }
  Lists lists(Device device) const {
    Lists out;
    out.offsets = Array::from(offsets, {static_cast<int64_t>(offsets.size())}, device);
    out.labels = Array::from(labels, {static_cast<int64_t>(labels.size())}, device);
    return out;
  }
  Array score_array(Device device, DType dtype = DType::f32) const {
    return Array::from(scores, {static_cast<int64_t>(scores.size())}, device).to(dtype);
  }
};

std::vector<int64_t> all_lengths() {
  std::vector<int64_t> lengths = {0, 1, 2, 31, 32, 33, 127, 128, 129, 255, 256, 257, 1023, 3000};
  for (int64_t i = 0; i < 300; ++i) lengths.push_back(i * 7 % 45);
  for (int64_t i = 0; i < 5; ++i) lengths.push_back(0);  // those of a bucket that is not full
  return lengths;
}

void check_device(Device device) {
  const Batch batch(5, all_lengths());
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64})
    for (const int64_t cut : {0, 1, 5, 10, 32, 33, 64, 65, 200})
      for (const EmptyLists empty : {EmptyLists::zero, EmptyLists::one, EmptyLists::skip})
        for (const Gain gain : {Gain::exponential, Gain::linear}) {
          CAPTURE(name_of(dtype), cut, static_cast<int>(empty), static_cast<int>(gain));
          // What rounding to the dtype ties, is tied on the host, too.
          const Array scores = batch.score_array(device, dtype);
          const auto rounded = scores.to_vector<double>();
          Convention convention = Convention::preset("zero");
          convention.empty = empty;
          convention.gain = gain;
          const std::vector<Metric> metrics = {{Measure::ndcg, cut}, {Measure::mrr, cut}};
          const auto expected =
              evaluate({batch.offsets, batch.labels}, rounded, metrics, convention);
          DeviceMetrics actual({cut, gain, empty}, device);
          actual.add(scores, batch.lists(device));
          const auto values = actual.read();
          CHECK(values.ndcg == Approx(expected[0].mean).epsilon(1e-12));
          CHECK(values.mrr == Approx(expected[1].mean).epsilon(1e-12));
          CHECK(values.ndcg_lists == expected[0].lists);
          CHECK(values.mrr_lists == expected[1].lists);
          CHECK(values.nan_scores == 0);
        }

  // Batches add up, in any pieces; runs are equal to the bit.
  DeviceMetrics one({}, device), again({}, device), pieces({}, device);
  const Batch other(6, {3, 40, 500});
  for (DeviceMetrics* metrics : {&one, &again}) {
    metrics->add(batch.score_array(device), batch.lists(device));
    metrics->add(other.score_array(device), other.lists(device));
  }
  CHECK(one.sums().to_vector<double>() == again.sums().to_vector<double>());
  pieces.add(other.score_array(device), other.lists(device));
  pieces.add(batch.score_array(device), batch.lists(device));
  CHECK(pieces.read().ndcg == Approx(one.read().ndcg).epsilon(1e-12));
  CHECK(pieces.read().ndcg_lists == one.read().ndcg_lists);
  one.reset();
  CHECK(std::isnan(one.read().ndcg));
  CHECK(one.read().ndcg_lists == 0);

  // NaN ranks last and is counted; −∞ is a score.
  Batch bad(1, {});
  bad.offsets = {0, 4};
  bad.labels = {1, 0, 2, 0};
  bad.scores = {NAN, -INFINITY, 5, NAN};
  DeviceMetrics metrics({.cut = 0}, device);
  metrics.add(bad.score_array(device), bad.lists(device));
  CHECK(metrics.read().ndcg ==
        Approx((3 + 1 / std::log2(4.0)) / (3 + 1 / std::log2(3.0))).epsilon(1e-12));
  CHECK(metrics.read().nan_scores == 2);
  // Strided scores: the first column of many.
  DeviceMetrics strided({.cut = 0}, device);
  const Array columns = Array::zeros({4, 3}, DType::f32, device);
  columns.select(1, 0).copy_from(bad.score_array(device));
  strided.add(columns.select(1, 0), bad.lists(device));
  CHECK(strided.read().ndcg == metrics.read().ndcg);
}

}  // namespace

TEST_CASE("metrics beside the scores are those of the host", "[rank][metrics]") {
  check_device(Device::cpu());
}

TEST_CASE("metrics on the GPU are those of the host", "[cuda][rank]") {
  test::require_gpu();
  check_device(test::test_gpu());
}

TEST_CASE("metrics beside the scores refuse what does not fit", "[rank][metrics]") {
  const Batch batch(1, {3, 4});
  DeviceMetrics metrics;
  Lists lists = batch.lists(Device::cpu());
  CHECK_THROWS_WITH(metrics.add(Array::zeros({5}, DType::f32), lists),
                    Contains("got (5) and (57)"));
  CHECK_THROWS_WITH(metrics.add(Array::zeros({57}, DType::i64), lists),
                    Contains("floating scores"));
  CHECK_THROWS_WITH(metrics.add(Array(), lists), Contains("floating scores"));
  lists.offsets = lists.offsets.to(DType::i32);
  CHECK_THROWS_WITH(metrics.add(batch.score_array(Device::cpu()), lists), Contains("must be i64"));
  CHECK_THROWS_WITH(DeviceMetrics({.cut = -1}), Contains("rank -1"));
}
