// Every op with sizes of 0: the result that its reference gives, or an Error; never a crash.
#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/autograd/gradcheck.h>
#include <binade/core/device_errors.h>

#include "gpu.h"
#include "op_harness.h"

using namespace binade;
using namespace binade::test;

namespace {

// The row's outputs; none and `refused` if the op says Error.
struct Outcome {
  bool refused = false;
  TensorList outputs;

  Outcome(const OpRow& row, const TensorList& inputs, Device device = {}) {
    try {
      outputs = row.call(inputs);
      check_device_faults(device);
    } catch (const Error&) {
      refused = true;
      outputs.clear();
    }
  }
  bool has_gradient() const {
    return std::any_of(outputs.begin(), outputs.end(),
                       [](const Tensor& output) { return output.requires_grad(); });
  }
};

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

void check_outputs(const OpRow& row, const TensorList& inputs, const TensorList& outputs) {
  std::vector<Values> expected;
  REQUIRE_NOTHROW(expected = row.reference(values_of(inputs)));
  REQUIRE(outputs.size() == expected.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    INFO("output " << i);
    CHECK(outputs[i].shape() == expected[i].shape);
    CHECK(difference(outputs[i].to_vector<double>(), expected[i].data, outputs[i].dtype(),
                     row.roundings) == "");
  }
}

void check_gradients(const OpRow& row, const TensorList& inputs, DType dtype) {
  std::vector<Values> gradients, expected;
  REQUIRE_NOTHROW(gradients = gradients_of(row, inputs));
  REQUIRE_NOTHROW(expected = gradients_of(row, in_f64(row, inputs)));
  size_t i = 0;
  for (const Tensor& input : inputs) {
    if (!input.requires_grad()) continue;
    INFO("gradient " << i);
    CHECK(gradients[i].shape == input.shape());
    CHECK(all_finite(gradients[i].data));
    CHECK(difference(gradients[i].data, expected[i].data, dtype, 12) == "");
    ++i;
  }
  if (dtype == DType::f64) {
    std::string found;
    REQUIRE_NOTHROW(found = gradcheck(row.call, inputs));
    CHECK(found == "");
  }
}

}  // namespace

TEST_CASE("every op takes sizes of 0 or refuses them with an Error", "[ops][sizes]") {
  size_t taken = 0, refused = 0;
  for (const OpRow& original : op_rows())
    for (const OpRow& row : rows_with_zero_sizes(original))
      for (const DType dtype : dtypes_of(row)) {
        INFO(row.name() << ", " << dtype);
        const TensorList inputs = make_inputs(row, dtype);
        const Outcome outcome(row, inputs);
        ++(outcome.refused ? refused : taken);
        if (outcome.refused) continue;
        if (!row.one_size) check_outputs(row, inputs, outcome.outputs);
        if (outcome.has_gradient()) check_gradients(row, inputs, dtype);
      }
  INFO(taken << " taken, " << refused << " refused");
  CHECK(taken > 500);  // the sizes still arrive, and not everything is refused
}

TEST_CASE("sizes of 0 do on the GPU what they do on the CPU", "[ops][sizes][cuda]") {
  require_gpu();
  const Device gpu = test_gpu();
  for (const OpRow& original : op_rows())
    for (const OpRow& row : rows_with_zero_sizes(original))
      for (const DType dtype : dtypes_of(row)) {
        if (dtype == DType::f64) continue;
        INFO(row.name() << ", " << dtype);
        const TensorList inputs = make_inputs(row, dtype, gpu);
        const Outcome outcome(row, inputs, gpu), expected(row, make_inputs(row, dtype));
        CHECK(outcome.refused == expected.refused);
        if (outcome.refused || expected.refused) continue;
        for (size_t i = 0; i < outcome.outputs.size(); ++i) {
          const Tensor &output = outcome.outputs[i], &other = expected.outputs[i];
          CHECK(output.shape() == other.shape());
          CHECK(output.dtype() == other.dtype());
          CHECK(difference(output.to_vector<double>(), other.to_vector<double>(), output.dtype(),
                           2 * row.roundings) == "");
        }
        if (!outcome.has_gradient()) continue;
        std::vector<Values> got, wanted;
        REQUIRE_NOTHROW(got = gradients_of(row, inputs));
        REQUIRE_NOTHROW(wanted = gradients_of(row, make_inputs(row, dtype)));
        for (size_t i = 0; i < got.size(); ++i) {
          CHECK(all_finite(got[i].data));
          CHECK(difference(got[i].data, wanted[i].data, dtype, 12) == "");
        }
      }
}

