// Numbers that rounding, a NaN or a kink could take away: what a gradient of half precision may be
// off by, and where a derivative must not vanish.
#include <cmath>
#include <limits>
#include <random>

#include <catch2/catch.hpp>

#include <binade/autograd/gradcheck.h>
#include <binade/autograd/ops.h>

#include "leaves.h"
#include "skip.h"

using namespace binade;
using test::gradient, test::leaf, test::Numbers;

namespace {

using One = Tensor (*)(const Tensor&);

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Numbers random_numbers(int64_t count, double low, double high, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  Numbers numbers(static_cast<size_t>(count));
  for (double& number : numbers) number = uniform(engine);
  return numbers;
}

// The values as `dtype` holds them.
Numbers rounded(const Numbers& values, DType dtype) {
  return Array::from(values, {static_cast<int64_t>(values.size())}).to(dtype).to_vector<double>();
}

// The distance between neighbours of `dtype` at `value`.
double ulp(double value, DType dtype) {
  const int bits = dtype == DType::bf16 ? 7 : dtype == DType::f16 ? 10 : 23;
  const int lowest = dtype == DType::f16 ? -14 : -126;
  const int exponent = value == 0 ? lowest : std::max(std::ilogb(value), lowest);
  return std::ldexp(1.0, exponent - bits);
}

// The largest distance from `exact` in units of the last place.
double worst(const Numbers& values, const Numbers& exact, DType dtype) {
  double result = 0;
  for (size_t i = 0; i < exact.size(); ++i)
    result = std::max(result, std::abs(values[i] - exact[i]) / ulp(exact[i], dtype));
  return result;
}

}  // namespace

// ---- NaN ----------------------------------------------------------------------------------------

TEST_CASE("no piecewise op hides a NaN behind a gradient of 0", "[ops][numerics]") {
  struct Row {
    const char* name;
    std::function<Tensor(const Tensor&)> op;
  };
  const Tensor ones = Tensor::ones({4}, DType::f64);
  const std::vector<Row> rows = {
      {"maximum, left", [&](const Tensor& x) { return maximum(x, ones); }},
      {"maximum, right", [&](const Tensor& x) { return maximum(ones, x); }},
      {"minimum, left", [&](const Tensor& x) { return minimum(x, ones); }},
      {"minimum, right", [&](const Tensor& x) { return minimum(ones, x); }},
      {"relu", [](const Tensor& x) { return relu(x); }},
      {"clamp", [](const Tensor& x) { return clamp(x, -1, 1); }},
      {"abs", [](const Tensor& x) { return abs(x); }},
      {"max", [](const Tensor& x) { return max(x); }},
      {"min", [](const Tensor& x) { return min(x); }},
      {"max along an axis",
       [](const Tensor& x) {
         return max(reshape(x, {2, 2}), {1});
       }},
      {"sort", [](const Tensor& x) { return sort(x, 0).first; }},
      {"topk", [](const Tensor& x) { return topk(x, 2, 0).first; }},
      {"smooth_l1_loss", [&](const Tensor& x) { return smooth_l1_loss(x, ones); }},
      {"kl_div_loss",
       [&](const Tensor& x) {
         return kl_div_loss(reshape(ones, {1, 4}), reshape(x, {1, 4}));
       }},
      {"pow", [](const Tensor& x) { return pow(x, Tensor::scalar(2, DType::f64)); }},
      {"where", [](const Tensor& x) { return where(is_nan(x), x, x * 0); }},
      {"masked_fill", [](const Tensor& x) { return masked_fill(x, is_finite(x), 0); }},
  };
  for (const Row& row : rows)
    for (const bool create_graph : {false, true})
      for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
        INFO(row.name << " in " << name_of(dtype) << (create_graph ? ", create_graph" : ""));
        if (dtype != DType::f64 && std::string(row.name).find("loss") != std::string::npos)
          continue;
        const Tensor x = leaf({0.5, kNan, -0.5, 0.25}, dtype);
        const Tensor y = row.op(x);
        CHECK(gradient(y, x, create_graph)[1] != 0);
      }
}

