// What implementations of ranking losses are known to get wrong, the texts that name losses, and
// the errors.
#include <binade/heads/rank/losses.h>

#include <fstream>

#include "heads/rank/loss_cases.h"

using namespace binade;
using namespace binade::heads::rank;
using namespace binade::test;

namespace {

// One list.
RankBatchValues list_of(std::vector<double> scores, std::vector<float> labels) {
  RankBatchValues batch;
  batch.offsets = {0, static_cast<int64_t>(labels.size())};
  batch.scores = std::move(scores);
  batch.labels = std::move(labels);
  return batch;
}

}  // namespace

TEST_CASE("pairs far on the wrong side keep their gradient", "[rank][losses]") {
  // ln(clamp(σ)) would be flat here.
  for (const double distance : {100.0, 1e4, 1e5}) {
    const RankBatchValues batch = list_of({-distance, distance}, {1, 0});
    for (const char* text :
         {"ranknet", "hinge", "lambdarank:truncation=1", "ndcg-loss2", "lambda-map", "lambda-mrr",
          "listmle", "listnet:targets=share", "unique-softmax"}) {
      INFO(text << " at " << distance);
      const LossResult result = run_loss(batch, LossSpec::parse(text), DType::f32);
      CHECK(result.loss > 0.1 * distance);
      CHECK(result.gradient[0] < -0.1);
      CHECK(result.gradient[0] == Approx(-result.gradient[1]));
    }
  }
}

TEST_CASE("the tail of a list keeps its part of listmle", "[rank][losses]") {
  // One shift by the largest score, and the logarithm of 1e-10 more, gave gradients of −1 here.
  const RankBatchValues batch = list_of({300, 0, 1, -1}, {4, 3, 2, 1});
  const LossResult result = run_loss(batch, LossSpec::parse("listmle"), DType::f32);
  const double e0 = 1, e1 = std::exp(1.0), e2 = std::exp(-1.0), z = e0 + e1 + e2;
  CHECK(result.gradient[0] == Approx(0).margin(1e-6));
  CHECK(result.gradient[1] == Approx(e0 / z - 1));
  CHECK(result.gradient[2] == Approx(e1 / z + e1 / (e1 + e2) - 1));
  CHECK(result.gradient[3] == Approx(e2 / z + e2 / (e1 + e2)).margin(1e-6));
  // Far from the top a score may lie anywhere.
  const LossResult far = run_loss(list_of({60000, -60000, -59999, -60001}, {4, 3, 2, 1}),
                                  LossSpec::parse("listmle"), DType::f16);
  CHECK(std::isfinite(far.loss));
}

TEST_CASE("a perfect fit has no gradient, rather than an infinite one", "[rank][losses]") {
  for (const char* text : {"mse", "pairwise-mse"}) {
    const LossResult result =
        run_loss(list_of({0, 1, 3}, {0, 1, 3}), LossSpec::parse(text), DType::f32);
    CHECK(result.loss == 0);
    CHECK(largest_of(result.gradient) == 0);
  }
}

TEST_CASE("a perceptron that starts at 0 moves", "[rank][losses]") {
  RankBatchValues batch = list_of({0, 0, 0, 0}, {2, 0});
  batch.columns = 2;
  const LossResult result = run_loss(batch, LossSpec::parse("prank:reduction=sum"), DType::f32);
  CHECK(result.gradient == std::vector<double>{-1, -1, 1, 1});
}

TEST_CASE("a discount divides", "[rank][losses]") {
  // LightGBM's CUDA lambdarank once multiplied by log2(1 + r): swaps at the top then weigh least.
  const LossSpec spec = LossSpec::parse("lambdarank");
  const LossResult result = run_loss(list_of({3, 2, 1}, {0, 1, 0}), spec, DType::f64);
  const double top = 1 - 1 / std::log2(3.0), bottom = 1 / std::log2(3.0) - 0.5;
  CHECK(result.gradient[0] == Approx(top / (1 + std::exp(-1.0))));
  CHECK(result.gradient[2] == Approx(bottom / (1 + std::exp(1.0))));
}

