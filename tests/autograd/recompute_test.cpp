#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>

using namespace binade;

namespace {

struct Block {
  Tensor weight{Array::arange(64, DType::f32).view({8, 8}).to(DType::f32), true};
  Tensor gain{Array::full({8}, 1, DType::f32), true};

  TensorList operator()(const TensorList& in) const {
    const Tensor hidden = dropout(gelu(linear(rms_norm(in[0], gain), weight * 0.01)), 0.5, true);
    return {in[0] + hidden, sum(hidden)};
  }
};

struct Run {
  std::vector<float> output, dx, dweight, dgain;
  uint64_t place = 0;
};

Run run(bool recomputed) {
  RandomState::current().begin_step(3, 1);
  const Block block;
  const Tensor x(Array::arange(32, DType::f32).view({4, 8}), true);
  TensorList values = {x * 0.1, {}};
  for (int layer = 0; layer < 3; ++layer)
    values = recomputed ? recompute(block, {values[0]}) : block({values[0]});
  RandomState::current().next_place();
  (sum(square(values[0])) + values[1]).backward();
  return {values[0].to_vector<float>(), x.grad().to_vector<float>(),
          block.weight.grad().to_vector<float>(), block.gain.grad().to_vector<float>(),
          RandomState::current().place()};
}

}  // namespace

TEST_CASE("recompute changes no bit, with dropout too", "[recompute]") {
  const Run plain = run(false), again = run(true);
  CHECK(plain.output == again.output);
  CHECK(plain.dx == again.dx);
  CHECK(plain.dweight == again.dweight);
  CHECK(plain.dgain == again.dgain);
  CHECK(plain.place == again.place);
}

TEST_CASE("recompute keeps the precision policy of the first run", "[recompute]") {
  const auto step = [&](bool recomputed) {
    PrecisionPolicy policy;
    const Block block;
    const Tensor x(Array::arange(32, DType::f32).view({4, 8}), true);
    const auto segment = [&](const TensorList& in) -> TensorList {
      return {matmul(in[0] * 0.1, block.weight * 0.01)};
    };
    Tensor y;
    {
      const PrecisionPolicy* before = exchange_precision_policy(&policy);
      y = recomputed ? recompute(segment, {x})[0] : segment({x})[0];
      exchange_precision_policy(before);
      policy.half_dtype = DType::f64;  // the scope is over and its policy gone
    }
    CHECK(y.dtype() == DType::f16);
    sum(to(y, DType::f32)).backward();
    return std::pair(x.grad().to_vector<float>(), block.weight.grad().to_vector<float>());
  };
  CHECK(step(false) == step(true));
}

TEST_CASE("grad() reaches through recompute and leaves everybody's gradients alone",
          "[recompute]") {
  const auto gradients = [](bool recomputed) {
    RandomState::current().begin_step(3, 1);
    const Block block;
    const Tensor x(Array::arange(32, DType::f32).view({4, 8}), true);
    Tensor y = x * 0.1;
    const Tensor inner = y;
    for (int layer = 0; layer < 3; ++layer)
      y = recomputed ? recompute(block, {y})[0] : block({y})[0];
    const TensorList found = grad({sum(square(y))}, {x, block.weight, inner});
    CHECK_FALSE(x.grad().defined());
    CHECK_FALSE(block.weight.grad().defined());
    CHECK_FALSE(block.gain.grad().defined());
    std::vector<std::vector<float>> values;
    for (const Tensor& gradient : found) {
      REQUIRE(gradient.defined());
      values.push_back(gradient.to_vector<float>());
    }
    return values;
  };
  CHECK(gradients(true) == gradients(false));
}

TEST_CASE("recompute within recompute is seen through by grad()", "[recompute]") {
  const Tensor weight(Array::full({2}, 3, DType::f64), true);
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  const auto inner = [&](const TensorList& in) -> TensorList { return {in[0] * weight}; };
  const auto outer = [&](const TensorList& in) -> TensorList {
    return {recompute(inner, {in[0] * weight})[0] * 2};
  };
  // d/dw Σ 2·x·w² = 4·x·w, d/dx = 2·w².
  const TensorList found = grad({sum(recompute(outer, {x})[0])}, {weight, x});
  CHECK(found[0].to_vector<double>() == std::vector<double>{60, 60});
  CHECK(found[1].to_vector<double>() == std::vector<double>{18, 18});
  CHECK_FALSE(weight.grad().defined());
}

TEST_CASE("what a recomputed segment uses from outside gets its gradient once it is complete",
          "[recompute]") {
  const Tensor weight(Array::full({2}, 3, DType::f64), true);
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  const Tensor doubled = weight * 2;  // on the tape before both segments, and used after them
  int calls = 0;
  const auto count = [&](const Array&) {
    ++calls;
    return Array();
  };
  weight.register_hook(count);
  doubled.register_hook(count);
  const auto segment = [&](const TensorList& in) -> TensorList { return {in[0] * doubled}; };
  const Tensor y = recompute(segment, {recompute(segment, {x})[0]})[0];
  sum(y + doubled).backward();
  // d/dw Σ x·(2w)² + 2w = 8·x·w + 2.
  CHECK(weight.grad().to_vector<double>() == std::vector<double>{122, 122});
  CHECK(calls == 2);
}

TEST_CASE("recompute without inputs that need a gradient reaches the parameters", "[recompute]") {
  RandomState::current().begin_step(3, 1);
  const Block block;
  const Tensor x = Tensor::ones({4, 8});
  sum(recompute(block, {x})[0]).backward();
  CHECK(block.weight.grad().defined());
  const NoGrad off;
  CHECK_FALSE(recompute(block, {x})[0].requires_grad());
}