TEST_CASE("max_pool2d passes the gradient on to a NaN", "[ops][numerics]") {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    const Tensor x = leaf({0.5, kNan, -0.5, 0.25}, {1, 1, 2, 2}, dtype);
    CHECK(gradient(max_pool2d(x), x) == Numbers{0, 1, 0, 0});
  }
}

TEST_CASE("maximum and minimum pass the gradient on to both sides of a NaN", "[ops][numerics]") {
  const Tensor a = leaf({kNan, 1, kNan, 2}), b = leaf({1, kNan, kNan, 2});
  using Two = Tensor (*)(const Tensor&, const Tensor&);
  for (const Two op : {Two(maximum), Two(minimum)}) {
    CHECK(gradient(op(a, b), a) == Numbers{1, 1, 1, 0.5});
    CHECK(gradient(op(a, b), b) == Numbers{1, 1, 1, 0.5});
  }
}

TEST_CASE("relu passes the gradient on at NaN, with a graph as without", "[ops][numerics]") {
  const Tensor x = leaf({-1, 0, kNan, 2});
  CHECK(gradient(relu(x), x) == Numbers{0, 0, 1, 1});
  CHECK(gradient(relu(x), x, true) == Numbers{0, 0, 1, 1});
}

// ---- too few elements ---------------------------------------------------------------------------

TEST_CASE("var of too few elements is infinite or NaN, never a number", "[ops][numerics]") {
  const Tensor x = leaf({1, 3});
  CHECK(var(x, {}, 0).item() == 1);
  CHECK(var(x, {}, 1).item() == 2);
  CHECK(var(x, {}, 2).item() == kInf);
  CHECK(var(x, {}, 3).item() == kInf);
  CHECK(std::isnan(var(leaf({5}), {}, 1).item()));  // 0/0
  for (const double correction : {0, 1, 2})
    CHECK(std::isnan(var(Tensor::zeros({0}, DType::f64), {}, correction).item()));
  for (const double value : gradient(var(x, {}, 3), x)) CHECK_FALSE(std::isfinite(value));
}

TEST_CASE("split of a dimension without elements gives one empty part", "[ops][numerics]") {
  const Tensor x(Array::zeros({3, 0}, DType::f64), true);
  const TensorList parts = split(x, 2, 1);
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].shape() == Shape{3, 0});
  sum(parts[0]).backward();
  CHECK(x.grad().shape() == Shape{3, 0});
  CHECK(split(x, 2, 0).size() == 2);
}

// ---- second derivatives -------------------------------------------------------------------------

TEST_CASE("second derivatives of pow hold at an exponent of 0 and a base of 0", "[ops][numerics]") {
  // aᵇ: aa = b(b−1)aᵇ⁻², ab = aᵇ⁻¹(1 + b·ln a), bb = aᵇ·ln²a, and their limits at a = 0.
  struct Row {
    double a, b, aa, ab, bb;
  };
  const double ln2 = std::log(2.0);
  for (const Row& row :
       {Row{2, 0, 0, 0.5, ln2 * ln2}, Row{2, 1, 0, 1 + ln2, 2 * ln2 * ln2},
        Row{0.5, 0, 0, 2, ln2 * ln2}, Row{2, 3, 12, 4 * (1 + 3 * ln2), 8 * ln2 * ln2},
        Row{0, 2, 2, 0, 0}, Row{0, 3, 0, 0, 0}, Row{0, 1, 0, -kInf, 0}, Row{0, 1.5, kInf, 0, 0},
        Row{0, 0.5, -kInf, -kInf, 0}, Row{0, -1, kInf, kInf, kInf}, Row{0, -2.5, kInf, kInf, kInf},
        Row{0, 0, 0, 0, 0}}) {
    INFO(row.a << " to the power of " << row.b);
    const Tensor a = leaf({row.a}), b = leaf({row.b});
    BackwardOptions options;
    options.create_graph = true;
    const TensorList first = grad({sum(pow(a, b))}, {a, b}, {}, options);
    CHECK(grad({sum(first[0])}, {a}, {}, options)[0].item() == Approx(row.aa).margin(1e-15));
    CHECK(grad({sum(first[0])}, {b}, {}, options)[0].item() == Approx(row.ab).margin(1e-15));
    CHECK(grad({sum(first[1])}, {a}, {}, options)[0].item() == Approx(row.ab).margin(1e-15));
    CHECK(grad({sum(first[1])}, {b}, {}, options)[0].item() == Approx(row.bb).margin(1e-15));
  }
}

