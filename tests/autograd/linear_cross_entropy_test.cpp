// The loss of a head without all of its logits: chunks, the loss scale on stored gradients, and
// where backward may write.
#include <optional>
#include <tuple>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "autograd/decoding_heads.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

struct Head {
  Tensor x;        // (rows, dim)
  Tensor weight;   // (classes, dim)
  Tensor targets;  // (rows), every seventh ignored

  Head(int64_t rows, int64_t dim, int64_t classes, DType dtype, Device device = {}) {
    Random random(31);
    x = Tensor(random_array({rows, dim}, dtype, random).to(device), true);
    weight = Tensor(random_array({classes, dim}, dtype, random, 0.5).to(device), true);
    std::vector<int64_t> ids(static_cast<size_t>(rows));
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = i % 7 == 3 ? -100 : static_cast<int64_t>(random() % static_cast<uint64_t>(classes));
    targets = Tensor::from(ids, {rows}, device);
  }
  // The same values in f64, on the CPU.
  Head(const Head& other, DType dtype)
      : x(other.x.array().to(Device::cpu()).to(dtype), true),
        weight(other.weight.array().to(Device::cpu()).to(dtype), true),
        targets(other.targets.array().to(Device::cpu())) {}

  Tensor loss(const LinearCrossEntropyOptions& options = {}) const {
    return linear_cross_entropy(x, weight, targets, options);
  }
  Tensor plain_loss(const CrossEntropyOptions& options = {}) const {
    return cross_entropy(linear(x, weight), targets, options);
  }
  void zero_grad() const {
    x.zero_grad();
    weight.zero_grad();
  }
};

}  // namespace

TEST_CASE("chunks of rows change nothing", "[ops][linear_cross_entropy]") {
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16}) {
    const Head head(300, 6, 19, dtype), exact(head, DType::f64);
    const Tensor expected = exact.plain_loss();
    expected.backward();
    for (const int64_t rows : {0, 1, 7, 128, 300, 1000}) {
      INFO(dtype << ", " << rows << " rows");
      head.zero_grad();
      LinearCrossEntropyOptions options;
      options.rows_per_chunk = rows;
      const Tensor loss = head.loss(options);
      loss.backward();
      // Not to the bit: a product of few rows may sum in another order.
      const double limit = 4 * epsilon_of(dtype);
      CHECK(loss.item() == Approx(expected.item()).epsilon(std::max(limit, 1e-12)));
      CHECK(relative_error(head.x.grad(), 1, exact.x.grad()) < 2 * limit);
      CHECK(relative_error(head.weight.grad(), 1, exact.weight.grad()) < 2 * limit);
    }
  }
}

TEST_CASE("a loss that is not recorded is the same", "[ops][linear_cross_entropy]") {
  for (const DType dtype : {DType::f32, DType::f16}) {
    const Head head(70, 6, 19, dtype);
    const double recorded = head.loss().item();
    const NoGrad off;
    const Tensor loss = head.loss();
    CHECK(!loss.requires_grad());
    CHECK(loss.item() == recorded);
  }
}

TEST_CASE("a small loss in bf16 is not lost in the rounding of the logits",
          "[ops][linear_cross_entropy]") {
  // Logits 48 and 48·n/256: bf16 counts in quarters there, and the loss is log(1 + e^difference).
  const Tensor x(Array::full({1, 1}, 48, DType::bf16), true);
  const Tensor target = Tensor::from(std::vector<int64_t>{0}, {1});
  for (int n = 217; n <= 233; ++n) {
    INFO("48 against 48·" << n << "/256");
    const Tensor weight(Array::from(std::vector<double>{1, n / 256.0}, {2, 1}).to(DType::bf16),
                        true);
    x.zero_grad();
    const Tensor loss = linear_cross_entropy(x, weight, target);
    loss.backward();
    const double other = 48 * n / 256.0, expected = std::log1p(std::exp(other - 48));
    // logsumexp − 48 in f32, whose gap there is 4e-6: a thousandth of the loss.
    CHECK(loss.item() == Approx(expected).epsilon(1e-3));
    const double probability = 1 / (1 + std::exp(48 - other));
    CHECK(x.grad().to_vector<double>()[0] == Approx(-probability * (1 - n / 256.0)).epsilon(2e-2));
    const NoGrad off;
    CHECK(linear_cross_entropy(x, weight, target).item() == loss.item());
  }
}