TEST_CASE("nothing to reduce has the values of PyTorch", "[ops][sizes]") {
  using Numbers = std::vector<double>;
  const Tensor none = Tensor::zeros({2, 0}, DType::f32);
  CHECK(sum(none, {1}).to_vector<double>() == Numbers{0, 0});
  for (const double value : mean(none, {1}).to_vector<double>()) CHECK(std::isnan(value));
  for (const double value : logsumexp(none, {1}).to_vector<double>()) CHECK(value == -INFINITY);
  for (const auto reduce : {max, min}) CHECK_THROWS_AS(reduce(none, {1}, false), Error);
  for (const auto position : {argmax, argmin}) CHECK_THROWS_AS(position(none, 1, false), Error);
  CHECK(softmax(none).shape() == Shape{2, 0});
  CHECK(matmul(none, Tensor::zeros({0, 3})).to_vector<double>() == Numbers(6, 0));
  CHECK(linear(none, Tensor::zeros({3, 0}), Tensor::full({3}, 2)).to_vector<double>() ==
        Numbers(6, 2));
  CHECK(std::isnan(mse_loss(none, none).item()));
  // As where every target is ignored, and unlike PyTorch: a step without targets changes nothing.
  CHECK(cross_entropy(Tensor::zeros({0, 3}), Tensor::zeros({0}, DType::i64)).item() == 0);
}

TEST_CASE("batch_norm of fewer than two values a channel is an Error", "[ops][sizes]") {
  const Tensor weight = Tensor::ones({3}), bias = Tensor::zeros({3});
  for (const Shape& shape : {Shape{0, 3, 2, 2}, Shape{2, 3, 0, 2}, Shape{1, 3, 1, 1}}) {
    const Tensor mean = Tensor::full({3}, 5), variance = Tensor::full({3}, 7);
    CHECK_THROWS_WITH(batch_norm(Tensor::zeros(shape), weight, bias, mean, variance),
                      Catch::Matchers::Contains("batch_norm") &&
                          Catch::Matchers::Contains("two values a channel"));
    CHECK(mean.to_vector<double>() == std::vector<double>(3, 5));
    CHECK(variance.to_vector<double>() == std::vector<double>(3, 7));
    CHECK(batch_norm(Tensor::zeros(shape), weight, bias, mean, variance, {.training = false})
              .shape() == shape);
  }
}

TEST_CASE("rows of no width have norms and embeddings of no width", "[ops][sizes]") {
  const Tensor x(Array::zeros({4, 0}, DType::f32), true);
  const Tensor weight(Array::zeros({0}, DType::f32), true);
  for (const Tensor& y :
       {layer_norm(x, weight, weight), rms_norm(x, weight),
        add_layer_norm(x, x, weight, weight).second, add_rms_norm(x, x, weight).second,
        embedding(x, Tensor::zeros({4}, DType::i64))}) {
    CHECK(y.shape() == Shape{4, 0});
    sum(y).backward();
  }
  CHECK(x.grad().shape() == Shape{4, 0});
  CHECK(weight.grad().shape() == Shape{0});
}

TEST_CASE("attention without batches, heads, queries or keys", "[ops][sizes]") {
  const auto attend = [](const Shape& q_shape, const Shape& kv_shape) {
    const Tensor q(Array::full(q_shape, 1, DType::f32), true);
    const Tensor kv(Array::full(kv_shape, 1, DType::f32), true);
    const Tensor y = scaled_dot_product_attention(q, kv, kv);
    sum(y).backward();
    CHECK(q.grad().to_vector<double>() == std::vector<double>(q_shape.numel(), 0));
    return y;
  };
  CHECK(attend({0, 2, 3, 4}, {0, 2, 3, 4}).shape() == Shape{0, 2, 3, 4});
  CHECK(attend({1, 2, 0, 4}, {1, 2, 3, 4}).shape() == Shape{1, 2, 0, 4});
  CHECK(attend({1, 0, 3, 4}, {1, 2, 3, 4}).shape() == Shape{1, 0, 3, 4});
  CHECK(attend({1, 2, 3, 4}, {1, 2, 0, 4}).to_vector<double>() == std::vector<double>(24, 0));
}
