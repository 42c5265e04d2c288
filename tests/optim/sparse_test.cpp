// Sparse tables: their gradients and their optimizers, against the formulas in f64 and against
// dense tables.
#include <binade/optim/sparse.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>
#include <binade/nn/embedding.h>
#include <binade/nn/linear.h>
#include <binade/optim/sgd.h>

#include "gpu.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

constexpr int64_t kRows = 50, kDim = 3;

// Indices of a step; few of the rows, some more than once.
Tensor ids_of(int64_t step, int64_t count, int64_t limit = kRows) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(philox(3, static_cast<uint64_t>(step), 1, static_cast<uint64_t>(i)).word[0] %
                  static_cast<uint32_t>(limit));
  return Tensor::from(ids, {count});
}

// Σ (row − wanted)², with a weight of its own for every place.
Tensor loss_of(const Tensor& rows) {
  const Tensor places = Tensor(Array::arange(rows.size(0), DType::f32)) + 1.0;
  return sum(square(rows - 0.5) * unsqueeze(places, 1));
}

std::vector<double> drawn_table(uint64_t seed) {
  RandomState::current().set_seed(seed);
  return nn::init::normal()({kRows, kDim}, {}).to_vector<double>();
}

// A table under lazy AdamW, in f64, by its formula.
struct LazyAdamW {
  std::vector<double> w, m, v;
  double lr, decay;
  int64_t t = 0;

  explicit LazyAdamW(std::vector<double> table, double lr, double decay)
      : w(std::move(table)), m(w.size()), v(w.size()), lr(lr), decay(decay) {}
  // The gradient of loss_of at these places, in one or several passes.
  void step(const std::vector<std::vector<int64_t>>& passes) {
    std::vector<double> gradient(w.size());
    std::vector<bool> touched(w.size() / kDim);
    for (const auto& ids : passes)
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto row = static_cast<size_t>(ids[i]);
        touched[row] = true;
        for (size_t d = 0; d < kDim; ++d)
          gradient[row * kDim + d] += 2 * (w[row * kDim + d] - 0.5) * static_cast<double>(i + 1);
      }
    ++t;
    for (size_t k = 0; k < w.size(); ++k) {
      if (!touched[k / kDim]) continue;
      m[k] = 0.9 * m[k] + 0.1 * gradient[k];
      v[k] = 0.999 * v[k] + 0.001 * gradient[k] * gradient[k];
      const double unbiased_m = m[k] / (1 - std::pow(0.9, t));
      const double unbiased_v = v[k] / (1 - std::pow(0.999, t));
      w[k] -= lr * (unbiased_m / (std::sqrt(unbiased_v) + 1e-8) + decay * w[k]);
    }
  }
};

std::vector<double> values_of(const nn::SparseEmbedding& table) {
  return table.weight().to_vector<double>();
}

}  // namespace

TEST_CASE("sparse AdamW is its formula on the touched rows", "[optim][sparse]") {
  RandomState::current().set_seed(4);
  const nn::SparseEmbedding table(kRows, kDim);
  LazyAdamW oracle(drawn_table(4), 0.05, 0.1);
  REQUIRE(values_of(table) == oracle.w);
  optim::SparseAdamW sparse(table, {.weight_decay = 0.1});
  sparse.set_learning_rate(0.05);
  for (int64_t s = 0; s < 40; ++s) {
    sparse.zero_grad();
    const Tensor first = ids_of(2 * s, 7), second = ids_of(2 * s + 1, 5);
    std::vector<std::vector<int64_t>> passes = {first.to_vector<int64_t>()};
    Tensor loss = loss_of(table.forward(first));
    if (s % 2) {  // two passes, of which rows may be the same
      loss = loss + loss_of(table.forward(second));
      passes.push_back(second.to_vector<int64_t>());
    }
    loss.backward();
    REQUIRE(sparse.step());
    oracle.step(passes);
  }
  CHECK(sparse.steps_done() == 40);
  const std::vector<double> got = values_of(table);
  for (size_t k = 0; k < got.size(); ++k) CHECK(got[k] == Approx(oracle.w[k]).margin(2e-5));
}

TEST_CASE("rows that no step touched stay bit by bit", "[optim][sparse]") {
  RandomState::current().set_seed(4);
  const nn::SparseEmbedding table(kRows, kDim);
  const std::vector<double> before = values_of(table);
  optim::SparseAdamW sparse(table, {.weight_decay = 0.1});
  sparse.set_learning_rate(0.05);
  for (int64_t s = 0; s < 5; ++s) {
    sparse.zero_grad();
    loss_of(table.forward(ids_of(s, 6, 20))).backward();
    sparse.step();
  }
  const std::vector<double> after = values_of(table);
  CHECK(std::equal(before.begin() + 20 * kDim, before.end(), after.begin() + 20 * kDim));
  CHECK(!std::equal(before.begin(), before.begin() + 20 * kDim, after.begin()));
  for (const char* moment : {"exp_avg.weight", "exp_avg_sq.weight"}) {
    const auto values = sparse.state().at(moment).to_vector<float>();
    CHECK(std::all_of(values.begin() + 20 * kDim, values.end(), [](float x) { return x == 0; }));
  }
}