TEST_CASE("pow's first derivatives at 0 are their limits", "[ops][numerics]") {
  const Tensor a = leaf({0, 0, 0, 2}), b = leaf({0, 2, -1, 0});
  CHECK(gradient(pow(a, b), a) == Numbers{0, 0, -kInf, 0});
  CHECK(gradient(pow(a, b), b) == Numbers{0, 0, -kInf, std::log(2.0)});
}

TEST_CASE("smooth_l1_loss has the curvature of its parabola at the target", "[ops][numerics]") {
  const double beta = 0.25;
  const Tensor x = leaf({1, 1.125, 3}), target = Tensor::ones({3}, DType::f64);
  BackwardOptions options;
  options.create_graph = true;
  const Tensor loss = smooth_l1_loss(x, target, beta, {.reduction = Reduction::sum});
  const Tensor slope = grad({loss}, {x}, {}, options)[0];
  CHECK(slope.to_vector<double>() == Numbers{0, 0.5, 1});
  CHECK(gradient(slope, x) == Numbers{1 / beta, 1 / beta, 0});
}

// ---- roundings of half types --------------------------------------------------------------------

TEST_CASE("half gradients of elementwise ops are rounded once", "[ops][numerics]") {
  struct Row {
    const char* name;
    std::function<Tensor(const Tensor&)> op;
    std::function<double(double)> derivative;
    double low, high;
  };
  const auto sigmoid_of = [](double x) { return 1 / (1 + std::exp(-x)); };
  const double kRoot = std::sqrt(2 / 3.14159265358979323846);
  const std::vector<Row> rows = {
      {"square", One(square), [](double x) { return 2 * x; }, -2, 2},
      {"sqrt", One(sqrt), [](double x) { return 0.5 / std::sqrt(x); }, 0.1, 4},
      {"rsqrt", One(rsqrt), [](double x) { return -0.5 * std::pow(x, -1.5); }, 0.1, 4},
      {"reciprocal", One(reciprocal), [](double x) { return -1 / (x * x); }, 0.1, 4},
      {"exp", One(exp), [](double x) { return std::exp(x); }, -2, 2},
      {"expm1", One(expm1), [](double x) { return std::exp(x); }, -2, 2},
      {"log", One(log), [](double x) { return 1 / x; }, 0.1, 4},
      {"log1p", One(log1p), [](double x) { return 1 / (1 + x); }, -0.5, 4},
      {"sin", One(sin), [](double x) { return std::cos(x); }, -1, 1},
      {"cos", One(cos), [](double x) { return -std::sin(x); }, 0.1, 2},
      {"erf", One(erf), [&](double x) { return std::sqrt(2.0) * kRoot * std::exp(-x * x); }, -2, 2},
      {"pow", [](const Tensor& x) { return pow(x, 2.5); },
       [](double x) { return 2.5 * std::pow(x, 1.5); }, 0.1, 4},
      {"pow, tensor exponent",
       [](const Tensor& x) { return pow(x, Tensor::scalar(-1.5, x.dtype())); },
       [](double x) { return -1.5 * std::pow(x, -2.5); }, 0.5, 4},
      {"number over", [](const Tensor& x) { return 3.0 / x; },
       [](double x) { return -3 / (x * x); }, 0.1, 4},
      {"div, left", [](const Tensor& x) { return x / Tensor::scalar(7, x.dtype()); },
       [](double) { return 1.0 / 7; }, -2, 2},
      {"div, right", [](const Tensor& x) { return Tensor::scalar(7, x.dtype()) / x; },
       [](double x) { return -7 / (x * x); }, 0.1, 4},
      {"sigmoid", One(sigmoid), [&](double x) { return sigmoid_of(x) * sigmoid_of(-x); }, -4, 4},
      {"tanh", One(tanh), [](double x) { return 1 - std::tanh(x) * std::tanh(x); }, -2, 2},
      {"silu", One(silu), [&](double x) { return sigmoid_of(x) * (1 + x * sigmoid_of(-x)); }, -1,
       4},
      {"gelu", One(gelu),
       [&](double x) {
         return 0.5 * (1 + std::erf(x / std::sqrt(2.0))) + x * kRoot / 2 * std::exp(-x * x / 2);
       },
       -0.5, 4},
      {"softplus", One(softplus), sigmoid_of, -4, 4},
  };
  for (const Row& row : rows)
    for (const DType dtype : {DType::f16, DType::bf16})
      for (const bool create_graph : {false, true}) {
        INFO(row.name << " in " << name_of(dtype) << (create_graph ? ", create_graph" : ""));
        const Numbers x = rounded(random_numbers(200, row.low, row.high, 1), dtype);
        Numbers exact;
        for (const double value : x) exact.push_back(row.derivative(value));
        const Tensor in = leaf(x, dtype);
        CHECK(worst(gradient(row.op(in), in, create_graph), exact, dtype) < 0.51);
      }
}