TEST_CASE("logits are stored in the dtype that was asked for", "[ops][linear_cross_entropy]") {
  const auto loss_of = [](DType operands, std::optional<DType> logits) {
    const Tensor x(Array::full({1, 1}, 48, operands));
    const Tensor weight(Array::from(std::vector<double>{1, 226 / 256.0}, {2, 1}).to(operands));
    LinearCrossEntropyOptions options;
    options.logits_dtype = logits;
    return linear_cross_entropy(x, weight, Tensor::from(std::vector<int64_t>{0}, {1}), options)
        .item();
  };
  const double exact = std::log1p(std::exp(42.375 - 48)), rounded = std::log1p(std::exp(42.5 - 48));
  CHECK(loss_of(DType::bf16, {}) == Approx(exact).epsilon(1e-3));
  CHECK(loss_of(DType::bf16, DType::f32) == Approx(exact).epsilon(1e-3));
  CHECK(loss_of(DType::bf16, DType::bf16) == Approx(rounded).epsilon(1e-3));  // ties to even
  CHECK(loss_of(DType::f16, DType::f32) == Approx(exact).epsilon(1e-3));
  CHECK(loss_of(DType::f32, DType::f32) == Approx(exact).epsilon(1e-3));
  CHECK_THROWS_WITH(loss_of(DType::f32, DType::bf16),
                    Contains("logits_dtype") && Contains("f32") && Contains("bf16"));
  CHECK_THROWS_WITH(loss_of(DType::f16, DType::bf16), Contains("logits_dtype"));
  CHECK_THROWS_WITH(loss_of(DType::f64, DType::f32), Contains("logits_dtype"));
}

TEST_CASE("stored gradients carry the loss scale before they are rounded to half",
          "[ops][linear_cross_entropy]") {
  // (p − y)/N is 2^-14 at most here, mostly far below f16's smallest subnormal of 2^-24.
  const Head head(1 << 14, 8, 50, DType::f16), exact(head, DType::f64);
  exact.plain_loss().backward();
  const LossScale scale(65536);
  head.loss().backward(Tensor::scalar(65536));
  CHECK(relative_error(head.x.grad(), 0x1p-16, exact.x.grad()) < 4e-3);
  CHECK(relative_error(head.weight.grad(), 0x1p-16, exact.weight.grad()) < 1e-3);
  const std::vector<double> got = head.x.grad().to_vector<double>();
  const std::vector<double> expected = exact.x.grad().to_vector<double>();
  int64_t flushed = 0, far = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    flushed += got[i] == 0 && expected[i] != 0;
    far += std::abs(got[i] * 0x1p-16 - expected[i]) >
           0.01 * std::abs(expected[i]) + 0x1p-9 / (1 << 14);
  }
  CHECK(flushed == 0);
  CHECK(far == 0);
}

TEST_CASE("backward corrects for another scale than the forward pass expected",
          "[ops][linear_cross_entropy]") {
  const Head head(200, 8, 30, DType::f16), exact(head, DType::f64);
  exact.plain_loss().backward();
  for (const double expected_scale : {0.0, 1.0, 1024.0, 65536.0})  // 0: nobody said
    for (const double scale : {1024.0, 65536.0}) {
      INFO("expected " << expected_scale << ", got " << scale);
      head.zero_grad();
      std::optional<LossScale> slot;
      if (expected_scale != 0) slot.emplace(expected_scale);
      const Tensor loss = head.loss();
      if (slot) slot->set(3);  // the scaler moves it before backward, say
      loss.backward(Tensor::scalar(scale));
      // Of what was stored at a scale of 1, a part was below f16's normal range.
      const double limit = expected_scale == 1 ? 2e-2 : 4e-3;
      CHECK(relative_error(head.x.grad(), 1 / scale, exact.x.grad()) < limit);
      CHECK(relative_error(head.weight.grad(), 1 / scale, exact.weight.grad()) < limit);
    }
}

