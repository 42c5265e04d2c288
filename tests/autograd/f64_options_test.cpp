// An option that is a number (eps, a scale, a probability, a smoothing) reaches the kernels of f64
// tensors with all its digits. The options here are no f32 numbers and weigh enough in the results
// for an f32 copy of them to be off by 1e-9 or more.
#include <cmath>
#include <functional>
#include <random>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>
#include <binade/core/random.h>

#include "gpu.h"

using namespace binade;

namespace {

using Numbers = std::vector<double>;

constexpr double kTolerance = 1e-12;

Numbers random_numbers(int64_t count, double reach, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> uniform(-reach, reach);
  Numbers numbers(static_cast<size_t>(count));
  for (double& number : numbers) number = uniform(engine);
  return numbers;
}

Tensor tensor(const Numbers& values, const Shape& shape, Device device, bool requires_grad = true) {
  return Tensor(Array::from(values, shape).to(device), requires_grad);
}

// No element is off by more than kTolerance of the largest.
void check_equal(const Tensor& result, const Numbers& exact) {
  const Numbers values = result.to_vector<double>();
  REQUIRE(values.size() == exact.size());
  double largest = 0, error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::abs(exact[i]));
    error = std::max(error, std::abs(values[i] - exact[i]));
  }
  CHECK(error <= kTolerance * largest);
}

// ---- norms --------------------------------------------------------------------------------------

// What a norm makes of values whose variance is about eps.
struct Normalised {
  double mean = 0, variance = 0;  // the variance is that of all values, or their mean square
  Numbers values;
};

Normalised normalise(const Numbers& x, double eps, bool subtract_mean) {
  const double count = static_cast<double>(x.size());
  Normalised result;
  if (subtract_mean)
    for (const double value : x) result.mean += value / count;
  for (const double value : x) result.variance += (value - result.mean) * (value - result.mean);
  result.variance /= count;
  for (const double value : x)
    result.values.push_back((value - result.mean) / std::sqrt(result.variance + eps));
  return result;
}

void check_norms(Device device) {
  const int64_t width = 7;
  const double eps = 1e-5;
  const Numbers x = random_numbers(width, 5e-3, 1), residual = random_numbers(width, 5e-3, 2);
  Numbers total;
  for (size_t i = 0; i < x.size(); ++i) total.push_back(x[i] + residual[i]);
  const Tensor a = tensor(x, {1, width}, device), b = tensor(residual, {1, width}, device);
  const Tensor weight = Tensor::ones({width}, DType::f64, device);
  const Tensor bias = Tensor::zeros({width}, DType::f64, device);

  check_equal(layer_norm(a, weight, bias, eps), normalise(x, eps, true).values);
  check_equal(rms_norm(a, weight, eps), normalise(x, eps, false).values);
  check_equal(add_layer_norm(a, b, weight, bias, eps).second, normalise(total, eps, true).values);
  check_equal(add_rms_norm(a, b, weight, eps).second, normalise(total, eps, false).values);
}

void check_batch_norm(Device device) {
  const int64_t count = 6;  // of the one channel
  BatchNormOptions options;
  options.momentum = 0.3;
  const Numbers x = random_numbers(count, 5e-3, 3);
  const Tensor mean = tensor({0.7}, {1}, device, false),
               variance = tensor({0.9}, {1}, device, false);
  const Tensor y =
      batch_norm(tensor(x, {1, 1, 2, 3}, device), Tensor::ones({1}, DType::f64, device),
                 Tensor::zeros({1}, DType::f64, device), mean, variance, options);
  const Normalised exact = normalise(x, options.eps, true);
  check_equal(y, exact.values);
  check_equal(mean, {0.7 * (1 - 0.3) + 0.3 * exact.mean});
  check_equal(variance, {0.9 * (1 - 0.3) + 0.3 * exact.variance * 6.0 / 5.0});
}

// ---- attention ----------------------------------------------------------------------------------

// One query over five keys: probabilities p = softmax(scale · q·k), the result Σ p v, and for the
// result's gradient d (one number, as v is) that of q and k.
void check_attention_scale(Device device) {
  const int64_t keys = 5, dim = 3;
  const auto size = static_cast<size_t>(dim);
  const Numbers q = random_numbers(dim, 2, 4), k = random_numbers(keys * dim, 2, 5),
                v = random_numbers(keys * dim, 2, 6), d = random_numbers(dim, 2, 7);
  for (const double given : {0.0, 0.3}) {
    INFO("scale " << given);
    const double scale = given != 0 ? given : 1 / std::sqrt(3.0);
    Numbers p, dp, out(size), dq(size), dk, dv;
    double sum = 0, inner = 0;
    for (size_t j = 0; j < 5; ++j) {
      double score = 0, slope = 0;
      for (size_t i = 0; i < size; ++i) {
        score += q[i] * k[j * size + i];
        slope += d[i] * v[j * size + i];
      }
      p.push_back(std::exp(scale * score));
      dp.push_back(slope);
      sum += p.back();
    }
    for (size_t j = 0; j < 5; ++j) {
      p[j] /= sum;
      inner += p[j] * dp[j];
    }
    for (size_t j = 0; j < 5; ++j)
      for (size_t i = 0; i < size; ++i) {
        const double ds = p[j] * (dp[j] - inner) * scale;
        out[i] += p[j] * v[j * size + i];
        dq[i] += ds * k[j * size + i];
        dk.push_back(ds * q[i]);
        dv.push_back(p[j] * d[i]);
      }

    const Tensor tq = tensor(q, {1, 1, 1, dim}, device), tk = tensor(k, {1, 1, keys, dim}, device),
                 tv = tensor(v, {1, 1, keys, dim}, device);
    AttentionOptions options;
    options.scale = given;
    const Tensor result = scaled_dot_product_attention(tq, tk, tv, options);
    check_equal(result, out);
    const TensorList found =
        grad({result}, {tq, tk, tv}, {tensor(d, {1, 1, 1, dim}, device, false)});
    check_equal(found[0], dq);
    check_equal(found[1], dk);
    check_equal(found[2], dv);
  }
}