TEST_CASE("a broadcast divisor's half gradient is rounded once", "[ops][numerics]") {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const int64_t rows = 64, columns = 8;
    const Numbers a = rounded(random_numbers(rows * columns, 0.5, 2, 2), dtype);
    const Numbers b = rounded(random_numbers(columns, 0.5, 2, 3), dtype);
    const Numbers dy = rounded(random_numbers(rows * columns, -1, 1, 4), dtype);
    Numbers exact(static_cast<size_t>(columns), 0);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const size_t at = static_cast<size_t>(i), column = static_cast<size_t>(i % columns);
      exact[column] -= dy[at] * a[at] / (b[column] * b[column]);
    }
    const Tensor left = leaf(a, {rows, columns}, dtype), right = leaf(b, dtype);
    const Tensor seed = leaf(dy, {rows, columns}, dtype).detach();
    const Numbers found = grad({left / right}, {right}, {seed})[0].to_vector<double>();
    INFO(name_of(dtype));
    CHECK(worst(found, exact, dtype) < 0.51);
  }
}

TEST_CASE("logsumexp's half gradient does not see the rounding of its sum", "[ops][numerics]") {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    const Numbers x = rounded(random_numbers(32, 20, 30, 5), dtype);
    double total = 0;
    for (const double value : x) total += std::exp(value - 30);
    Numbers exact;
    for (const double value : x) exact.push_back(std::exp(value - 30) / total);
    const Tensor in = leaf(x, dtype);
    INFO(name_of(dtype));
    for (const bool create_graph : {false, true})
      CHECK(worst(gradient(logsumexp(in), in, create_graph), exact, dtype) < 0.51);
  }
}

// ---- attention ----------------------------------------------------------------------------------

namespace {

struct AttentionGradients {
  Numbers q, k, v;
};

// Of Σ dout · softmax(scale·q·kᵀ)·v for one head (T, D), in f64 and written from the definition.
AttentionGradients plain_attention_gradients(const Numbers& q, const Numbers& k, const Numbers& v,
                                             const Numbers& dout, int64_t tokens, int64_t dim,
                                             double scale, bool causal) {
  const auto at = [dim](int64_t row, int64_t column) {
    return static_cast<size_t>(row * dim + column);
  };
  AttentionGradients result{Numbers(q.size()), Numbers(k.size()), Numbers(v.size())};
  for (int64_t i = 0; i < tokens; ++i) {
    const int64_t seen = causal ? i + 1 : tokens;
    Numbers p(static_cast<size_t>(seen)), dp(p);
    double largest = -kInf, total = 0, inner = 0;
    for (int64_t j = 0; j < seen; ++j) {
      double score = 0;
      for (int64_t d = 0; d < dim; ++d) score += q[at(i, d)] * k[at(j, d)] * scale;
      p[static_cast<size_t>(j)] = score;
      largest = std::max(largest, score);
    }
    for (double& value : p) total += value = std::exp(value - largest);
    for (int64_t j = 0; j < seen; ++j) {
      const size_t key = static_cast<size_t>(j);
      p[key] /= total;
      for (int64_t d = 0; d < dim; ++d) {
        dp[key] += dout[at(i, d)] * v[at(j, d)];
        result.v[at(j, d)] += p[key] * dout[at(i, d)];
      }
      inner += p[key] * dp[key];
    }
    for (int64_t j = 0; j < seen; ++j) {
      const double ds = p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - inner) * scale;
      for (int64_t d = 0; d < dim; ++d) {
        result.q[at(i, d)] += ds * k[at(j, d)];
        result.k[at(j, d)] += ds * q[at(i, d)];
      }
    }
  }
  return result;
}

