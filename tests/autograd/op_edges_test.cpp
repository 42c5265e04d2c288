// Values where a formula could go wrong: ties, zeros, infinities, integers, empty tensors.
#include <cmath>
#include <limits>

#include <catch2/catch.hpp>

#include <binade/autograd/create.h>
#include <binade/autograd/gradcheck.h>
#include <binade/autograd/ops.h>
#include <binade/core/random.h>

#include "gpu.h"
#include "leaves.h"

using namespace binade;
using test::gradient, test::leaf, test::Numbers;

namespace {}  // namespace

TEST_CASE("equal operands share the gradient", "[ops]") {
  const Tensor a = leaf({1, 2, 3}), b = leaf({1, 3, 2});
  CHECK(gradient(maximum(a, b), a) == Numbers{0.5, 0, 1});
  CHECK(gradient(maximum(a, b), b) == Numbers{0.5, 1, 0});
  CHECK(gradient(minimum(a, b), a) == Numbers{0.5, 1, 0});
  const Tensor x = leaf({2, 1, 2, 2});
  CHECK(gradient(max(x), x) == Numbers{1.0 / 3, 0, 1.0 / 3, 1.0 / 3});
  CHECK(gradient(min(x), x) == Numbers{0, 1, 0, 0});
}

TEST_CASE("gradients at kinks and poles are the documented ones", "[ops]") {
  const Tensor x = leaf({-1, 0, 1});
  CHECK(gradient(abs(x), x) == Numbers{-1, 0, 1});
  CHECK(gradient(relu(x), x) == Numbers{0, 0, 1});
  CHECK(gradient(clamp(x, -1, 0), x) == Numbers{1, 1, 0});
  const Tensor zero = leaf({0});
  CHECK(gradient(pow(zero, 0), zero) == Numbers{0});
  CHECK(gradient(pow(zero, 2), zero) == Numbers{0});
  const Tensor exponent = leaf({0}), two = leaf({2});
  CHECK(gradient(pow(zero, exponent), zero) == Numbers{0});
  CHECK(gradient(pow(zero, two), two) == Numbers{0});
}

namespace {

// As PyTorch's threshold_backward has it; inf · 0 would be NaN.
void check_flat_parts(DType dtype, Device device) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const double arriving : {inf, -inf, nan, 3.0})
    for (const bool create_graph : {false, true}) {
      CAPTURE(name_of(dtype), arriving, create_graph);
      const Tensor x = leaf({-5, -4, 0, 4, -4, 4, -4, -4, -4}, {9}, dtype, device);
      const Tensor seed = Tensor::scalar(arriving, dtype, device);
      const Numbers given = gradient(relu(x) * seed, x, create_graph);
      const Numbers bent = gradient(hardswish(x) * seed, x, create_graph);
      for (size_t i = 0; i < given.size(); ++i) {
        CAPTURE(i);
        const bool above = i == 3 || i == 5;
        CHECK((above ? given[i] == arriving || arriving != arriving : given[i] == 0));
        if (i != 2) CHECK((above ? bent[i] == arriving || arriving != arriving : bent[i] == 0));
      }
    }
}

}  // namespace

TEST_CASE("nothing passes where relu and hardswish are flat, not even infinities", "[ops]") {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16})
    check_flat_parts(dtype, Device::cpu());
}

TEST_CASE("cuda relu and hardswish let nothing pass where they are flat", "[ops][cuda]") {
  binade::test::require_gpu();
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    check_flat_parts(dtype, binade::test::test_gpu());
}

TEST_CASE("losses hold their tails", "[ops]") {
  // Both labels at logits of ±100: the loss is the distance, or e^-100.
  const Tensor x = leaf({100, -100, 100, -100});
  const Tensor target = Tensor::from(Numbers{1, 0, 0, 1}, {4});
  const Numbers loss =
      bce_with_logits_loss(x, target, {.reduction = Reduction::none}).to_vector<double>();
  CHECK(loss[0] == Approx(std::exp(-100.0)));
  CHECK(loss[1] == Approx(std::exp(-100.0)));
  CHECK(loss[2] == 100);
  CHECK(loss[3] == 100);

  // A target of 0 has no share, and no NaN in the gradient.
  const Tensor log_input = leaf({-1, -2});
  const Tensor p = leaf({0, 1});
  const Tensor kl = kl_div_loss(reshape(log_input, {1, 2}), reshape(p, {1, 2}));
  CHECK(kl.item() == 2);
  const TensorList gradients = grad({kl}, {log_input, p});
  CHECK(gradients[0].to_vector<double>() == Numbers{0, -1});
  for (double value : gradients[1].to_vector<double>()) CHECK(std::isfinite(value));

  // Logits far outside: shifted by the maximum.
  const Tensor logits = Tensor(Array::from(Numbers{1e4, -1e4, 1e4}, {1, 3}), true);
  CHECK(cross_entropy(logits, Tensor::zeros({1}, DType::i64)).item() == Approx(std::log(2.0)));
  CHECK(logsumexp(Tensor::full({3}, -INFINITY, DType::f64)).item() == -INFINITY);
  const Tensor minus_infinity = leaf({-INFINITY, -INFINITY});
  CHECK(gradient(logsumexp(minus_infinity), minus_infinity) == Numbers{0, 0});
}

