#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/write_log.h>

#include "gpu.h"

using namespace binade;

namespace {

class Policy {
 public:
  explicit Policy(DType half = DType::f16)
      : policy_{half}, previous_(exchange_precision_policy(&policy_)) {}
  ~Policy() { exchange_precision_policy(previous_); }
  Policy(const Policy&) = delete;
  Policy& operator=(const Policy&) = delete;

 private:
  PrecisionPolicy policy_;
  const PrecisionPolicy* previous_;
};

// Counts casts as they run.
class CastCounter : public OpObserver {
 public:
  CastCounter() : previous_(exchange_op_observer(this)) {}
  ~CastCounter() override { exchange_op_observer(previous_); }
  void on_forward(const char* name, const TensorList& inputs,
                  const std::vector<Array>& outputs) override {
    if (std::string(name) == "to") values.push_back(outputs[0]);
    (void)inputs;
  }
  void on_backward(const char*, const std::vector<Array>&, const std::vector<Array>&) override {}
  std::vector<Array> values;

 private:
  OpObserver* previous_;
};

}  // namespace

TEST_CASE("ops run in the dtype of their class", "[autocast]") {
  const Tensor single = Tensor::ones({2, 2}), half = Tensor::ones({2, 2}, DType::f16);
  const Tensor image = Tensor::ones({1, 2, 4, 4});
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Policy policy(dtype);
    CHECK(matmul(single, single).dtype() == dtype);
    CHECK(linear(single, single).dtype() == dtype);
    CHECK(linear_relu(single, single).dtype() == dtype);
    CHECK(linear_joint(single, {single, single}).dtype() == dtype);
    CHECK(gelu_mlp(single, single, {}, single, {}).dtype() == dtype);
    CHECK(swiglu_mlp(single, single, single, single).dtype() == dtype);
    CHECK(conv2d(image, Tensor::ones({3, 2, 2, 2})).dtype() == dtype);
    const Tensor heads = reshape(image, {1, 2, 4, 4});
    CHECK(scaled_dot_product_attention(heads, heads, heads).dtype() == dtype);
    CHECK(packed_attention(Tensor::ones({1, 2, 6}), 1, 1).dtype() == dtype);
  }
  const Policy policy;
  for (const auto& op : {exp, log, log1p, expm1, rsqrt, reciprocal, sin, cos, erf})
    CHECK(op(half).dtype() == DType::f32);
  CHECK(pow(half, 2).dtype() == DType::f32);
  CHECK(softmax(half).dtype() == DType::f32);
  CHECK(log_softmax(half).dtype() == DType::f32);
  CHECK(sum(half).dtype() == DType::f32);
  CHECK(mean(half, {0}).dtype() == DType::f32);
  CHECK(var(half).dtype() == DType::f32);
  CHECK(logsumexp(half).dtype() == DType::f32);
  CHECK(mse_loss(half, half).dtype() == DType::f32);
  CHECK((half + half).dtype() == DType::f16);
  CHECK((half * single).dtype() == DType::f32);
  CHECK(gelu(half).dtype() == DType::f16);
  CHECK(layer_norm(half, Tensor::ones({2}), {}).dtype() == DType::f16);
  CHECK(matmul(Tensor::ones({2, 2}, DType::f64), Tensor::ones({2, 2}, DType::f64)).dtype() ==
        DType::f64);
}

TEST_CASE("without a policy dtypes stay", "[autocast]") {
  const Tensor half = Tensor::ones({2, 2}, DType::f16);
  CHECK(matmul(half, half).dtype() == DType::f16);
  CHECK(exp(half).dtype() == DType::f16);
  CHECK(softmax(half).dtype() == DType::f16);
  CHECK(sum(half).dtype() == DType::f16);
  CHECK(logsumexp(half).dtype() == DType::f16);
  CHECK(mse_loss(half, half).dtype() == DType::f32);
}

TEST_CASE("gradients keep the dtype of their tensor, inside and outside the policy", "[autocast]") {
  const Tensor x(Array::full({2, 4}, 0.5, DType::f32), true);
  const Tensor weight(Array::full({4, 4}, 0.25, DType::f32), true);
  const Tensor bias(Array::full({4}, 0.25, DType::f32), true);
  const Policy policy;
  const Tensor y = exp(matmul(linear(x, weight, bias), weight));
  sum(y).backward();  // under the policy: gradients follow the forward pass's dtypes
  for (const Tensor& leaf : {x, weight, bias}) {
    CHECK(leaf.grad().dtype() == DType::f32);
    CHECK(leaf.grad().shape() == leaf.shape());
  }
}

TEST_CASE("linear writes f32 gradients of f32 parameters from half operands", "[autocast]") {
  // 3000 · 30 is beyond f16 in the gradient of the weight.
  const Tensor x = Tensor::full({1, 1}, 3000);
  const Tensor weight(Array::full({1, 1}, 1, DType::f32), true);
  const Policy policy;
  linear(x, weight).backward(Tensor::full({1, 1}, 30, DType::f16));
  CHECK(weight.grad().item() == 90000);
}

