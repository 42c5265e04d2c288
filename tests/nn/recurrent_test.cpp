// GRU and LSTM against PyTorch's own values: scripts/long/recurrent_cases.py makes them again.
#include <binade/nn/recurrent.h>

#include <cmath>

#include <catch2/catch.hpp>

#include <binade/amp/preset.h>
#include <binade/autograd/ops.h>
#include <binade/core/file.h>
#include <binade/core/random.h>
#include <binade/nn/init.h>
#include <nlohmann/json.hpp>

#include "parsed_json.h"

using namespace binade;
using namespace binade::nn;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

const json& cases() {
  static const json file =
      test::parsed(read_text_file(BINADE_SOURCE_DIR "/tests/nn/torch_recurrent.json"));
  return file.at("cases");
}

Tensor tensor_of(const json& values, const Shape& shape, bool requires_grad = false) {
  const Array f64 = Array::from(values.get<std::vector<double>>(), shape);
  return Tensor(f64.to(DType::f32), requires_grad);
}

void load(Module& module, const json& state) {
  StateDict values;
  for (const auto& [name, parameter] : state.items()) {
    const auto sizes = parameter.at("shape").get<std::vector<int64_t>>();
    Shape shape;
    for (const int64_t size : sizes) shape.push_back(size);
    values[name] = tensor_of(parameter.at("values"), shape).array();
  }
  module.load_state(values);  // strict: the names are PyTorch's
}

void check_close(const Array& got, const json& expected, double tolerance) {
  const auto values = expected.get<std::vector<double>>();
  const std::vector<double> found = got.to_vector<double>();
  REQUIRE(found.size() == values.size());
  for (size_t i = 0; i < values.size(); ++i)
    CHECK(std::abs(found[i] - values[i]) <= tolerance * (1 + std::abs(values[i])));
}

struct Result {
  Tensor x, outputs;
  std::vector<Tensor> last;
  std::shared_ptr<Module> layer;
};

// The case's layer under a preset, on its inputs.
Result run(const json& one, const amp::Preset& preset) {
  Result result;
  result.x = tensor_of(one.at("x"), {2, 5, 3}, true);
  const Tensor hidden = tensor_of(one.at("hidden"), {2, 2, 4});
  const RecurrentOptions options{.layers = 2, .bias = one.at("bias")};
  const amp::Autocast scope(preset);
  if (one.at("kind") == "gru") {
    const auto layer = std::make_shared<Gru>(3, 4, options);
    load(*layer, one.at("state"));
    preset.apply(*layer);
    auto [outputs, last] = layer->forward(result.x, hidden);
    result.outputs = outputs;
    result.last = {last};
    result.layer = layer;
  } else {
    const auto layer = std::make_shared<Lstm>(3, 4, options);
    load(*layer, one.at("state"));
    preset.apply(*layer);
    auto [outputs, last] = layer->forward(result.x, {hidden, tensor_of(one.at("cell"), {2, 2, 4})});
    result.outputs = outputs;
    result.last = {last.hidden, last.cell};
    result.layer = layer;
  }
  return result;
}

}  // namespace

TEST_CASE("recurrent layers have PyTorch's names, values and gradients", "[layers][recurrent]") {
  for (const json& one : cases()) {
    INFO(one.at("kind").get<std::string>() << ", bias " << one.at("bias").get<bool>());
    const Result result = run(one, amp::Preset::parse("fp32"));
    check_close(result.outputs.array(), one.at("outputs"), 2e-6);
    REQUIRE(result.last.size() == one.at("last").size());
    Tensor loss =
        sum(result.outputs * reshape(Tensor(Array::arange(40, DType::f32)) / 40.0, {2, 5, 4}));
    for (size_t i = 0; i < result.last.size(); ++i) {
      check_close(result.last[i].array(), one.at("last")[i], 2e-6);
      loss = loss + sum(square(result.last[i]));
    }
    loss.backward();
    check_close(result.x.grad(), one.at("x_grad"), 1e-5);
    for (const NamedParameter& named : result.layer->named_parameters()) {
      INFO(named.name);
      check_close(named.parameter->tensor().grad(), one.at("state").at(named.name).at("grad"),
                  1e-5);
    }
  }
}