TEST_CASE("the loss scale reaches half gradients before they are rounded", "[ops]") {
  // (p − y)/N of 2^-26 is beyond f16; scaled by 2^16 it is not.
  const int64_t rows = 1 << 14;
  const Tensor logits(Array::zeros({rows, 2}, DType::f16), true);
  const Tensor loss = cross_entropy(logits, Tensor::zeros({rows}, DType::i64));
  CHECK(loss.dtype() == DType::f32);
  loss.backward(Tensor::scalar(65536));
  CHECK(logits.grad().select(0, 0).select(0, 1).item() == 0.5 / static_cast<double>(rows) * 65536);
}

TEST_CASE("integers have arithmetic and sums of their own", "[ops]") {
  const Tensor a = Tensor::from(std::vector<int32_t>{7, -7, 3}, {3});
  const Tensor b = Tensor::from(std::vector<int64_t>{2, 2, -1}, {3});
  CHECK((a + b).dtype() == DType::i64);
  CHECK((a * b).to_vector<int64_t>() == std::vector<int64_t>{14, -14, -3});
  CHECK((a / b).to_vector<int64_t>() == std::vector<int64_t>{3, -3, -3});
  CHECK((a * 2).to_vector<int64_t>() == std::vector<int64_t>{14, -14, 6});
  CHECK(sum(a).dtype() == DType::i64);
  CHECK(sum(a).item() == 3);
  CHECK(sum(Tensor::from(std::vector<int64_t>{5, 0, 5}, {3})).item() == 10);
  CHECK(sum(equal(b, b)).item() == 3);
  CHECK(max(a).item() == 7);
  CHECK((a + Tensor::scalar(0.5, DType::f16)).dtype() == DType::f16);
}

TEST_CASE("remainders have the divisor's sign, in every integer dtype", "[ops]") {
  for (const DType dtype : {DType::i64, DType::i32}) {
    const Tensor a = tensor({7, -7, 6, -6, 0}, dtype);
    CHECK(remainder(a, 3).dtype() == dtype);
    CHECK(to(remainder(a, 3), DType::f64).to_vector<double>() == Numbers{1, 2, 0, 0, 0});
    CHECK(to(remainder(a, -3), DType::f64).to_vector<double>() == Numbers{-2, -1, 0, 0, 0});
  }
  const Tensor bytes = tensor({250, 7}, DType::u8);
  CHECK(to(remainder(bytes, 100), DType::f64).to_vector<double>() == Numbers{50, 7});
}

TEST_CASE("where takes a number for one of its tensors", "[ops]") {
  const Tensor x = leaf({1, 2, 3});
  const Tensor mask = Tensor::from(std::vector<uint8_t>{1, 0, 1}, {3});
  const Tensor condition = to(mask, DType::boolean);
  CHECK(where(condition, x, -4).to_vector<double>() == Numbers{1, -4, 3});
  CHECK(where(condition, -4, x).to_vector<double>() == Numbers{-4, 2, -4});
  CHECK(gradient(where(condition, x, 0), x) == Numbers{1, 0, 1});
  CHECK(gradient(where(condition, 0, x), x) == Numbers{0, 1, 0});
  CHECK(where(condition, Tensor::zeros({3}, DType::i64), 5).dtype() == DType::i64);
  CHECK(where(condition, Tensor::scalar(1), 2).shape() == Shape{3});
}

TEST_CASE("a dimension that is not named is PyTorch's", "[ops]") {
  const Tensor x = leaf({3, 1, 2, 6, 5, 4}, {2, 3});
  CHECK(cat({x, x}).shape() == Shape{4, 3});
  CHECK(stack({x, x}).shape() == Shape{2, 2, 3});
  CHECK(split(x, 1).size() == 2);
  CHECK(split(x, {1, 1})[1].to_vector<double>() == Numbers{6, 5, 4});
  CHECK(chunk(x, 2)[0].shape() == Shape{1, 3});
  CHECK(sort(x).first.to_vector<double>() == Numbers{1, 2, 3, 4, 5, 6});
  CHECK(topk(x, 1).first.to_vector<double>() == Numbers{3, 6});
}

