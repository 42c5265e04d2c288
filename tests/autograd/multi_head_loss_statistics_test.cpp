// What the loss of several decoding heads counts, and its labels further ahead.
#include <catch2/catch.hpp>

#include "autograd/decoding_heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

TEST_CASE("statistics of heads equal those of a brute force", "[ops][multi_head_loss]") {
  for (const DType dtype : {DType::f64, DType::f16})
    for (const bool taught : {false, true}) {
      DecodingHeads all({.taught = taught}, dtype);
      const DecodingHeads exact(all, DType::f64);
      const MultiHeadLoss loss = all.loss();
      MultiHeadLossOptions without;
      without.statistics = false;
      CHECK(all.loss(without).loss.item() == loss.loss.item());
      CHECK(!all.loss(without).hits.defined());
      const std::vector<double> hits = loss.hits.to_vector<double>();
      for (size_t k = 0; k < all.heads.size(); ++k) {
        INFO(dtype << ", teacher " << taught << ", head " << k);
        const auto logits = exact.logits(exact.heads[k]).to_vector<double>();
        const auto labels = select(exact.labels, 0, static_cast<int64_t>(k)).to_vector<int64_t>();
        const std::vector<double> p =
            taught ? exact.teacher_probabilities(exact.heads[k]).to_vector<double>()
                   : std::vector<double>();
        double valid = 0, entropy = 0, overlap = 0, expected[5] = {};
        for (size_t row = 0; row < labels.size(); ++row) {
          if (labels[row] == -100) continue;
          ++valid;
          const double* x = logits.data() + row * 19;
          double total = 0, rank = 0;
          for (int64_t v = 0; v < 19; ++v) {
            total += std::exp(x[v]);
            rank += x[v] > x[labels[row]] || (x[v] == x[labels[row]] && v < labels[row]);
          }
          for (int n = 0; n < 5; ++n) expected[n] += rank <= n;
          for (int64_t v = 0; v < 19; ++v) {
            const double q = std::exp(x[v]) / total;
            entropy -= q * std::log(q);
            if (taught) overlap += std::min(q, p[row * 19 + static_cast<size_t>(v)]);
          }
        }
        CHECK(loss.valid.to_vector<double>()[k] == valid);
        for (size_t n = 0; n < 5; ++n)  // a near-tie may be rounded away in half
          CHECK(std::abs(hits[k * 5 + n] - expected[n]) <= (dtype == DType::f64 ? 0 : 1));
        const double limit = dtype == DType::f64 ? 1e-12 : 2e-3;
        CHECK(loss.entropy.to_vector<double>()[k] == Approx(entropy).epsilon(limit));
        CHECK(loss.overlap.to_vector<double>()[k] == Approx(overlap).epsilon(limit).margin(1e-12));
      }
    }
}

TEST_CASE("ranks of labels stop at the fifth, and say which rows are ignored",
          "[ops][multi_head_loss]") {
  for (const bool taught : {false, true})
    for (const int64_t chunk : {0, 3}) {
      DecodingHeads all({.taught = taught}, DType::f64);
      MultiHeadLossOptions options;
      options.rows_per_chunk = chunk;
      CHECK(!all.loss(options).ranks.defined());
      options.ranks = true;
      const MultiHeadLoss loss = all.loss(options);
      REQUIRE(loss.ranks.shape() == all.labels.shape());
      CHECK(loss.ranks.dtype() == DType::i32);
      std::vector<int32_t> expected;
      for (size_t k = 0; k < all.heads.size(); ++k) {
        const auto logits = all.logits(all.heads[k]).to_vector<double>();
        const auto labels = select(all.labels, 0, static_cast<int64_t>(k)).to_vector<int64_t>();
        for (size_t row = 0; row < labels.size(); ++row) {
          const double* x = logits.data() + row * 19;
          const int64_t label = labels[row];
          const auto larger = label == -100 ? 0 : std::count_if(x, x + 19, [&](double value) {
            return value > x[label];
          });
          expected.push_back(label == -100 ? -1 : static_cast<int32_t>(std::min(larger, 5L)));
        }
      }
      CHECK(loss.ranks.to_vector<int32_t>() == expected);
      // The sums are those of the rows, ranks or not.
      options.ranks = false;
      CHECK(loss.hits.to_vector<double>() == all.loss(options).hits.to_vector<double>());
    }
}