TEST_CASE("recompute takes undefined, repeated and empty inputs", "[recompute]") {
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  const auto segment = [](const TensorList& in) -> TensorList {
    CHECK_FALSE(in[1].defined());
    return {in[0] * in[2]};
  };
  sum(recompute(segment, {x, {}, x})[0]).backward();
  CHECK(x.grad().to_vector<double>() == std::vector<double>{10, 10});
  const Tensor empty(Array::zeros({0, 2}, DType::f64), true);
  sum(recompute([](const TensorList& in) -> TensorList { return {in[0] * 2}; }, {empty})[0])
      .backward();
  CHECK(empty.grad().shape() == Shape{0, 2});
}

TEST_CASE("a recomputed segment may return inputs, parameters and one tensor twice",
          "[recompute]") {
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  const Tensor weight(Array::full({2}, 3, DType::f64), true);
  const Tensor index = Tensor::from(std::vector<int64_t>{1, 0}, {2});
  const auto segment = [&](const TensorList& in) -> TensorList {
    const Tensor y = in[0] * weight;
    return {in[0], weight, y, y, in[1]};
  };
  const TensorList out = recompute(segment, {x, index});
  REQUIRE(out.size() == 5);
  CHECK_FALSE(out[4].requires_grad());
  const Tensor seed = Tensor::from(std::vector<double>{1, 2}, {2});
  (out[0] * 10 + out[1] * 100 + out[2] + out[3]).backward(seed);
  // 10 + 2w and 100 + 2x, times the seed.
  CHECK(x.grad().to_vector<double>() == std::vector<double>{16, 32});
  CHECK(weight.grad().to_vector<double>() == std::vector<double>{110, 220});
  x.zero_grad();
  weight.zero_grad();
  recompute(segment, {x, index})[0].backward(seed);
  x.grad().fill(0);
  CHECK(seed.to_vector<double>() == std::vector<double>{1, 2});
  CHECK(recompute([](const TensorList&) -> TensorList { return {}; }, {x}).empty());
}

TEST_CASE("recompute runs twice where the graph is retained", "[recompute]") {
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  const auto segment = [](const TensorList& in) -> TensorList { return {square(in[0])}; };
  const Tensor y = sum(recompute(segment, {x})[0]);
  y.backward({.retain_graph = true});
  y.backward();
  CHECK(x.grad().to_vector<double>() == std::vector<double>{20, 20});
  CHECK_THROWS_WITH(y.backward(), Catch::Contains("retain_graph"));
}

TEST_CASE("a segment that recompute cannot repeat is refused", "[recompute]") {
  const Tensor x(Array::full({2}, 5, DType::f64), true);
  int runs = 0;
  const auto growing = [&](const TensorList& in) -> TensorList {
    return TensorList(static_cast<size_t>(++runs), in[0] * 2);
  };
  CHECK_THROWS_WITH(sum(recompute(growing, {x})[0]).backward(),
                    Catch::Contains("1 tensors in the forward pass and 2 in backward"));
  CHECK_THROWS_WITH(recompute([](const TensorList&) -> TensorList { return {Tensor()}; }, {x}),
                    Catch::Contains("output 0") && Catch::Contains("undefined"));
  const Tensor y =
      recompute([](const TensorList& in) -> TensorList { return {in[0] * 2}; }, {x})[0];
  x.array().fill(1);
  CHECK_THROWS_WITH(sum(y).backward(), Catch::Contains("changed in place"));
}

TEST_CASE("kinds of recompute are named, and others refused", "[recompute]") {
  CHECK(parse_recompute("nothing") == Recompute::nothing);
  CHECK(parse_recompute("norms") == Recompute::norms);
  CHECK(parse_recompute("activations") == Recompute::activations);
  CHECK(parse_recompute("norms+activations") == Recompute::norms_activations);
  CHECK(parse_recompute("blocks") == Recompute::blocks);
  CHECK_THROWS_WITH(parse_recompute("all"),
                    Catch::Contains("\"all\"") && Catch::Contains("norms+activations or blocks"));
  const auto chosen = [] {
    return std::pair(recomputes(Recompute::norms), recomputes(Recompute::activations));
  };
  CHECK(chosen() == std::pair(false, false));
  {
    const RecomputeScope norms(Recompute::norms);
    CHECK(chosen() == std::pair(true, false));
    {
      const RecomputeScope activations(Recompute::activations);
      CHECK(chosen() == std::pair(false, true));
    }
    const RecomputeScope both(Recompute::norms_activations);
    CHECK(chosen() == std::pair(true, true));
  }
  CHECK(chosen() == std::pair(false, false));
}

TEST_CASE("a norm's output is not kept where it can be recomputed", "[recompute]") {
  const int64_t rows = 512, cols = 256;
  const Tensor x = Tensor::ones({rows, cols});
  const Tensor scale(Array::full({cols}, 1, DType::f32), true);
  const Tensor weight(Array::full({cols, cols}, 1, DType::f32), true);
  const auto held = [&](Recompute level) {
    const RecomputeScope scope(level);
    const int64_t before = memory_stats(Device::cpu()).in_use;
    const Tensor y = sum(linear(rms_norm(x, scale), weight));
    return memory_stats(Device::cpu()).in_use - before;
  };
  CHECK(held(Recompute::nothing) - held(Recompute::norms) == rows * cols * 4);
}