TEST_CASE("tensors compare with numbers", "[ops]") {
  using Results = std::vector<bool>;
  for (const DType dtype :
       {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32}) {
    const Tensor x = tensor({-1, 2, 3}, dtype);
    const auto results = [](const Tensor& y) {
      const std::vector<double> numbers = to(y, DType::f64).to_vector<double>();
      return Results(numbers.begin(), numbers.end());
    };
    CHECK(results(equal(x, 2)) == Results{false, true, false});
    CHECK(results(not_equal(x, 2)) == Results{true, false, true});
    CHECK(results(less(x, 2)) == Results{true, false, false});
    CHECK(results(less_equal(x, 2)) == Results{true, true, false});
    CHECK(results(greater(x, 2)) == Results{false, false, true});
    CHECK(results(greater_equal(x, 2)) == Results{false, true, true});
  }
}

TEST_CASE("mixed floating dtypes meet in the wider one and keep their own gradients", "[ops]") {
  const Tensor half = leaf({1, 2}, DType::f16), single = leaf({3, 4}, DType::f32);
  const Tensor y = half * single;
  CHECK(y.dtype() == DType::f32);
  const TensorList gradients = grad({sum(y)}, {half, single});
  CHECK(gradients[0].dtype() == DType::f16);
  CHECK(gradients[1].dtype() == DType::f32);
  CHECK(gradients[0].to_vector<double>() == Numbers{3, 4});
  CHECK((half + leaf({1, 1}, DType::bf16)).dtype() == DType::f32);
  CHECK(cat({half, single}, 0).dtype() == DType::f32);
}

TEST_CASE("tensors without elements and without dimensions pass through", "[ops]") {
  const Tensor empty(Array::zeros({0, 3}, DType::f64), true);
  CHECK(sum(empty).item() == 0);
  CHECK(sum(empty, {0}).to_vector<double>() == Numbers{0, 0, 0});
  CHECK(softmax(empty).shape() == Shape{0, 3});
  CHECK(linear(empty, Tensor::ones({2, 3}, DType::f64)).shape() == Shape{0, 2});
  CHECK(layer_norm(empty, Tensor::ones({3}, DType::f64), {}).shape() == Shape{0, 3});
  CHECK(gelu(empty).numel() == 0);
  CHECK(embedding(Tensor::ones({2, 3}), Tensor::zeros({0}, DType::i64)).shape() == Shape{0, 3});
  sum(exp(empty) * 2).backward();
  CHECK(empty.grad().shape() == Shape{0, 3});
  CHECK(cross_entropy(empty, Tensor::zeros({0}, DType::i64)).item() == 0);

  const Tensor scalar(Array::full({}, 2, DType::f64), true);
  const Tensor y = square(scalar) + sum(scalar) + reshape(scalar, {1, 1});
  CHECK(y.shape() == Shape{1, 1});
  y.backward();
  CHECK(scalar.grad().item() == 6);
}

TEST_CASE("weight gradients are zero when nothing flowed through", "[ops]") {
  const Tensor x(Array::zeros({0, 3}, DType::f64), true);
  const Tensor weight(Array::full({2, 3}, 1, DType::f64), true);
  const Tensor bias(Array::full({2}, 1, DType::f64), true);
  sum(linear(x, weight, bias)).backward();
  sum(linear_relu(x, weight, bias)).backward();
  CHECK(weight.grad().to_vector<double>() == Numbers(6, 0));
  CHECK(bias.grad().to_vector<double>() == Numbers(2, 0));
}

TEST_CASE("GELU recomputed gives the same gradients whichever of them are needed", "[ops]") {
  Numbers numbers(40);
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = static_cast<double>(7 * i % 11) / 8 - 0.5;
  const Array values = Array::from(numbers, {5, 8}).to(DType::f16);
  const auto gradients = [&](Recompute level, bool all, bool down_needed) {
    const RecomputeScope scope(level);
    const Tensor x(values, all), up(values.slice(0, 0, 4), all);
    const Tensor down(values.slice(0, 1, 4).slice(1, 0, 4), down_needed);
    sum(square(gelu_mlp(x, up, {}, down, {}))).backward();
    std::vector<Numbers> result;
    for (const Tensor& tensor : {x, up, down})
      result.push_back(tensor.requires_grad() ? tensor.grad().to_vector<double>() : Numbers());
    return result;
  };
  const auto kept = gradients(Recompute::nothing, true, true);
  const auto again = gradients(Recompute::activations, true, true);
  CHECK(kept[0] == again[0]);
  CHECK(kept[1] == again[1]);
  for (size_t i = 0; i < again[2].size(); ++i)
    CHECK(std::abs(again[2][i] - kept[2][i]) <= 0.01 * (1 + std::abs(kept[2][i])));
  CHECK(gradients(Recompute::activations, false, true)[2] == again[2]);
  CHECK(gradients(Recompute::activations, true, false)[1] == again[1]);
}