// ---- dropout ------------------------------------------------------------------------------------

constexpr double kProbability = 0.3;

// What dropout left of `values`: each is 0 or the value divided by 1 − p, and some are of either
// kind.
void check_dropped(const Numbers& left, const Numbers& values) {
  REQUIRE(left.size() == values.size());
  size_t kept = 0;
  double error = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i] == 0) continue;
    ++kept;
    error = std::max(error, std::abs(left[i] * (1 - kProbability) / values[i] - 1));
  }
  CHECK(error <= kTolerance);
  CHECK(kept > 0);
  CHECK(kept < values.size());
}

void check_dropout(Device device) {
  RandomState::current().set_seed(5);
  const Numbers x = random_numbers(64, 2, 8);
  const Tensor in = tensor(x, {64}, device);
  const Tensor y = dropout(in, kProbability, true);
  check_dropped(y.to_vector<double>(), x);
  const Numbers d = random_numbers(64, 2, 9);
  check_dropped(grad({y}, {in}, {tensor(d, {64}, device, false)})[0].to_vector<double>(), d);
}

// Queries of 0 look at all keys alike; the values are the rows of the identity, so that the result
// is the probabilities themselves.
void check_attention_dropout(Device device) {
  RandomState::current().set_seed(5);
  const int64_t keys = 16;
  Numbers identity(static_cast<size_t>(keys * keys));
  for (int64_t i = 0; i < keys; ++i) identity[static_cast<size_t>(i * keys + i)] = 1;
  const Shape shape{1, 1, keys, keys};
  const Tensor zeros = Tensor::zeros(shape, DType::f64, device);
  const Tensor v = tensor(identity, shape, device);
  AttentionOptions options;
  options.dropout = kProbability;
  options.training = true;
  const Tensor y = scaled_dot_product_attention(zeros, zeros, v, options);
  const Numbers alike(identity.size(), 1.0 / static_cast<double>(keys));
  check_dropped(y.to_vector<double>(), alike);
  // With the identity for the result's gradient, that of v is the probabilities, transposed.
  const Tensor d = tensor(identity, shape, device, false);
  check_dropped(grad({y}, {v}, {d})[0].to_vector<double>(), alike);
}

// ---- losses -------------------------------------------------------------------------------------

void check_label_smoothing(Device device) {
  const int64_t rows = 3, classes = 5;
  const double smoothing = 0.3;
  const Numbers x = random_numbers(rows * classes, 3, 10);
  const std::vector<int64_t> labels = {4, 0, 2};
  Numbers identity(static_cast<size_t>(classes * classes));
  for (int64_t i = 0; i < classes; ++i) identity[static_cast<size_t>(i * classes + i)] = 1;

  double loss = 0;
  Numbers dx;
  for (int64_t row = 0; row < rows; ++row) {
    const auto logit = [&](int64_t i) { return x[static_cast<size_t>(row * classes + i)]; };
    double sum = 0;
    for (int64_t i = 0; i < classes; ++i) sum += std::exp(logit(i));
    for (int64_t i = 0; i < classes; ++i) {
      const double target = (i == labels[static_cast<size_t>(row)] ? 1 - smoothing : 0.0) +
                            smoothing / static_cast<double>(classes);
      loss += target * (std::log(sum) - logit(i));
      dx.push_back(std::exp(logit(i)) / sum - target);
    }
  }

  const Tensor in = tensor(x, {rows, classes}, device);
  const Tensor targets = Tensor(Array::from(labels, {rows}).to(device));
  LinearCrossEntropyOptions options;
  options.label_smoothing = smoothing;
  options.reduction = Reduction::sum;
  const Tensor apart = cross_entropy(in, targets, options);
  check_equal(apart, {loss});
  check_equal(grad({apart}, {in})[0], dx);
  const Tensor fused =  // of logits that are x itself
      linear_cross_entropy(in, tensor(identity, {classes, classes}, device), targets, options);
  check_equal(fused, {loss});
  check_equal(grad({fused}, {in})[0], dx);
}

}  // namespace

TEST_CASE("f64 norms take eps with all its digits", "[ops][numerics]") {
  check_norms(Device::cpu());
}
TEST_CASE("f64 batch_norm takes eps and momentum with all their digits", "[ops][numerics]") {
  check_batch_norm(Device::cpu());
}
TEST_CASE("f64 attention takes its scale with all its digits", "[ops][numerics]") {
  check_attention_scale(Device::cpu());
}
TEST_CASE("f64 dropout divides by 1 - p with all its digits", "[ops][numerics]") {
  check_dropout(Device::cpu());
}
TEST_CASE("f64 attention's dropout divides by 1 - p with all its digits", "[ops][numerics]") {
  check_attention_dropout(Device::cpu());
}
TEST_CASE("f64 cross-entropy takes the label smoothing with all its digits", "[ops][numerics]") {
  check_label_smoothing(Device::cpu());
}

TEST_CASE("f64 ops take their options with all their digits on the GPU", "[ops][numerics][cuda]") {
  binade::test::require_gpu();
  const Device gpu = binade::test::test_gpu();
  check_norms(gpu);
  check_batch_norm(gpu);
  check_attention_scale(gpu);
  check_dropout(gpu);
  check_attention_dropout(gpu);
  check_label_smoothing(gpu);
}
