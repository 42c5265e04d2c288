// The ranking losses against their formulas, by brute force in f64.
#include <binade/heads/rank/losses.h>

#include <catch2/catch.hpp>
#include <set>

#include <binade/binade.h>

#include "gpu.h"
#include "heads/rank/loss_batch.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;

namespace {

// Every loss, with parameters that change what it does.
const std::vector<std::string> kSpecs = {
    "mse",
    "mse:reduction=sum",
    "bce",
    "bce:levels=4,reduction=sum",
    "ordinal",
    "prank",
    "prank:margin=1",
    "mcrank",
    "ranknet",
    "ranknet:sigma=2,reduction=sum",
    "hinge:margin=0.77",
    "hinge:margin=2.13,reduction=sum",
    "soft01",
    "soft01:sigma=0.5,reduction=sum",
    "pairwise-mse",
    "pairwise-mse:reduction=sum",
    "lambdarank",
    "lambdarank:truncation=5,sigma=1.5",
    "lambdarank:truncation=3,norm=lightgbm",
    "lambdarank:norm=lightgbm,reduction=mean",
    "ndcg-loss1",
    "ndcg-loss1:sigma=2,reduction=mean",
    "ndcg-loss2",
    "ndcg-loss2:truncation=4,reduction=mean",
    "ndcg-loss2++",
    "ndcg-loss2++:mu=3,truncation=6",
    "lambda-map",
    "lambda-map:truncation=4",
    "lambda-mrr",
    "lambda-precision:cut=3",
    "lambda-precision",
    "listnet",
    "listnet:targets=share",
    "poly1",
    "poly1:epsilon=-0.5,targets=softmax",
    "xe-ndcg",
    "listmle",
    "listmle:truncation=3",
    "listmle:ties=random",
    "p-listmle",
    "p-listmle:positions=logarithmic,ties=random",
    "p-listmle:positions=equal",
    "unique-softmax",
    "approx-ndcg",
    "approx-ndcg:temperature=1",
    "approx-mrr:temperature=0.7",
    "softrank",
    "softrank:sigma=0.3",
    "neural-ndcg:iterations=7",
    "neural-ndcg:temperature=2,truncation=3",
};

constexpr uint64_t kSeed = 11, kStep = 5;
// The place of the first op that draws.
uint64_t start_step() {
  RandomState::current().begin_step(kSeed, kStep);
  const uint64_t place = RandomState::current().next_place();
  RandomState::current().set_place(0);
  return place;
}

struct Result {
  double loss;
  std::vector<double> gradient;
};

Result run(const RankBatchValues& batch, const LossSpec& spec, DType dtype, Device device = {},
           double normaliser = 1) {
  start_step();
  const Tensor scores = batch.score_tensor(dtype, spec, device);
  const Tensor divisor = Tensor::scalar(normaliser, DType::f32, device);
  const Tensor loss = rank_loss(scores, batch.arrays(device), spec, divisor);
  loss.backward();
  return {loss.item(), scores.grad().to_vector<double>()};
}

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
  const Result result = run(batch, spec, DType::f64);
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

double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// `tolerance`: of the loss, and of a gradient beside the largest one.
void check_close(const Result& result, const Result& expected, double tolerance) {
  CHECK(result.loss == Approx(expected.loss).epsilon(tolerance).margin(tolerance));
  const double margin = tolerance * largest_of(expected.gradient);
  for (size_t i = 0; i < expected.gradient.size(); ++i) {
    INFO("element " << i);
    REQUIRE(result.gradient[i] == Approx(expected.gradient[i]).epsilon(tolerance).margin(margin));
  }
}

// The batches that every loss must manage.
const std::vector<BatchKind> kBatches = {
    {.sizes = {1, 2, 3, 5, 8, 1, 17, 2, 33, 64}, .padding = 3, .empty_lists = 2},
    {.sizes = {4, 0, 7, 12, 40}, .weighted = true, .padding = 2},
    {.sizes = {2, 9, 31, 32, 50}, .scores = Values::tied, .labels = Values::tied},
    {.sizes = {3, 10, 20}, .scores = Values::equal},
    {.sizes = {3, 1, 10}, .labels = Values::equal},
    {.sizes = {6, 11}, .labels = Values::random, .spread = 40},
    {.sizes = {3, 7}, .top_label = 0},
};

}  // namespace

TEST_CASE("ranking losses and their gradients are those of the formulas", "[rank][losses]") {
  for (const std::string& text : kSpecs) {
    const LossSpec spec = LossSpec::parse(text);
    for (size_t b = 0; b < kBatches.size(); ++b) {
      if (kBatches[b].spread > 30 && text.rfind("neural", 0) == 0)
        continue;  // the oracle underflows
      INFO(text << ", batch " << b);
      check_against_oracle(random_batch(kBatches[b], spec, 100 + b), spec);
    }
  }
}

TEST_CASE("every ranking loss has an oracle", "[rank][losses]") {
  std::set<std::string_view> tested;
  for (const std::string& text : kSpecs) tested.insert(LossSpec::parse(text).info().name);
  for (const LossInfo& info : loss_table()) {
    INFO(info.name);
    CHECK(tested.count(info.name) == 1);
  }
}
