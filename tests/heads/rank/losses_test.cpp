// The ranking losses against their formulas, by brute force in f64.
#include <binade/heads/rank/losses.h>

#include <catch2/catch.hpp>
#include <set>

#include "heads/rank/loss_cases.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;

namespace {

double list_weight(const RankBatchValues& batch, int64_t q) {
  return batch.list_weights.empty()
             ? 1
             : static_cast<double>(batch.list_weights[static_cast<size_t>(q)]);
}

// The largest number of documents for which every partial derivative is taken.
constexpr size_t kFewDocuments = 12;

// Value and gradient in f64 against the oracle; the gradient by central differences, for longer
// lists along some random directions.
void check_against_oracle(const RankBatchValues& batch, const LossSpec& spec) {
  const uint64_t place = start_step();
  const LossResult result = run_loss(batch, spec, DType::f64);
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  double loss = 0;
  for (int64_t q = 0; q < batch.lists(); ++q) {
    const OracleList list = batch.list(q, kSeed, kStep, place);
    const size_t first = static_cast<size_t>(batch.offsets[static_cast<size_t>(q)] * batch.columns);
    const size_t count = list.scores.size();
    INFO("list " << q << " of " << list.n() << " documents");
    if (!oracle_usable(std::string(spec.info().name), list)) {
      for (size_t i = 0; i < count; ++i) CHECK(result.gradient[first + i] == 0);
      continue;
    }
    const double weight = list_weight(batch, q);
    loss += weight * oracle_loss(spec, list, list.scores);
    const auto check_along = [&](const Numbers& direction) {
      constexpr double kStepSize = 1e-6;
      Numbers up = list.scores, down = list.scores;
      double slope = 0, size = 0;
      for (size_t i = 0; i < count; ++i) {
        up[i] += kStepSize * direction[i];
        down[i] -= kStepSize * direction[i];
        slope += direction[i] * result.gradient[first + i];
        size += std::abs(direction[i] * result.gradient[first + i]);
      }
      const double expected =
          weight * (oracle_loss(spec, list, up) - oracle_loss(spec, list, down)) / (2 * kStepSize);
      CHECK(slope == Approx(expected).epsilon(2e-6).margin(1e-7 + 1e-7 * size));
    };
    if (count <= kFewDocuments) {
      for (size_t i = 0; i < count; ++i) {
        Numbers direction(count);
        direction[i] = 1;
        check_along(direction);
      }
    } else {
      for (int k = 0; k < 3; ++k) {
        Numbers direction(count);
        for (double& x : direction) x = normal(random);
        check_along(direction);
      }
    }
  }
  CHECK(result.loss == Approx(loss).epsilon(1e-10).margin(1e-12));
  for (size_t i = static_cast<size_t>(batch.offsets.back() * batch.columns);
       i < result.gradient.size(); ++i)
    CHECK(result.gradient[i] == 0);
}

}  // namespace

TEST_CASE("ranking losses and their gradients are those of the formulas", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    const LossSpec spec = LossSpec::parse(text);
    for (size_t b = 0; b < kLossBatches.size(); ++b) {
      if (kLossBatches[b].spread > 30 && text.rfind("neural", 0) == 0)
        continue;  // the oracle underflows
      INFO(text << ", batch " << b);
      check_against_oracle(random_batch(kLossBatches[b], spec, 100 + b), spec);
    }
  }
}

TEST_CASE("every ranking loss has an oracle", "[rank][losses]") {
  std::set<std::string_view> tested;
  for (const std::string& text : kLossSpecs) tested.insert(LossSpec::parse(text).info().name);
  for (const LossInfo& info : loss_table()) {
    INFO(info.name);
    CHECK(tested.count(info.name) == 1);
  }
}

TEST_CASE("ranking losses of long lists are those of the formulas", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    const bool slow = text.rfind("neural", 0) == 0 || text.rfind("lambda-map", 0) == 0 ||
                      text.rfind("lambda-mrr", 0) == 0 || text.rfind("lambda-pre", 0) == 0;
    check_against_oracle(random_batch({.sizes = {slow ? 90 : 600}, .weighted = true}, spec, 7),
                         spec);
  }
}

TEST_CASE("in f32 ranking losses are what they are in f64", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    const LossSpec spec = LossSpec::parse(text);
    std::vector<BatchKind> kinds = kLossBatches;
    kinds.push_back({.sizes = {text.rfind("neural", 0) == 0 ? 300 : 2000}});
    for (size_t b = 0; b < kinds.size(); ++b) {
      INFO(text << ", batch " << b);
      const RankBatchValues batch = random_batch(kinds[b], spec, 200 + b);
      check_close(run_loss(batch, spec, DType::f32), run_loss(batch, spec, DType::f64), 2e-5);
    }
  }
}