TEST_CASE("a teacher's rows lie as far ahead as the labels they go with",
          "[ops][multi_head_loss]") {
  // shift 2 against hidden rows that were moved by hand.
  DecodingHeads all({.length = 12, .blocks = {0}, .taught = true}, DType::f64);
  all.heads[0].soft = 1;
  const Tensor targets = reshape(shifted_labels(select(all.labels, 0, 0), {}, {2}), {1, 2, 12});
  DecodingHeads moved(all, DType::f64);
  const Tensor& hidden = moved.heads[0].teacher->hidden;
  moved.heads[0].teacher->hidden =
      cat({slice(hidden, 1, 2, 12), Tensor::zeros({2, 2, 4}, DType::f64)}, 1);
  all.heads[0].teacher->shift = 2;
  for (const int64_t chunk : {0, 1, 5}) {
    MultiHeadLossOptions options;
    options.rows_per_chunk = chunk;
    all.zero_grad();
    moved.zero_grad();
    const MultiHeadLoss got = multi_head_loss(all.hidden, all.heads, targets, options);
    const MultiHeadLoss expected = multi_head_loss(moved.hidden, moved.heads, targets);
    CHECK(got.loss.item() == Approx(expected.loss.item()).epsilon(1e-13));
    CHECK(got.overlap.item() == Approx(expected.overlap.item()).epsilon(1e-13));
    got.loss.backward();
    expected.loss.backward();
    CHECK(relative_error(all.hidden.grad(), 1, moved.hidden.grad()) < 1e-13);
  }
}

TEST_CASE("shifted labels stay in their row and document", "[ops][multi_head_loss]") {
  const Tensor labels = Tensor::from(std::vector<int32_t>{1, 2, 3, 4, 5, -100, 7, 8}, {2, 4});
  const Tensor documents = Tensor::from(std::vector<int32_t>{0, 0, 0, 1, 3, 3, 3, 3}, {2, 4});
  CHECK(shifted_labels(labels, {}, {0, 1, 3, 9}).to_vector<int32_t>() ==
        std::vector<int32_t>{1,    2,    3,    4,    5,    -100, 7,    8,     //
                             2,    3,    4,    -100, -100, 7,    8,    -100,  //
                             4,    -100, -100, -100, 8,    -100, -100, -100,
                             -100, -100, -100, -100, -100, -100, -100, -100});
  CHECK(shifted_labels(labels, documents, {1, 2}, -1).to_vector<int32_t>() ==
        std::vector<int32_t>{2, 3, -1, -1, -100, 7, 8, -1,  //
                             3, -1, -1, -1, 7, 8, -1, -1});
  CHECK_THROWS_WITH(shifted_labels(labels, {}, {-1}), Contains("-1"));
  CHECK_THROWS_WITH(shifted_labels(labels, slice(documents, 0, 0, 1), {1}), Contains("shape"));
  CHECK_THROWS_WITH(shifted_labels(to(labels, DType::f32), {}, {1}), Contains("i32"));
}

TEST_CASE("heads of unequal NaN rows say so", "[ops][multi_head_loss]") {
  const DecodingHeads all({.blocks = {0, 0}}, DType::f32);
  all.hidden.array().select(0, 0).select(0, 1).fill(NAN);
  const MultiHeadLoss loss = all.loss();
  CHECK(std::isnan(loss.loss.item()));
  loss.loss.backward();
  CHECK(std::isnan(sum(Tensor(all.heads[0].weight.grad())).item()));
  // The NaN row is no hit at any rank, and the other rows have finite gradients.
  CHECK(loss.hits.to_vector<double>()[4] <= loss.valid.to_vector<double>()[0] - 1);
  CHECK(std::isfinite(sum(select(Tensor(all.hidden.grad()), 0, 1)).item()));
}