TEST_CASE("a sparse table whose rows are all touched trains as a dense one", "[optim][sparse]") {
  for (const bool adam : {true, false}) {
    RandomState::current().set_seed(4);
    const nn::SparseEmbedding sparse_table(kRows, kDim);
    RandomState::current().set_seed(4);
    const nn::Embedding dense_table(kRows, kDim);
    std::unique_ptr<optim::Optimizer> dense;
    std::unique_ptr<optim::SparseOptimizer> sparse;
    if (adam) {
      dense = std::make_unique<optim::AdamW>(optim::split_by_decay(dense_table, 0.1));
      sparse = std::make_unique<optim::SparseAdamW>(sparse_table,
                                                    optim::WholeModule{.weight_decay = 0.1});
    } else {
      dense = std::make_unique<optim::Sgd>(optim::split_by_decay(dense_table, 0.1));
      sparse =
          std::make_unique<optim::SparseSgd>(sparse_table, optim::WholeModule{.weight_decay = 0.1});
    }
    dense->set_learning_rate(0.001);
    sparse->set_learning_rate(0.001);
    std::vector<int64_t> all;
    for (int64_t i = 0; i < 2 * kRows; ++i) all.push_back(i * 7 % kRows);
    const Tensor ids = Tensor::from(all, {2 * kRows});
    for (int64_t s = 0; s < 10; ++s) {
      dense->zero_grad();
      sparse->zero_grad();
      loss_of(dense_table.forward(ids)).backward();
      loss_of(sparse_table.forward(ids)).backward();
      dense->step();
      CHECK(sparse->step());
    }
    CHECK(values_of(sparse_table) == dense_table.weight()->master().to_vector<double>());
  }
}

TEST_CASE("sparse SGD without decay is dense SGD", "[optim][sparse]") {
  RandomState::current().set_seed(9);
  const nn::SparseEmbedding sparse_table(kRows, kDim);
  RandomState::current().set_seed(9);
  const nn::Embedding dense_table(kRows, kDim);
  optim::Sgd dense(optim::split_by_decay(dense_table, 0));
  optim::SparseSgd sparse(sparse_table);
  dense.set_learning_rate(0.01);
  sparse.set_learning_rate(0.01);
  for (int64_t s = 0; s < 10; ++s) {
    dense.zero_grad();
    sparse.zero_grad();
    const Tensor ids = reshape(ids_of(s, 6), {2, 3});
    CHECK(sparse_table.forward(ids).shape() == Shape{2, 3, kDim});
    sparse.zero_grad();
    loss_of(reshape(dense_table.forward(ids), {6, kDim})).backward();
    loss_of(reshape(sparse_table.forward(ids), {6, kDim})).backward();
    dense.step();
    sparse.step();
  }
  CHECK(values_of(sparse_table) == dense_table.weight()->master().to_vector<double>());
}

TEST_CASE("scaled gradients are unscaled, and those that are not finite skip a step",
          "[optim][sparse]") {
  RandomState::current().set_seed(4);
  const nn::SparseEmbedding plain(kRows, kDim), scaled(kRows, kDim);
  const_cast<nn::SparseEmbedding&>(scaled).load_state(plain.snapshot());
  optim::SparseAdamW of_plain(plain), of_scaled(scaled);
  of_plain.set_learning_rate(0.05);
  of_scaled.set_learning_rate(0.05);
  loss_of(plain.forward(ids_of(0, 6))).backward();
  (loss_of(scaled.forward(ids_of(0, 6))) * 1024.0).backward();
  CHECK(of_plain.step());
  CHECK(of_scaled.step(1 / 1024.0));
  CHECK(values_of(plain) == values_of(scaled));
  for (const double bad : {INFINITY, NAN}) {
    const std::vector<double> before = values_of(plain);
    of_plain.zero_grad();
    (loss_of(plain.forward(ids_of(1, 6))) * bad).backward();
    CHECK(!of_plain.step());
    CHECK(values_of(plain) == before);
    CHECK(of_plain.steps_done() == 1);
  }
}