TEST_CASE("recurrent layers run in half precision", "[layers][recurrent]") {
  for (const json& one : cases())
    for (const char* name : {"fp16", "bf16", "fp16-autocast"}) {
      INFO(one.at("kind").get<std::string>() << ", " << name);
      const Result result = run(one, amp::Preset::parse(name));
      const bool bf16 = std::string(name) == "bf16";
      CHECK(result.outputs.dtype() == (bf16 ? DType::bf16 : DType::f16));
      // Weights, inputs and the state of every step are rounded: half an ulp each, of values
      // around 1, which two layers of five steps hand on.
      const double tolerance = 8 * (bf16 ? 0x1p-8 : 0x1p-11);
      check_close(result.outputs.array(), one.at("outputs"), tolerance);
      for (size_t i = 0; i < result.last.size(); ++i)
        check_close(result.last[i].array(), one.at("last")[i], tolerance);
      if (result.last.size() > 1) CHECK(result.last[1].dtype() == DType::f32);  // cells
      sum(result.outputs).backward();
      CHECK(result.x.grad().dtype() == DType::f32);
    }
}

TEST_CASE("a recurrent layer goes on from the state it gave", "[layers][recurrent]") {
  RandomState::current().set_seed(2);
  const Lstm lstm(3, 5, {.layers = 2});
  const Gru gru(3, 5, {.layers = 2});
  const Tensor x(init::normal()({2, 6, 3}, {}));
  const Tensor first = slice(x, 1, 0, 4), rest = slice(x, 1, 4);
  // A matmul of another number of rows may round otherwise.
  const auto close = [](const Tensor& a, const Tensor& b) { return max(abs(a - b)).item() < 1e-6; };

  const auto [whole, end] = lstm.forward(x);
  const auto [before, middle] = lstm.forward(first);
  const auto [behind, last] = lstm.forward(rest, middle);
  CHECK(close(cat({before, behind}, 1), whole));
  CHECK(close(last.hidden, end.hidden));
  CHECK(close(last.cell, end.cell));
  CHECK(end.hidden.shape() == Shape{2, 2, 5});
  CHECK(select(end.hidden, 0, 1).to_vector<float>() == select(whole, 1, -1).to_vector<float>());

  const auto [gru_whole, gru_end] = gru.forward(x);
  const auto [gru_before, gru_middle] = gru.forward(first);
  const auto [gru_behind, gru_last] = gru.forward(rest, gru_middle);
  CHECK(close(cat({gru_before, gru_behind}, 1), gru_whole));
  CHECK(close(gru_last, gru_end));
}

TEST_CASE("recurrent layers drop between layers, while training", "[layers][recurrent]") {
  RandomState::current().set_seed(2);
  Gru gru(3, 64, {.layers = 2, .dropout = 0.5});
  Gru single(3, 64, {.dropout = 0.5});
  const Tensor x(init::normal()({2, 3, 3}, {}));
  const auto values = [&x](const Gru& layer) { return layer.forward(x).first.to_vector<float>(); };
  CHECK(values(gru) != values(gru));
  CHECK(values(single) == values(single));  // one layer has nothing to drop
  gru.eval();
  CHECK(values(gru) == values(gru));
}

TEST_CASE("recurrent layers without a gradient keep nothing and say the same",
          "[layers][recurrent]") {
  RandomState::current().set_seed(4);
  const Lstm lstm(3, 5);
  const Tensor x(init::normal()({2, 7, 3}, {}));
  const auto [recorded, state] = lstm.forward(x);
  const NoGrad off;
  const auto [plain, plain_state] = lstm.forward(x);
  CHECK(plain.to_vector<float>() == recorded.to_vector<float>());
  CHECK(plain_state.cell.to_vector<float>() == state.cell.to_vector<float>());
}

TEST_CASE("recurrent layers refuse what does not fit", "[layers][recurrent][errors]") {
  const Gru layer(3, 4, {.layers = 2});
  CHECK_THROWS_WITH(Gru(0, 4), Contains("Gru") && Contains("positive"));
  CHECK_THROWS_WITH(Lstm(3, 4, {.layers = 0}), Contains("Lstm") && Contains("0 layers"));
  CHECK_THROWS_WITH(Lstm(3, 4, {.dropout = 1}), Contains("dropout"));
  CHECK_THROWS_WITH(layer.forward(Tensor::zeros({2, 3})), Contains("(B, T, 3)"));
  CHECK_THROWS_WITH(layer.forward(Tensor::zeros({2, 5, 4})), Contains("(B, T, 3)"));
  CHECK_THROWS_WITH(layer.forward(Tensor()), Contains("nothing"));
  CHECK_THROWS_WITH(layer.forward(Tensor::zeros({2, 0, 3})), Contains("a step at least"));
  CHECK_THROWS_WITH(layer.forward(Tensor::zeros({2, 5, 3}), Tensor::zeros({1, 2, 4})),
                    Contains("(2, 2, 4)") && Contains("(1, 2, 4)"));
  CHECK_THROWS_WITH(Lstm(3, 4).forward(Tensor::zeros({2, 5, 3}), {{}, Tensor::zeros({2, 4})}),
                    Contains("cell"));
}
