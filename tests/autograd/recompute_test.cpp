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

TEST_CASE("recompute without inputs that need a gradient reaches the parameters", "[recompute]") {
  RandomState::current().begin_step(3, 1);
  const Block block;
  const Tensor x = Tensor::ones({4, 8});
  sum(recompute(block, {x})[0]).backward();
  CHECK(block.weight.grad().defined());
  const NoGrad off;
  CHECK_FALSE(recompute(block, {x})[0].requires_grad());
}