TEST_CASE("a second backward finds what the first one found", "[ops][linear_cross_entropy]") {
  for (const bool with_scale : {false, true}) {
    const Head head(40, 5, 11, DType::f64);
    std::optional<LossScale> slot;
    if (with_scale) slot.emplace(8);
    const Tensor loss = head.loss();
    const auto gradients = [&](double seed, bool retain) {
      BackwardOptions options;
      options.retain_graph = retain;
      const TensorList found =
          grad({loss}, {head.x, head.weight}, {Tensor::scalar(seed, DType::f64)}, options);
      return std::pair(found[0].to_vector<double>(), found[1].to_vector<double>());
    };
    const auto first = gradients(8, true);
    CHECK(gradients(2, true) != first);
    CHECK(gradients(8, true) == first);
    CHECK(gradients(8, false) == first);
    CHECK_THROWS_WITH(loss.backward(Tensor::scalar(1, DType::f64)), Contains("retain_graph"));
  }
}

TEST_CASE("x's gradient is not changed by what follows in backward",
          "[ops][linear_cross_entropy]") {
  // x is used twice: the gradient that the head handed over is added to.
  const Head head(20, 5, 11, DType::f64), plain(head, DType::f64);
  (head.loss() + sum(square(head.x))).backward();
  (plain.plain_loss() + sum(square(plain.x))).backward();
  CHECK(relative_error(head.x.grad(), 1, plain.x.grad()) < 1e-13);
}

TEST_CASE("only gradients that somebody wants are made", "[ops][linear_cross_entropy]") {
  const Head all(20, 5, 11, DType::f64);
  all.loss().backward();
  for (const bool frozen_x : {true, false}) {
    Head head(20, 5, 11, DType::f64);
    (frozen_x ? head.x : head.weight).set_requires_grad(false);
    head.loss().backward();
    CHECK(head.x.grad().defined() != frozen_x);
    CHECK(head.weight.grad().defined() == frozen_x);
    if (frozen_x)
      CHECK(head.weight.grad().to_vector<double>() == all.weight.grad().to_vector<double>());
    else
      CHECK(head.x.grad().to_vector<double>() == all.x.grad().to_vector<double>());
  }
}

TEST_CASE("a tied embedding collects the gradients of both of its uses",
          "[ops][linear_cross_entropy]") {
  const Head head(20, 5, 11, DType::f64), plain(head, DType::f64);
  const Tensor ids = Tensor::from(std::vector<int64_t>{3, 0, 3, 10}, {4});
  const Tensor targets = Tensor::from(std::vector<int64_t>{0, 3, 10, 1}, {4});
  head.weight.bind_grad(Array::full({11, 5}, NAN, DType::f64));
  linear_cross_entropy(tanh(embedding(head.weight, ids)), head.weight, targets).backward();
  cross_entropy(linear(tanh(embedding(plain.weight, ids)), plain.weight), targets).backward();
  CHECK(relative_error(head.weight.grad(), 1, plain.weight.grad()) < 1e-13);
}

