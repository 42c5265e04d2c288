// Overflow diagnosis and underflow report.
#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include <binade/amp/overflow_diagnosis.h>
#include <binade/amp/underflow_report.h>
#include <binade/autograd/ops.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"
#include "parsed_json.h"

using namespace binade;
using namespace binade::test;
using amp::OverflowDiagnosis;
using Catch::Matchers::Contains;

namespace {

Array f16(const std::vector<float>& values) {
  return Array::from(values, {static_cast<int64_t>(values.size())}).to(DType::f16);
}

}  // namespace

TEST_CASE("the diagnosis names the first op of the forward pass", "[amp][diagnosis]") {
  const Tensor x(f16({2, -300})), y(f16({3, 300}));
  OverflowDiagnosis diagnosis;
  const Tensor fine = x + y;
  CHECK(!diagnosis.found());
  CHECK(diagnosis.text().empty());
  const Tensor product = x * y;  // −90000
  const Tensor nan = product - product;
  CHECK(diagnosis.found());
  CHECK(diagnosis.op() == "mul");
  CHECK(!diagnosis.in_backward());
  CHECK_THAT(diagnosis.text(), Contains("the forward pass of mul produced inf") &&
                                   Contains("in [-300, 2]") && Contains("in [3, 300]") &&
                                   Contains("in [6, 6] and inf"));
  CHECK(diagnosis.text().find('\n') == std::string::npos);
}

TEST_CASE("the diagnosis names the first op of the backward pass", "[amp][diagnosis]") {
  const Tensor x(f16({1, 2}), /*requires_grad=*/true), weight(f16({0.5f, 4}));
  OverflowDiagnosis diagnosis;
  const Tensor loss = sum(to(x * weight, DType::f32)) * 30000;
  CHECK(!diagnosis.found());
  loss.backward();
  CHECK(diagnosis.op() == "mul");
  CHECK(diagnosis.in_backward());
  CHECK_THAT(diagnosis.text(), Contains("the backward pass of mul produced inf") &&
                                   Contains("gradient coming in f16") &&
                                   Contains("in [30000, 30000]") && Contains("and inf"));
}

TEST_CASE("the diagnosis takes NaN, too, looks into recompute, and knows masks",
          "[amp][diagnosis]") {
  {
    OverflowDiagnosis diagnosis;
    log(Tensor::from<float>({1, -1}, {2}));
    CHECK(diagnosis.op() == "log");
    CHECK_THAT(diagnosis.text(), Contains("produced NaN") && Contains("in [-1, 1]"));
  }
  {
    OverflowDiagnosis diagnosis;
    const Tensor mask = greater(Tensor::from<float>({0, 1}, {2}), Tensor::full({2}, 0.5));
    softmax(masked_fill(Tensor::zeros({2}), mask, -INFINITY));
    CHECK(!diagnosis.found());
  }
  {
    const Tensor x(f16({300, 1}), true);
    OverflowDiagnosis diagnosis;
    recompute([](const TensorList& in) -> TensorList { return {square(in[0])}; }, {x});
    CHECK(diagnosis.op() == "square");
  }
}

TEST_CASE("a diagnosis ends with its scope", "[amp][diagnosis]") {
  const Tensor big(f16({300}));
  CHECK(current_op_observer() == nullptr);
  OverflowDiagnosis outer;
  {
    OverflowDiagnosis inner;
    square(big);
    CHECK(inner.found());
  }
  CHECK(!outer.found());
  square(big);
  CHECK(outer.found());
}

TEST_CASE("the underflow report counts what a larger scale brings back", "[amp][underflow]") {
  // Gradients of `small`, exact in f32; FP16 holds 2^-24 and rounds 2^-25 and less to zero.
  const std::vector<float> factors = {1, 0.75f, 0x1p-24f, 0x1p-26f, 0x1p-30f, 0, 0x1p-40f, 0x1p15f};
  Parameters model;
  const auto norm = model.put<float>("norm", {1}, {1}, /*keep_full_precision=*/true);
  const auto small = model.put<float>("small", std::vector<float>(8, 1), {2, 4});
  const auto unused = model.put<float>("unused", {1, 1}, {2});
  model.set_compute_dtype(DType::f16, true);
  optim::Sgd sgd(model.group());
  const Tensor c = Tensor::from(factors, {2, 4});
  int passes = 0;
  const auto backward = [&](double scale) {
    ++passes;
    const Tensor loss = sum(to(small->tensor(), DType::f32) * c) + sum(norm->tensor() * 0x1p-60);
    (loss * scale).backward();
  };
  const amp::UnderflowReport report = amp::underflow_report(sgd, 1, backward);
  CHECK(passes == 2);
  CHECK(report.larger_scale == 256);
  REQUIRE(report.rows.size() == 3);
  CHECK(report.rows[0].parameter == "norm");  // f32 loses nothing
  CHECK(report.rows[0].underflowed == 0);
  CHECK(report.rows[0].exponents == std::map<int, int64_t>{{-60, 1}});
  const amp::UnderflowRow& row = report.rows[1];
  CHECK(row.parameter == "small");
  CHECK(row.elements == 8);
  CHECK(row.zeros == 4);
  CHECK(row.underflowed == 2);  // 2^-40 is lost at both scales
  CHECK(row.share() == 0.25);
  CHECK(row.exponents ==
        std::map<int, int64_t>{{0, 1}, {-1, 1}, {-24, 1}, {-26, 1}, {-30, 1}, {15, 1}});
  CHECK(report.rows[2].zeros == 2);
  CHECK(report.rows[2].underflowed == 0);
  CHECK(report.share() == Approx(2.0 / 11));
  CHECK_THAT(report.summary(), Contains("18 %") && Contains("small") && Contains("25 %"));

  const nlohmann::json json = test::parsed(report.to_json(7));
  CHECK(json.at("step") == 7);
  CHECK(json.at("parameters").at(1).at("name") == "small");
  CHECK(json.at("parameters").at(1).at("exponents").at("-26") == 1);

  // Scaling by 2^14 rescues 2^-26 and 2^-30, and then 2^-40 is what a still larger scale shows.
  const amp::UnderflowReport scaled = amp::underflow_report(sgd, 0x1p14, backward, 0x1p10);
  CHECK(scaled.rows[1].underflowed == 1);
  CHECK(scaled.rows[1].exponents.at(-26) == 1);  // 2^-40 · 2^14
  CHECK_THROWS_WITH(amp::underflow_report(sgd, 1, backward, 1), Contains("larger scale"));
  // Nothing of it is left for the next step.
  CHECK(!small->tensor().grad().defined());
}