TEST_CASE("a sparse optimizer goes on from its state", "[optim][sparse]") {
  struct Model : nn::Module {
    Model()
        : items(add<nn::SparseEmbedding>("items", kRows, kDim)),
          users(add<nn::SparseEmbedding>("users", kRows, kDim)),
          out(add<nn::Linear>("out", kDim, 1)) {}
    std::shared_ptr<nn::SparseEmbedding> items, users;
    std::shared_ptr<nn::Linear> out;
  };
  const auto train = [](Model& model, optim::SparseOptimizer& sparse, int64_t first, int64_t last) {
    sparse.set_learning_rate(0.02);
    for (int64_t s = first; s < last; ++s) {
      sparse.zero_grad();
      Tensor loss = loss_of(model.items->forward(ids_of(s, 6)));
      if (s % 3) loss = loss + loss_of(model.users->forward(ids_of(s + 100, 4)));
      loss.backward();
      sparse.step();
    }
  };
  RandomState::current().set_seed(4);
  Model whole, parts;
  CHECK(whole.named_parameters().size() == 2);  // the linear layer's: a table is not a parameter
  CHECK(whole.state().count("items.weight") == 1);
  parts.load_state(whole.snapshot());
  optim::SparseAdamW of_whole(whole, {.weight_decay = 0.1});
  train(whole, of_whole, 0, 9);
  nn::StateDict saved, state;
  {
    optim::SparseAdamW first(parts, {.weight_decay = 0.1});
    train(parts, first, 0, 4);
    saved = first.state();
    for (auto& [name, values] : saved) values = values.clone();
    state = parts.snapshot();
  }
  CHECK(saved.count("exp_avg_sq.users.weight") == 1);
  RandomState::current().set_seed(77);
  Model later;
  later.load_state(state);
  optim::SparseAdamW rest(later, {.weight_decay = 0.1});
  rest.load_state(saved);
  CHECK(rest.steps_done() == 4);
  train(later, rest, 4, 9);
  for (const auto& [name, values] : whole.state())
    CHECK(later.state().at(name).to_vector<float>() == values.to_vector<float>());
  saved.erase("exp_avg.items.weight");
  CHECK_THROWS_WITH(rest.load_state(saved), Contains("exp_avg.items.weight"));
}

TEST_CASE("sparse tables keep nothing without gradients", "[optim][sparse]") {
  const nn::SparseEmbedding table(kRows, kDim);
  {
    const NoGrad off;
    const auto row = table.forward(Tensor::from(std::vector<int64_t>{7}, {1})).to_vector<float>();
    const auto all = table.weight().to_vector<float>();
    CHECK(std::equal(row.begin(), row.end(), all.begin() + 7 * kDim));
  }
  CHECK(table.touched().empty());
  table.forward(ids_of(0, 3));
  CHECK(table.touched().size() == 1);
  optim::SparseSgd sparse(table);
  sparse.zero_grad();
  CHECK(table.touched().empty());
}

TEST_CASE("sparse tables and optimizers refuse what does not fit", "[optim][sparse][errors]") {
  const nn::SparseEmbedding table(kRows, kDim);
  CHECK_THROWS_WITH(nn::SparseEmbedding(0, 3), Contains("positive"));
  CHECK_THROWS_WITH(table.forward(Tensor::from(std::vector<int64_t>{kRows}, {1})), Contains("50"));
  CHECK_THROWS_WITH(table.forward(Tensor::from(std::vector<int64_t>{-1}, {1})), Contains("-1"));
  CHECK_THROWS_WITH(table.forward(Tensor::zeros({2})), Contains("i32 or i64"));
  CHECK_THROWS_WITH(optim::SparseSgd(nn::Linear(2, 2)), Contains("no SparseEmbedding"));
  CHECK_THROWS_WITH(optim::SparseSgd(table, {.weight_decay = -1}), Contains("weight decay"));
  CHECK_THROWS_WITH(optim::SparseAdamW(table, {}, {.beta1 = 1}), Contains("betas"));
  CHECK_THROWS_WITH(optim::SparseAdamW(table, {.learning_rate = -1}), Contains("learning rate"));
  table.forget();
  optim::SparseAdamW sparse(table);
  CHECK_THROWS_WITH(sparse.step(), Contains("learning rate"));
  CHECK_THROWS_WITH(sparse.set_learning_rate(-1), Contains("learning rate"));
  sparse.set_learning_rate(0.1);
  CHECK_THROWS_WITH(sparse.step(), Contains("no gradient"));
  table.forward(ids_of(0, 3));
  CHECK_THROWS_WITH(sparse.step(), Contains("no gradient"));  // without a backward pass
  CHECK_THROWS_WITH(sparse.step(INFINITY), Contains("not finite"));
}

TEST_CASE("sparse tables on the GPU train as on the CPU", "[optim][sparse][cuda]") {
  require_gpu();
  RandomState::current().set_seed(4);
  nn::SparseEmbedding host(kRows, kDim), gpu(kRows, kDim);
  gpu.load_state(host.snapshot());
  gpu.to(test_gpu());
  optim::SparseAdamW of_host(host, {.weight_decay = 0.1}), of_gpu(gpu, {.weight_decay = 0.1});
  of_host.set_learning_rate(0.05);
  of_gpu.set_learning_rate(0.05);
  for (int64_t s = 0; s < 8; ++s) {
    of_host.zero_grad();
    of_gpu.zero_grad();
    const Tensor ids = ids_of(s, 9);
    const Tensor rows = gpu.forward(to(ids, test_gpu()));
    loss_of(host.forward(ids)).backward();
    sum(square(rows - 0.5) * unsqueeze(Tensor(Array::arange(9, DType::f32, test_gpu())) + 1.0, 1))
        .backward();
    CHECK(of_host.step());
    CHECK(of_gpu.step());
  }
  const std::vector<double> expected = values_of(host), got = values_of(gpu);
  for (size_t k = 0; k < got.size(); ++k) CHECK(got[k] == Approx(expected[k]).margin(1e-5));
}
