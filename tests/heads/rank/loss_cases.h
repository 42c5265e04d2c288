// The losses and batches that the tests of ranking losses go through.
#pragma once

#include <catch2/catch.hpp>

#include <binade/binade.h>

#include "heads/rank/loss_batch.h"

namespace binade::test {

// Every loss, with parameters that change what it does.
inline const std::vector<std::string> kLossSpecs = {
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

inline constexpr uint64_t kSeed = 11, kStep = 5;
// The place of the first op that draws.
inline uint64_t start_step() {
  RandomState::current().begin_step(kSeed, kStep);
  const uint64_t place = RandomState::current().next_place();
  RandomState::current().set_place(0);
  return place;
}

struct LossResult {
  double loss;
  std::vector<double> gradient;
};

inline LossResult run_loss(const RankBatchValues& batch, const heads::rank::LossSpec& spec,
                           DType dtype, Device device = {}, double normaliser = 1) {
  start_step();
  const Tensor scores = batch.score_tensor(dtype, spec, device);
  const Tensor divisor = Tensor::scalar(normaliser, DType::f32, device);
  const Tensor loss = heads::rank::rank_loss(scores, batch.arrays(device), spec, divisor);
  loss.backward();
  return {loss.item(), scores.grad().to_vector<double>()};
}

inline double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// `tolerance`: of the loss, and of a gradient beside the largest one.
inline void check_close(const LossResult& result, const LossResult& expected, double tolerance) {
  CHECK(result.loss == Approx(expected.loss).epsilon(tolerance).margin(tolerance));
  const double margin = tolerance * largest_of(expected.gradient);
  for (size_t i = 0; i < expected.gradient.size(); ++i) {
    INFO("element " << i);
    REQUIRE(result.gradient[i] == Approx(expected.gradient[i]).epsilon(tolerance).margin(margin));
  }
}

// The batches that every loss must manage.
inline const std::vector<BatchKind> kLossBatches = {
    {.sizes = {1, 2, 3, 5, 8, 1, 17, 2, 33, 64}, .padding = 3, .empty_lists = 2},
    {.sizes = {4, 0, 7, 12, 40}, .weighted = true, .padding = 2},
    {.sizes = {2, 9, 31, 32, 50}, .scores = Values::tied, .labels = Values::tied},
    {.sizes = {3, 10, 20}, .scores = Values::equal},
    {.sizes = {3, 1, 10}, .labels = Values::equal},
    {.sizes = {6, 11}, .labels = Values::random, .spread = 40},
    {.sizes = {3, 7}, .top_label = 0},
};

}  // namespace binade::test