double relative_to_largest(const Numbers& values, const Numbers& exact) {
  double error = 0, largest = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error = std::max(error, std::abs(values[i] - exact[i]));
    largest = std::max(largest, std::abs(exact[i]));
  }
  return error / largest;
}

// The largest error of any gradient in units of `dtype`'s eps of that gradient's largest element,
// at scores of standard deviation `spread`.
double attention_error(DType dtype, Device device, const AttentionOptions& options, double spread) {
  const int64_t tokens = 40, dim = 16;
  const double scale = 0.25, reach = std::sqrt(spread / scale / std::sqrt(16.0)) * std::sqrt(3.0);
  const auto draw = [&](double high, uint32_t seed) {
    return rounded(random_numbers(tokens * dim, -high, high, seed), dtype);
  };
  const Numbers q = draw(reach, 11), k = draw(reach, 12), v = draw(2, 13), dout = draw(2, 14);
  const AttentionGradients exact =
      plain_attention_gradients(q, k, v, dout, tokens, dim, scale, options.causal);
  const Shape shape{1, 1, tokens, dim};
  const Tensor tq = leaf(q, shape, dtype, device), tk = leaf(k, shape, dtype, device),
               tv = leaf(v, shape, dtype, device);
  AttentionOptions with_scale = options;
  with_scale.scale = scale;
  const Tensor out = scaled_dot_product_attention(tq, tk, tv, with_scale);
  const TensorList found = grad({out}, {tq, tk, tv}, {leaf(dout, shape, dtype, device).detach()});
  const double eps = ulp(1, dtype) / 2;
  return std::max({relative_to_largest(found[0].to_vector<double>(), exact.q),
                   relative_to_largest(found[1].to_vector<double>(), exact.k),
                   relative_to_largest(found[2].to_vector<double>(), exact.v)}) /
         eps;
}

}  // namespace

TEST_CASE("attention's gradients are right where softmax is nearly one-hot", "[ops][numerics]") {
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const double spread : {1.0, 30.0, 100.0, 300.0})
      for (const bool causal : {false, true}) {
        AttentionOptions options;
        options.causal = causal;
        INFO(name_of(dtype) << ", scores of ±" << spread << (causal ? ", causal" : ""));
        CHECK(attention_error(dtype, Device::cpu(), options, spread) < 1.5);
      }
}

TEST_CASE("the plain GPU attention's gradients are right where softmax is nearly one-hot",
          "[ops][numerics][cuda]") {
  if (cuda_device_count() == 0) binade::test::skip(cuda_unavailable_reason());
  // A floating mask keeps the call from cuDNN. The scores' gradients are stored in half there, so
  // more roundings meet.
  AttentionOptions options;
  options.mask = Tensor::zeros({1, 1, 40, 40}, DType::f32, Device::cuda());
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const double spread : {1.0, 30.0, 100.0, 300.0}) {
      INFO(name_of(dtype) << ", scores of ±" << spread);
      CHECK(attention_error(dtype, Device::cuda(), options, spread) < 6);
    }
}

// ---- norms --------------------------------------------------------------------------------------

namespace {

void check_constant_rows(Device device) {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16})
    for (const int64_t width : {3, 37, 256, 1000, 5000}) {
      INFO(name_of(dtype) << ", width " << width);
      const Tensor x = to(Tensor::full({2, width}, 123.456, dtype), device);
      const Tensor weight = Tensor::ones({width}, dtype, device);
      const Tensor bias = Tensor::full({width}, 0.5, dtype, device);
      CHECK(max(abs(layer_norm(x, weight, bias) - bias)).item() == 0);
    }
}

}  // namespace