TEST_CASE("each list counts the same, however long it is", "[rank][losses]") {
  // The second list is the first, many times over.
  RankBatchValues batch = list_of({1, 0}, {0, 1});
  for (int copy = 0; copy < 50; ++copy) {
    batch.scores.insert(batch.scores.end(), {1, 0});
    batch.labels.insert(batch.labels.end(), {0, 1});
  }
  batch.offsets.push_back(static_cast<int64_t>(batch.labels.size()));
  for (const char* text : {"ranknet", "hinge", "soft01", "mse"}) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    const double both = run_loss(batch, spec, DType::f64, {}, 2).loss;
    CHECK(both == Approx(run_loss(list_of({1, 0}, {0, 1}), spec, DType::f64).loss));
  }
}

TEST_CASE("documents without weight teach nothing", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    RankBatchValues batch = random_batch({.sizes = {20, 3}, .weighted = true}, spec, 47);
    std::fill(batch.weights.begin(), batch.weights.end(), 0.0F);
    const LossResult none = run_loss(batch, spec, DType::f32);
    CHECK(std::isfinite(none.loss));
    CHECK(largest_of(none.gradient) == 0);
  }
}

TEST_CASE("batches without lists or documents have a loss of 0", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    INFO(text);
    const LossSpec spec = LossSpec::parse(text);
    RankBatchValues batch = random_batch({.sizes = {}, .padding = 4}, spec, 53);
    LossResult result = run_loss(batch, spec, DType::f32);
    CHECK(result.loss == 0);
    CHECK(largest_of(result.gradient) == 0);
    batch = random_batch({.sizes = {0, 0}}, spec, 53);
    result = run_loss(batch, spec, DType::f32);
    CHECK(result.loss == 0);
    CHECK(result.gradient.empty());
  }
}

TEST_CASE("equal labels are ordered anew for every list and every step", "[rank][losses]") {
  const LossSpec spec = LossSpec::parse("listmle:ties=random");
  RankBatchValues batch;
  batch.offsets = {0, 6, 12};
  for (int q = 0; q < 2; ++q)
    for (int i = 0; i < 6; ++i) {
      batch.scores.push_back(i);
      batch.labels.push_back(i < 3 ? 1.0F : 0.0F);
    }
  const LossResult result = run_loss(batch, spec, DType::f64);
  const std::vector<double> first(result.gradient.begin(), result.gradient.begin() + 6);
  const std::vector<double> second(result.gradient.begin() + 6, result.gradient.end());
  CHECK(first != second);
  const auto at_step = [&](uint64_t step) {
    RandomState::current().begin_step(kSeed, step);
    return rank_loss(batch.score_tensor(DType::f64, spec), batch.arrays(), spec).item();
  };
  CHECK(at_step(1) == at_step(1));
  CHECK(at_step(1) != at_step(2));
}

TEST_CASE("xe-ndcg has the further terms of LightGBM's gradient", "[rank][losses]") {
  const uint64_t place = start_step();
  for (const int terms : {2, 3}) {
    const LossSpec spec = LossSpec::parse(concat("xe-ndcg:terms=", terms));
    const RankBatchValues batch = random_batch({.sizes = {12}}, spec, 41);
    const OracleList list = batch.list(0, kSeed, kStep, place);
    const LossResult result = run_loss(batch, spec, DType::f64);
    // rank_xendcg's loops, from its description.
    const Numbers rho = oracle::softmax(list.scores);
    Numbers phi(12), l(12), gradient(12);
    double sum = 0;
    for (size_t i = 0; i < 12; ++i) sum += phi[i] = std::pow(2.0, list.labels[i]) - list.draws[i];
    for (size_t i = 0; i < 12; ++i) gradient[i] = l[i] = rho[i] - phi[i] / sum;
    for (int term = 2; term <= terms; ++term) {
      Numbers next(12);
      for (size_t i = 0; i < 12; ++i)
        for (size_t j = 0; j < 12; ++j)
          if (j != i) next[i] += rho[i] * l[j] / (1 - rho[j]);
      for (size_t i = 0; i < 12; ++i) gradient[i] += next[i];
      l = next;
    }
    for (size_t i = 0; i < 12; ++i) CHECK(result.gradient[i] == Approx(gradient[i]).margin(1e-12));
  }
}