TEST_CASE("half scores give the loss of their values, at the end of their range and all tied",
          "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    for (const DType half : {DType::f16, DType::bf16}) {
      const bool brief = text.rfind("neural", 0) == 0 || half == DType::bf16;
      RankBatchValues batch = random_batch({.sizes = {5, 40, brief ? 500 : 4096}}, spec, 17);
      for (size_t i = 0; i < batch.scores.size(); ++i)
        batch.scores[i] = i % 3 == 0 ? -65504 : 65504;
      RankBatchValues same = batch;
      for (double& score : same.scores)
        score = static_cast<double>(half == DType::bf16
                                        ? static_cast<float>(BFloat16(static_cast<float>(score)))
                                        : static_cast<float>(score));
      const LossResult full = run_loss(same, spec, DType::f32);
      const LossResult result = run_loss(batch, spec, half);
      CHECK(std::isfinite(full.loss));
      CHECK(result.loss == full.loss);
      size_t infinite = 0, different = 0;
      for (size_t i = 0; i < full.gradient.size(); ++i) {
        const auto value = static_cast<float>(full.gradient[i]);
        const float rounded = half == DType::f16 ? static_cast<float>(Half(value))
                                                 : static_cast<float>(BFloat16(value));
        infinite += !std::isfinite(value);
        different += result.gradient[i] != static_cast<double>(rounded);
      }
      CHECK(infinite == 0);
      CHECK(different == 0);
    }
  }
}

TEST_CASE("the order of a list's documents does not matter to a ranking loss", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    // These order equal labels as they come, or draw by place.
    if (text.find("listmle") != std::string::npos || text == "xe-ndcg") continue;
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    const RankBatchValues batch = random_batch({.sizes = {3, 20, 70}, .weighted = true}, spec, 23);
    RankBatchValues shuffled = batch;
    std::vector<size_t> from(batch.labels.size());
    std::iota(from.begin(), from.end(), size_t{0});
    std::mt19937_64 random(5);
    for (int64_t q = 0; q < batch.lists(); ++q)
      std::shuffle(from.begin() + batch.offsets[static_cast<size_t>(q)],
                   from.begin() + batch.offsets[static_cast<size_t>(q) + 1], random);
    const auto columns = static_cast<size_t>(batch.columns);
    for (size_t i = 0; i < from.size(); ++i) {
      shuffled.labels[i] = batch.labels[from[i]];
      shuffled.weights[i] = batch.weights[from[i]];
      for (size_t c = 0; c < columns; ++c)
        shuffled.scores[i * columns + c] = batch.scores[from[i] * columns + c];
    }
    const LossResult a = run_loss(batch, spec, DType::f64),
                     b = run_loss(shuffled, spec, DType::f64);
    CHECK(b.loss == Approx(a.loss).epsilon(1e-9));
    for (size_t i = 0; i < from.size(); ++i)
      for (size_t c = 0; c < columns; ++c)
        REQUIRE(b.gradient[i * columns + c] ==
                Approx(a.gradient[from[i] * columns + c]).epsilon(1e-9).margin(1e-11));
  }
}

TEST_CASE("a batch of lists learns the same in parts, whatever fills it up", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    if (text == "xe-ndcg" || text.find("random") != std::string::npos) continue;  // draws by place
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    const RankBatchValues batch =
        random_batch({.sizes = {1, 9, 33, 2, 14}, .weighted = true}, spec, 29);
    const LossResult whole = run_loss(batch, spec, DType::f32, {}, 5);
    double loss = 0;
    std::vector<double> gradient;
    for (const auto& [first, last] : {std::pair<size_t, size_t>{0, 2}, {2, 5}}) {
      RankBatchValues part;
      part.columns = batch.columns;
      for (size_t q = first; q <= last; ++q)
        part.offsets.push_back(batch.offsets[q] - batch.offsets[first]);
      part.list_weights.assign(batch.list_weights.begin() + static_cast<ptrdiff_t>(first),
                               batch.list_weights.begin() + static_cast<ptrdiff_t>(last));
      const auto begin = batch.offsets[first], end = batch.offsets[last];
      part.labels.assign(batch.labels.begin() + begin, batch.labels.begin() + end);
      part.weights.assign(batch.weights.begin() + begin, batch.weights.begin() + end);
      part.scores.assign(batch.scores.begin() + begin * batch.columns,
                         batch.scores.begin() + end * batch.columns);
      const size_t rows = part.labels.size();
      // Lists without documents, and rows that nobody may read.
      for (int i = 0; i < 3; ++i) {
        part.offsets.push_back(part.offsets.back());
        part.list_weights.push_back(std::nanf(""));
        part.labels.push_back(std::nanf(""));
        part.weights.push_back(std::nanf(""));
        part.scores.insert(part.scores.end(), static_cast<size_t>(part.columns), std::nan(""));
      }
      const LossResult result = run_loss(part, spec, DType::f32, {}, 5);
      loss += result.loss;
      const auto used = rows * static_cast<size_t>(part.columns);
      gradient.insert(gradient.end(), result.gradient.begin(),
                      result.gradient.begin() + static_cast<ptrdiff_t>(used));
      for (size_t i = used; i < result.gradient.size(); ++i) CHECK(result.gradient[i] == 0);
    }
    CHECK(loss == Approx(whole.loss).epsilon(1e-6));
    CHECK(gradient == whole.gradient);  // bit by bit
  }
}

TEST_CASE("lists that a ranking loss learns from are counted as it takes them", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    for (const BatchKind& kind : kLossBatches) {
      const RankBatchValues batch = random_batch(kind, spec, 31);
      int64_t expected = 0;
      for (int64_t q = 0; q < batch.lists(); ++q)
        expected += oracle_usable(std::string(spec.info().name), batch.list(q, 0, 0, 0));
      CHECK(usable_lists(spec, batch.offsets, batch.labels) == expected);
    }
  }
  const LossSpec spec = LossSpec::parse("ranknet");
  CHECK_THROWS_WITH(usable_lists(spec, std::vector<int64_t>{0, 3, 2}, std::vector<float>(3)),
                    Catch::Contains("must not fall"));
}