TEST_CASE("layer_norm of a constant row is its bias", "[ops][numerics]") {
  check_constant_rows(Device::cpu());
}

TEST_CASE("layer_norm of a constant row is its bias on the GPU", "[ops][numerics][cuda]") {
  if (cuda_device_count() == 0) binade::test::skip(cuda_unavailable_reason());
  check_constant_rows(Device::cuda());
}

TEST_CASE("batch_norm of a constant channel is its bias", "[ops][numerics]") {
  for (const Device device : {Device::cpu(), Device::cuda()}) {
    if (device.is_cuda() && cuda_device_count() == 0) continue;
    const Tensor x = to(Tensor::full({3, 2, 7, 11}, 123.456), device);
    const Tensor weight = Tensor::ones({2}, DType::f32, device);
    const Tensor bias = Tensor::full({2}, 0.5, DType::f32, device);
    const Tensor mean = Tensor::zeros({2}, DType::f32, device);
    const Tensor variance = Tensor::ones({2}, DType::f32, device);
    CHECK(max(abs(batch_norm(x, weight, bias, mean, variance) - 0.5)).item() == 0);
  }
}

// Σ dy·(x − mean)/σ is a sum whose terms cancel: its error is held against the sum of their
// magnitudes.
TEST_CASE("batch_norm's f32 weight gradient is summed without f32's roundings", "[ops][numerics]") {
  constexpr int kDraws = 20;
  for (const int64_t side : {16, 64}) {
    const int64_t count = 3 * side * side;
    const Shape shape{3, 1, side, side};
    double mean_square = 0;  // of the error in units of f32's eps/2 of Σ |term|
    for (uint32_t draw = 0; draw < kDraws; ++draw) {
      const Numbers x = rounded(random_numbers(count, -9, 9, 2 * draw), DType::f32);
      const Numbers dy = rounded(random_numbers(count, -2, 2, 2 * draw + 1), DType::f32);
      double mean = 0, variance = 0, exact = 0, magnitude = 0;
      for (const double value : x) mean += value / static_cast<double>(count);
      for (const double value : x)
        variance += (value - mean) * (value - mean) / static_cast<double>(count);
      for (size_t i = 0; i < x.size(); ++i) {
        const double term = dy[i] * (x[i] - mean) / std::sqrt(variance + 1e-5);
        exact += term;
        magnitude += std::abs(term);
      }
      const Tensor weight = leaf({1}, DType::f32);
      const Tensor y = batch_norm(leaf(x, shape, DType::f32), weight, Tensor::zeros({1}),
                                  Tensor::zeros({1}), Tensor::ones({1}));
      const Tensor found = grad({y}, {weight}, {leaf(dy, shape, DType::f32).detach()})[0];
      const double error = (found.to_vector<double>()[0] - exact) / (magnitude * 0x1p-24);
      mean_square += error * error / kDraws;
    }
    INFO("images of " << side << " x " << side);
    CHECK(std::sqrt(mean_square) < (side == 16 ? 0.07 : 0.02));
  }
}

TEST_CASE("a norm's gradients and theirs are 0 where it is", "[ops][numerics]") {
  const Tensor x = leaf({0, 0, 3, 4}, {2, 2});
  const double p = GENERATE(0.5, 2.0, 3.0);
  const Tensor first =
      grad({sum(norm(x, p, {1}))}, {x}, {Tensor::scalar(1, DType::f64)}, {.create_graph = true})[0];
  const Numbers slopes = first.to_vector<double>();
  CHECK(slopes[0] == 0);
  CHECK(slopes[1] == 0);
  CHECK(slopes[2] != 0);
  const Tensor second = grad({first}, {x}, {Tensor::ones({2, 2}, DType::f64)})[0];
  const Numbers curves = second.to_vector<double>();
  CHECK(curves[0] == 0);
  CHECK(curves[1] == 0);
  // d/dx of x/‖x‖ along (1, 1): (1 − x (x·1)/‖x‖²)/‖x‖.
  if (p == 2) {
    CHECK(curves[2] == Approx((1 - 3 * 7 / 25.0) / 5));
    CHECK(curves[3] == Approx((1 - 4 * 7 / 25.0) / 5));
  }
}