TEST_CASE("documents are ranked by the expected grade", "[rank][losses]") {
  const auto scores = [](const char* text, const std::vector<double>& outputs, const Shape& shape) {
    return ranking_scores(Tensor::from(outputs, shape), LossSpec::parse(text)).to_vector<double>();
  };
  CHECK(scores("ranknet", {3, 1}, {2}) == std::vector<double>{3, 1});
  const std::vector<double> grades = scores("mcrank", {0, std::log(3.0), 0, 0}, {2, 2});
  CHECK(grades[0] == Approx(0.75));
  CHECK(grades[1] == Approx(0.5));
  CHECK(scores("ordinal", {0, std::log(3.0)}, {1, 2})[0] == Approx(1.25));
  CHECK(scores("prank", {2, -1}, {1, 2})[0] == Approx(0.5));
  CHECK(output_columns(LossSpec::parse("mcrank"), 4) == 5);
  CHECK(output_columns(LossSpec::parse("mcrank"), 0) == 2);
  CHECK(output_columns(LossSpec::parse("ordinal"), 4) == 4);
  CHECK(output_columns(LossSpec::parse("mse"), 4) == 1);
}

TEST_CASE("the text of a ranking loss is read and written", "[rank][losses]") {
  for (const std::string& text : kLossSpecs) {
    const LossSpec spec = LossSpec::parse(text), again = LossSpec::parse(spec.text());
    INFO(text << " is written as " << spec.text());
    CHECK(&spec.info() == &again.info());
    for (const LossParameter& parameter : spec.info().parameters)
      CHECK(spec.value(parameter.name) == again.value(parameter.name));
  }
  CHECK(LossSpec::parse("lambdarank:truncation=30,sigma=1").text() == "lambdarank:truncation=30");
  CHECK(LossSpec::parse("lambdarank").text() == "lambdarank");
  CHECK(LossSpec::parse("listnet:targets=share").text() == "listnet:targets=share");
  // Every parameter does something: it refuses what is beyond its bounds, and reaches the kernel.
  for (const LossInfo& info : loss_table())
    for (const LossParameter& parameter : info.parameters) {
      INFO(info.name << ' ' << parameter.name);
      const std::string start = concat(info.name, ':', parameter.name, '=');
      CHECK_THROWS_AS(LossSpec::parse(start + "1e9"), Error);
      CHECK_THROWS_AS(LossSpec::parse(start + "-7"), Error);
      CHECK_THROWS_AS(LossSpec::parse(start), Error);
      if (parameter.whole) CHECK_THROWS_AS(LossSpec::parse(start + "1.5"), Error);
    }
  using Catch::Contains;
  CHECK_THROWS_WITH(LossSpec::parse("lambdrank"), Contains("did you mean lambdarank?"));
  CHECK_THROWS_WITH(LossSpec::parse(""), Contains("losses are mse, bce"));
  CHECK_THROWS_WITH(LossSpec::parse("ranknet:truncation=3"),
                    Contains("no parameter \"truncation\""));
  CHECK_THROWS_WITH(LossSpec::parse("ranknet:sigma"), Contains("is not parameter=value"));
  CHECK_THROWS_WITH(LossSpec::parse("ranknet:sigma=1,sigma=2"), Contains("given twice"));
  CHECK_THROWS_WITH(LossSpec::parse("listnet:targets=soft"), Contains("softmax|share"));
  CHECK_THROWS_WITH(LossSpec::parse("unique-softmax:x=1"), Contains("it has none"));
  CHECK_THROWS_WITH(LossSpec::parse("neural-ndcg:iterations=0"), Contains("from 1 to 1000"));
}

TEST_CASE("every parameter of a ranking loss changes it", "[rank][losses]") {
  for (const LossInfo& info : loss_table())
    for (const LossParameter& parameter : info.parameters) {
      INFO(info.name << ' ' << parameter.name);
      std::string other = "2";
      if (!parameter.choices.empty()) {
        const std::string choices(parameter.choices);
        const std::string first = choices.substr(0, choices.find('|'));
        const size_t second = choices.find('|') + 1;
        other = parameter.value == 0 ? choices.substr(second, choices.find('|', second) - second)
                                     : first;
      }
      const LossSpec plain = LossSpec::parse(info.name);
      const LossSpec changed = LossSpec::parse(concat(info.name, ':', parameter.name, '=', other));
      // Scores of 2 and more, so that a margin of 2 is met.
      const RankBatchValues batch = random_batch({.sizes = {30}, .spread = 1}, plain, 43);
      CHECK(run_loss(batch, plain, DType::f64).gradient !=
            run_loss(batch, changed, DType::f64).gradient);
    }
}