TEST_CASE("a recomputed head loss changes no bit", "[ops][linear_cross_entropy][recompute]") {
  const LossScale scale(1024);
  const auto run = [](bool recomputed) {
    const Head head(60, 6, 19, DType::f16);
    const auto segment = [&](const TensorList& in) -> TensorList {
      return {linear_cross_entropy(in[0], head.weight, head.targets)};
    };
    const Tensor loss = recomputed ? recompute(segment, {head.x})[0] : segment({head.x})[0];
    loss.backward(Tensor::scalar(1024));
    return std::tuple(loss.item(), head.x.grad().to_vector<float>(),
                      head.weight.grad().to_vector<float>());
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("f32 parameters get f32 gradients from half products", "[ops][linear_cross_entropy]") {
  const Head head(200, 8, 30, DType::f32), exact(head, DType::f64);
  exact.plain_loss().backward();
  const PrecisionPolicy policy{DType::f16};
  const PrecisionPolicy* previous = exchange_precision_policy(&policy);
  const Tensor loss = head.loss();
  exchange_precision_policy(previous);
  clear_cast_cache();
  loss.backward();
  CHECK(head.x.grad().dtype() == DType::f32);
  CHECK(relative_error(head.x.grad(), 1, exact.x.grad()) < 4e-3);
  CHECK(relative_error(head.weight.grad(), 1, exact.weight.grad()) < 4e-3);
}

TEST_CASE("a head without rows has no loss and zero gradients", "[ops][linear_cross_entropy]") {
  const Head head(0, 5, 11, DType::f64);
  const Tensor loss = head.loss();
  CHECK(loss.item() == 0);
  loss.backward();
  CHECK(head.x.grad().shape() == Shape{0, 5});
  CHECK(head.weight.grad().to_vector<double>() == std::vector<double>(55, 0));
}

TEST_CASE("linear_cross_entropy refuses what does not fit", "[ops][errors]") {
  const Head head(4, 5, 11, DType::f32);
  const Tensor narrow = Tensor::zeros({11, 4});
  CHECK_THROWS_WITH(linear_cross_entropy(head.x, narrow, head.targets),
                    Contains("(4, 5)") && Contains("(11, 4)"));
  CHECK_THROWS_WITH(linear_cross_entropy(head.x, to(head.weight, DType::f16), head.targets),
                    Contains("f32") && Contains("f16") && Contains("Autocast"));
  CHECK_THROWS_WITH(linear_cross_entropy(head.x, head.weight, slice(head.targets, 0, 1)),
                    Contains("(4, 5)") && Contains("(3)"));
  LinearCrossEntropyOptions options;
  options.reduction = Reduction::none;
  CHECK_THROWS_WITH(head.loss(options), Contains("none") && Contains("linear(x, weight)"));
  options = {};
  options.classes = 12;
  CHECK_THROWS_WITH(head.loss(options), Contains("12 classes") && Contains("11 columns"));
  options = {};
  options.rows_per_chunk = -1;
  CHECK_THROWS_WITH(head.loss(options), Contains("rows_per_chunk"));
  CHECK_THROWS_WITH(linear_cross_entropy(head.x, head.weight, Tensor::full({4}, 11, DType::i64)),
                    Contains("11") && Contains("out of range"));
}

TEST_CASE("the head loss on the GPU equals f64 and replays in a graph",
          "[ops][linear_cross_entropy][cuda]") {
  require_gpu();
  for (const auto& [rows, classes, chunk] :
       {std::tuple<int64_t, int64_t, int64_t>{300, 1000, 0}, {300, 1003, 128}, {77, 50257, 32}})
    for (const DType logits : {DType::f16, DType::f32}) {
      INFO(rows << " rows, " << classes << " classes, chunks of " << chunk << ", logits "
                << logits);
      const Head head(rows, 64, classes, DType::f16, test_gpu()), exact(head, DType::f64);
      exact.plain_loss().backward();
      const Array dx = gpu_empty(head.x.shape(), DType::f16);
      const Array dweight = gpu_empty(head.weight.shape(), DType::f16);
      head.x.bind_grad(dx);
      head.weight.bind_grad(dweight);
      const LossScale scale(4096, test_gpu());
      const Tensor seed(Array::full({}, 4096, DType::f32, test_gpu()));
      LinearCrossEntropyOptions options;
      options.rows_per_chunk = chunk;
      options.logits_dtype = logits;
      check_same_bits(
          [&] {
            head.zero_grad();
            head.loss(options).backward(seed);
          },
          {dx, dweight});
      CHECK(head.loss(options).item() == Approx(exact.plain_loss().item()).epsilon(1e-3));
      CHECK(relative_error(dx, 1.0 / 4096, exact.x.grad()) < 5e-3);
      CHECK(relative_error(dweight, 1.0 / 4096, exact.weight.grad()) < 5e-3);
    }
}