TEST_CASE("where scatter's indices repeat the last source is written and has the gradient",
          "[ops]") {
  const Tensor x = leaf({1, 2, 3, 4}), source = leaf({10, 20, 30, 40, 50});
  const Tensor index = Tensor::from(std::vector<int64_t>{2, 0, 2, 3, 2}, {5});
  const Tensor weights = Tensor::from(Numbers{1, 2, 3, 4}, {4});
  const auto scattered = [&] { return scatter(x, 0, index, source); };
  CHECK(scattered().to_vector<double>() == Numbers{20, 2, 50, 40});
  CHECK(gradient(scattered() * weights, source) == Numbers{0, 1, 0, 4, 3});
  CHECK(gradient(scattered() * weights, x) == Numbers{0, 2, 0, 0});
  // Along the dimension only: columns are apart.
  const Tensor rows = reshape(leaf({0, 0, 0, 0}), {2, 2});
  const Tensor values = Tensor(Array::from(Numbers{1, 2, 3, 4}, {2, 2}), true);
  const Tensor places = Tensor::from(std::vector<int64_t>{1, 0, 1, 1}, {2, 2});
  CHECK(scatter(rows, 0, places, values).to_vector<double>() == Numbers{0, 2, 3, 4});
  CHECK(gradient(scatter(rows, 0, places, values), values) == Numbers{0, 1, 1, 1});
  // Where sources are added, all of them have it.
  CHECK(gradient(scatter_add(x, 0, index, source) * weights, source) == Numbers{3, 1, 3, 4, 3});
  CHECK(gradient(index_add(x, 0, index, source) * weights, source) == Numbers{3, 1, 3, 4, 3});
}

TEST_CASE("views share storage with their input", "[ops]") {
  const Tensor x(Array::arange(12, DType::f32).view({3, 4}));
  for (const Tensor& view :
       {transpose(x, 0, 1), slice(x, 1, 1, 3), select(x, 0, 1), reshape(x, {2, 6}), unsqueeze(x, 0),
        expand(select(x, 0, 0), {5, 4}), flatten(x), split(x, 2, 1)[1], contiguous(x)})
    CHECK(view.array().shares_storage(x.array()));
  CHECK_FALSE(clone(x).array().shares_storage(x.array()));
  CHECK_FALSE(reshape(transpose(x, 0, 1), {12}).array().shares_storage(x.array()));
}

TEST_CASE("attention's result merges its heads without a copy", "[ops]") {
  const Tensor q = Tensor::ones({2, 3, 4, 8});
  const Tensor y = scaled_dot_product_attention(q, q, q);
  CHECK(y.shape() == Shape{2, 3, 4, 8});
  CHECK(transpose(y, 1, 2).array().can_view({2, 4, 24}));
}

TEST_CASE("dropout draws anew at every use, and the same again at the same place", "[ops]") {
  const Tensor x = Tensor::ones({64});
  RandomState::current().begin_step(1, 0);
  const auto first = dropout(x, 0.5, true).to_vector<float>();
  const auto second = dropout(x, 0.5, true).to_vector<float>();
  RandomState::current().begin_step(1, 0);
  CHECK(dropout(x, 0.5, true).to_vector<float>() == first);
  CHECK(first != second);
  CHECK(sum(dropout(x, 1, true)).item() == 0);
}

TEST_CASE("moving to another device is differentiable", "[ops][cuda]") {
  binade::test::require_gpu();
  const Tensor x = leaf({1, 2}, DType::f32);
  const Tensor far = to(x, binade::test::test_gpu());
  CHECK(far.device() == binade::test::test_gpu());
  CHECK(gradient(far * 3, x) == Numbers{3, 3});
  const Tensor there(Array::full({2}, 1, DType::f32, binade::test::test_gpu()), true);
  sum(to(there, Device::cpu()) * 2).backward();
  CHECK(there.grad().device() == binade::test::test_gpu());
  CHECK(there.grad().to_vector<double>() == Numbers{2, 2});
}