TEST_CASE("a parameter is cast once a step", "[autocast]") {
  clear_cast_cache();
  const Tensor weight(Array::full({2, 2}, 0.5, DType::f32), true);
  const Tensor x = Tensor::ones({2, 2}, DType::f16);
  const Policy policy;
  CastCounter casts;
  const auto cast_values = [&] {
    const size_t before = casts.values.size();
    const Tensor y = matmul(x, weight);
    REQUIRE(casts.values.size() == before + 1);
    return casts.values.back();
  };
  const Array first = cast_values();
  CHECK(first.dtype() == DType::f16);
  CHECK(cast_values().shares_storage(first));
  {
    const NoGrad off;
    CHECK(cast_values().shares_storage(first));
  }
  linear(x, weight);
  CHECK(casts.values.back().shares_storage(first));

  clear_cast_cache();
  const Array second = cast_values();
  CHECK_FALSE(second.shares_storage(first));
  // A weight that was changed is cast again.
  weight.set_value(Array::full({2, 2}, 2, DType::f32));
  const Array third = cast_values();
  CHECK_FALSE(third.shares_storage(second));
  CHECK(third.to_vector<float>() == std::vector<float>(4, 2));
  // An activation is not kept.
  const Tensor activation = Tensor::ones({2, 2});
  matmul(activation, x);
  const Array once = casts.values.back();
  matmul(activation, x);
  CHECK_FALSE(casts.values.back().shares_storage(once));
  clear_cast_cache();
}

TEST_CASE("a cast weight serves several backward passes", "[autocast]") {
  clear_cast_cache();
  const Tensor weight(Array::full({2, 2}, 0.5, DType::f32), true);
  const Tensor x = Tensor::ones({2, 2}, DType::f16);
  const Policy policy;
  for (int micro_batch = 0; micro_batch < 3; ++micro_batch) sum(matmul(x, weight)).backward();
  CHECK(weight.grad().to_vector<float>() == std::vector<float>(4, 6));
  clear_cast_cache();
}

TEST_CASE("a weight that a replay writes is cast again", "[autocast]") {
  clear_cast_cache();
  const Tensor weight(Array::full({2, 2}, 0.5, DType::f32), true);
  const Tensor x = Tensor::ones({2, 2}, DType::f16);
  const Policy policy;
  WriteLog log;
  {
    const WriteLog::Scope noting(log);
    weight.array().fill(2);
  }
  const auto product = [&] { return matmul(x, weight).to_vector<float>()[0]; };
  CHECK(product() == 4);
  // What a replay does: it writes, and only the log says so.
  for (int64_t i = 0; i < 4; ++i) weight.array().data<float>()[i] = 3;
  log.bump_versions();
  CHECK(product() == 6);
  clear_cast_cache();
}

TEST_CASE("a cast made in a capture serves that capture only", "[autocast]") {
  clear_cast_cache();
  const Tensor weight(Array::full({2, 2}, 0.5, DType::f32), true);
  const Tensor x = Tensor::ones({2, 2}, DType::f16);
  const Policy policy;
  CastCounter casts;
  const auto cast_values = [&] {
    matmul(x, weight);
    return casts.values.back();
  };
  const Array outside = cast_values();
  WriteLog log;
  Array inside;
  {
    const WriteLog::Scope noting(log);
    inside = cast_values();
    CHECK_FALSE(inside.shares_storage(outside));
    CHECK(cast_values().shares_storage(inside));
  }
  CHECK_FALSE(cast_values().shares_storage(inside));
  clear_cast_cache();
}

TEST_CASE("linear under a policy gives the CPU's gradients on the GPU", "[autocast][cuda]") {
  binade::test::require_gpu();
  const auto run = [](Device device, bool gelu) {
    const auto parameter = [&](const Shape& shape, double scale) {
      const Array values = Array::arange(shape.numel(), DType::f32).view(shape);
      const NoGrad off;
      return Tensor((Tensor(values) * scale - 0.5).array().to(device), true);
    };
    const Tensor x = parameter({4, 16}, 0.01), weight = parameter({8, 16}, 0.005);
    const Tensor bias = parameter({8}, 0.1);
    const Policy policy;
    const Tensor y =
        gelu ? gelu_mlp(x, weight, bias, transpose(weight, 0, 1), {}) : linear(x, weight, bias);
    for (int pass = 0; pass < 2; ++pass)  // the second adds in place
      sum(square(y)).backward({.retain_graph = true});
    std::vector<double> values = y.to_vector<double>();
    for (const Tensor& leaf : {x, weight, bias}) {
      CHECK(leaf.grad().dtype() == DType::f32);
      const auto gradient = leaf.grad().to_vector<double>();
      values.insert(values.end(), gradient.begin(), gradient.end());
    }
    return values;
  };
  for (const bool gelu : {false, true}) {
    const auto near = run(Device::cpu(), gelu), far = run(binade::test::test_gpu(), gelu);
    for (size_t i = 0; i < near.size(); ++i)
      CHECK(far[i] == Approx(near[i]).epsilon(0.01).margin(0.01));
  }
}