TEST_CASE("the losses are described, in docs/ranking-losses.md as well", "[rank][losses]") {
  const std::string text = describe_losses();
  std::ifstream page(BINADE_SOURCE_DIR "/docs/ranking-losses.md");
  const std::string page_text{std::istreambuf_iterator<char>(page), {}};
  CHECK(page_text.find("```text\n" + text + "```") != std::string::npos);
  for (const LossInfo& info : loss_table()) {
    CHECK(text.find(std::string(info.name)) != std::string::npos);
    CHECK_FALSE(info.formula.empty());
    CHECK_FALSE(info.source.empty());
  }
}

TEST_CASE("a ranking loss says what is wrong with its arguments", "[rank][losses]") {
  using Catch::Contains;
  const LossSpec spec = LossSpec::parse("ranknet");
  const RankBatchValues batch = random_batch({.sizes = {3, 4}}, spec, 1);
  const Tensor scores = batch.score_tensor(DType::f32, spec);
  const Lists lists = batch.arrays();
  const auto error = [&](const Lists& bad) {
    return [&, bad] { (void)rank_loss(scores, bad, spec); };
  };
  Lists bad = lists;
  bad.labels = lists.labels.slice(0, 1);
  CHECK_THROWS_WITH(error(bad)(), Contains("labels must be f32 (7)"));
  bad = lists;
  bad.labels = lists.labels.to(DType::f64);
  CHECK_THROWS_WITH(error(bad)(), Contains("labels must be f32"));
  bad = lists;
  bad.offsets = lists.offsets.to(DType::i32);
  CHECK_THROWS_WITH(error(bad)(), Contains("offsets must be i64"));
  bad = lists;
  bad.weights = Array::zeros({3}, DType::f32);
  CHECK_THROWS_WITH(error(bad)(), Contains("weights must be f32 (7)"));
  bad = lists;
  bad.list_weights = Array::zeros({3}, DType::f32);
  CHECK_THROWS_WITH(error(bad)(), Contains("weights of lists must be f32 (2)"));
  CHECK_THROWS_WITH(error(Lists())(), Contains("labels are missing"));
  // One column may come as (N): the class 0, which other labels are not.
  CHECK_THROWS_WITH(rank_loss(scores, lists, LossSpec::parse("mcrank")),
                    Contains("with 1 outputs a document"));
  CHECK_THROWS_WITH(rank_loss(scores, lists, spec, Tensor::ones({2})),
                    Contains("normaliser must be one"));
  RankBatchValues grades = list_of(std::vector<double>(6), {0, 1, 2});
  grades.columns = 2;
  CHECK_THROWS_WITH(run_loss(grades, LossSpec::parse("mcrank"), DType::f32),
                    Contains("a label is no class"));
}

TEST_CASE("the gradient of a ranking loss takes part in the graph", "[rank][losses]") {
  const LossSpec spec = LossSpec::parse("listnet");
  const RankBatchValues batch = random_batch({.sizes = {3, 4}}, spec, 1);
  const Tensor x = batch.score_tensor(DType::f32, spec);
  (rank_loss(x, batch.arrays(), spec) * 3).backward();
  const std::vector<double> once = x.grad().to_vector<double>();
  (rank_loss(x, batch.arrays(), spec) * 3).backward();  // adds
  CHECK_THROWS_WITH(
      rank_loss(x, batch.arrays(), spec).backward({.create_graph = true}),
      Catch::Contains("rank_loss: its gradient has no gradient (create_graph); write the"));
  const LossResult plain = run_loss(batch, spec, DType::f32);
  for (size_t i = 0; i < once.size(); ++i) {
    CHECK(once[i] == Approx(3 * plain.gradient[i]));
    CHECK(x.grad().to_vector<double>()[i] == Approx(6 * plain.gradient[i]));
  }
}
