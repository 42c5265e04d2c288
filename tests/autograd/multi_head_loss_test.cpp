// The loss of several decoding heads: values and gradients against the same in public ops, on the
// CPU and the GPU, and its memory. What backward finds: multi_head_loss_gradients_test.cpp; what is
// counted: multi_head_loss_statistics_test.cpp.
#include <catch2/catch.hpp>

#include <binade/core/device.h>

#include "autograd/decoding_heads.h"
#include "core/cuda_repeat.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

using Sizes = DecodingHeads::Sizes;

// A head with every kind of loss.
void mix(DecodingHeads& all) {
  all.heads[0].soft = 0.5;
  all.heads[0].acceptance = 0.75;
  all.heads[0].hard = 0.25;
  all.heads[1].hard = 0;
  all.heads[1].soft = 1;
  all.heads[2].hard = 0;
  all.heads[2].acceptance = 1;
}

// Of loss and every gradient, which carry `scale`.
void check_equal(const DecodingHeads& got, const MultiHeadLoss& loss, double scale,
                 const DecodingHeads& exact, const Tensor& exact_loss, double limit) {
  CHECK(loss.loss.item() == Approx(exact_loss.item()).epsilon(std::max(limit, 1e-12)));
  const auto expected = exact.parameters();
  const auto found = got.parameters();
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    INFO(found[i].first);
    const Array gradient = expected[i].second.grad();
    if (!gradient.defined()) continue;
    REQUIRE(found[i].second.grad().defined());
    CHECK(relative_error(found[i].second.grad(), 1 / scale, gradient) < limit);
  }
}

}  // namespace

TEST_CASE("the loss of several heads equals the same in public ops", "[ops][multi_head_loss]") {
  for (const bool taught : {false, true})
    for (const bool shared_weight : {false, true})
      for (const bool own_hidden : {false, true})
        for (const int64_t chunk : {0, 1, 7, 128}) {
          INFO("teacher " << taught << ", shared weight " << shared_weight << ", own hidden "
                          << own_hidden << ", chunks of " << chunk);
          DecodingHeads all(
              {.shared_weight = shared_weight, .taught = taught, .own_hidden = own_hidden},
              DType::f64);
          if (taught) mix(all);
          const DecodingHeads plain(all, DType::f64);
          MultiHeadLossOptions options;
          options.rows_per_chunk = chunk;
          const MultiHeadLoss loss = all.loss(options);
          loss.loss.backward();
          const Tensor expected = plain.plain_loss();
          expected.backward();
          check_equal(all, loss, 1, plain, expected, 1e-12);
          const std::vector<double> losses = loss.losses.to_vector<double>();
          for (size_t k = 0; k < losses.size(); ++k)
            CHECK(losses[k] == Approx(plain.plain_loss_of(k).item()).epsilon(1e-12));
        }
}

TEST_CASE("heads take normalisers, padding columns and i32 labels", "[ops][multi_head_loss]") {
  DecodingHeads all({.taught = true}, DType::f64);
  mix(all);
  const DecodingHeads plain(all, DType::f64);
  MultiHeadLossOptions options;
  options.normalisers = Tensor::from(std::vector<float>{50, 8, 3}, {3});
  options.classes = 17;
  std::vector<int64_t> ids = all.labels.to_vector<int64_t>();
  for (int64_t& id : ids) id = id >= 17 ? id - 5 : id;
  const_cast<DecodingHeads&>(plain).labels = Tensor::from(ids, all.labels.shape());
  all.labels = to(plain.labels, DType::i32);
  const MultiHeadLoss loss = all.loss(options);
  loss.loss.backward();
  const Tensor expected = plain.plain_loss(options);
  expected.backward();
  check_equal(all, loss, 1, plain, expected, 1e-12);
}

TEST_CASE("a head of coefficient 0 gets statistics and no gradient", "[ops][multi_head_loss]") {
  DecodingHeads all({}, DType::f64);
  all.heads[1].coefficient = 0;
  const DecodingHeads plain(all, DType::f64);
  const MultiHeadLoss loss = all.loss();
  loss.loss.backward();
  const Tensor expected = plain.plain_loss();
  expected.backward();
  check_equal(all, loss, 1, plain, expected, 1e-12);
  CHECK(!all.heads[1].weight.grad().defined());
  CHECK(!all.heads[1].blocks[0].weight.grad().defined());
  CHECK(loss.losses.to_vector<double>()[1] == Approx(plain.plain_loss_of(1).item()));
  CHECK(loss.valid.to_vector<double>()[1] > 0);
  CHECK(loss.entropy.to_vector<double>()[1] > 0);
  // Not even when it is NaN.
  all.heads[1].weight.set_value(Array::full({19, 6}, NAN, DType::f64));
  const MultiHeadLoss again = all.loss();
  CHECK(again.loss.item() == loss.loss.item());
  CHECK(std::isnan(again.losses.to_vector<double>()[1]));
}

TEST_CASE("half heads equal f64 with and without a loss scale", "[ops][multi_head_loss]") {
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32})
    for (const double scale : {0.0, 1024.0})  // 0: nobody said
      for (const bool shared_weight : {false, true})
        for (const bool taught : {false, true})
          for (const int64_t chunk : {0, 7}) {
            INFO(dtype << ", scale " << scale << ", shared weight " << shared_weight << ", teacher "
                       << taught << ", chunks of " << chunk);
            DecodingHeads all({.shared_weight = shared_weight, .taught = taught}, dtype);
            if (taught) mix(all);
            const DecodingHeads exact(all, DType::f64);
            const Tensor expected = exact.plain_loss();
            expected.backward();
            std::optional<LossScale> slot;
            if (scale != 0) slot.emplace(scale);
            MultiHeadLossOptions options;
            options.rows_per_chunk = chunk;
            const MultiHeadLoss loss = all.loss(options);
            if (slot) slot->set(3);  // the scaler moves it before backward, say
            loss.loss.backward(Tensor::scalar(1024));
            // Blocks round their rows, their gradients and those of their activation.
            check_equal(all, loss, 1024, exact, expected,
                        dtype == DType::f32 ? 2e-5 : 16 * epsilon_of(dtype));
          }
}

TEST_CASE("f32 parameters of heads get f32 gradients from half matmuls", "[ops][multi_head_loss]") {
  const DecodingHeads all({.shared_weight = true}, DType::f32);
  const DecodingHeads exact(all, DType::f64);
  const Tensor expected = exact.plain_loss();
  expected.backward();
  const PrecisionPolicy policy{DType::f16};
  const PrecisionPolicy* previous = exchange_precision_policy(&policy);
  const MultiHeadLoss loss = all.loss();
  exchange_precision_policy(previous);
  clear_cast_cache();
  loss.loss.backward();
  for (const auto& [name, tensor] : all.parameters()) CHECK(tensor.grad().dtype() == DType::f32);
  check_equal(all, loss, 1, exact, expected, 16 * epsilon_of(DType::f16));
}

TEST_CASE("heads without rows or without labels have no loss and zero gradients",
          "[ops][multi_head_loss]") {
  for (const DType dtype : {DType::f64, DType::f16})
    for (const bool taught : {false, true})
      for (const int64_t length : {0, 4}) {
        INFO(dtype << ", teacher " << taught << ", " << length << " rows");
        DecodingHeads all({.length = length, .taught = taught}, dtype);
        if (taught) mix(all);
        all.labels = Tensor::full(all.labels.shape(), -100, DType::i64);
        const MultiHeadLoss loss = all.loss();
        CHECK(loss.loss.item() == 0);
        for (const Tensor& values :
             {loss.losses, loss.valid, loss.hits, loss.entropy, loss.overlap})
          CHECK(values.to_vector<double>() ==
                std::vector<double>(static_cast<size_t>(values.numel()), 0));
        loss.loss.backward();
        for (const auto& [name, tensor] : all.parameters()) {
          INFO(name);
          CHECK(tensor.grad().to_vector<double>() ==
                std::vector<double>(static_cast<size_t>(tensor.numel()), 0));
        }
      }
}

TEST_CASE("multi_head_loss refuses what does not fit", "[ops][errors]") {
  DecodingHeads all({.taught = true}, DType::f32);
  const auto refused = [&](const std::string& what, const auto& change) {
    DecodingHeads bad(all, DType::f32);
    MultiHeadLossOptions options;
    change(bad, options);
    CHECK_THROWS_WITH(bad.loss(options), Contains(what));
  };
  refused("at least one head", [](auto& bad, auto&) { bad.heads.clear(); });
  refused("labels must be (K, …) for 2 heads", [](auto& bad, auto&) { bad.heads.pop_back(); });
  refused("hidden must be (…, D)", [](auto& bad, auto&) { bad.hidden = select(bad.hidden, 0, 0); });
  refused("head 0 has no hidden rows", [](auto& bad, auto&) { bad.hidden = {}; });
  refused("head 1's hidden", [](auto& bad, auto&) { bad.heads[1].hidden = Tensor::zeros({3, 6}); });
  refused("head 2's weight must be (V, D)", [](auto& bad, auto&) {
    bad.heads[2].weight = Tensor::zeros({18, 6});
  });
  refused("weight", [](auto& bad, auto&) { bad.heads[2].weight = {}; });
  refused("one dtype", [](auto& bad, auto&) {
    bad.heads[1].weight = Tensor::zeros({19, 6}, DType::f16);
  });
  refused("block needs a weight (D, D)", [](auto& bad, auto&) {
    bad.heads[0].blocks[0] = {Tensor::zeros({5, 6}), {}};
  });
  refused("bias must be",
          [](auto& bad, auto&) { bad.heads[0].blocks[0].bias = Tensor::zeros({5}); });
  refused("coefficients", [](auto& bad, auto&) { bad.heads[0].coefficient = -1; });
  refused("coefficients", [](auto& bad, auto&) { bad.heads[0].soft = NAN; });
  refused("no teacher", [](auto& bad, auto&) {
    bad.heads[0].soft = 1;
    bad.heads[0].teacher.reset();
  });
  refused("temperature", [](auto& bad, auto&) { bad.heads[0].teacher->temperature = 0; });
  refused("shift", [](auto& bad, auto&) { bad.heads[0].teacher->shift = -1; });
  refused("detach", [](auto& bad, auto&) { bad.heads[0].teacher->weight.set_requires_grad(true); });
  refused("teacher", [](auto& bad, auto&) {
    bad.heads[0].teacher->weight = Tensor::zeros({19, 6});
  });
  refused("normalisers must be (3)",
          [](auto&, auto& options) { options.normalisers = Tensor::ones({2}); });
  refused("20 classes", [](auto&, auto& options) { options.classes = 20; });
  refused("rows_per_chunk", [](auto&, auto& options) { options.rows_per_chunk = -1; });
  refused("logits_dtype", [](auto&, auto& options) { options.logits_dtype = DType::f16; });
  refused("out of range", [](auto& bad, auto&) {
    bad.labels = Tensor::full({3, 2, 20}, 19, DType::i64);
  });
  refused("out of range", [](auto&, auto& options) { options.classes = 3; });
}

TEST_CASE("logits of heads take no memory that grows with heads or classes",
          "[ops][multi_head_loss][memory]") {
  constexpr int64_t kMiB = int64_t{1} << 20;
  const auto peak = [](size_t count, int64_t classes, bool taught) {
    DecodingHeads all({.length = 256,
                       .dim = 64,
                       .classes = classes,
                       .blocks = std::vector<int>(count, 1),
                       .taught = taught},
                      DType::f16);
    for (const auto& [name, tensor] : all.parameters())
      tensor.bind_grad(Array::empty(tensor.shape(), DType::f16));
    const LossScale scale(64);
    const int64_t before = memory_stats(Device::cpu()).in_use;
    reset_peak_memory(Device::cpu());
    all.loss().loss.backward();
    return memory_stats(Device::cpu()).peak_in_use - before;
  };
  // What the CPU's matmul packs its operands into depends on the processor: of one chunk of logits
  // (32 MiB at most) and one weight. Matmuls that add to their output pack more than those that
  // write it, at most twice as much.
  const auto packed = [](int64_t classes) {
    const int64_t rows = std::min<int64_t>(512, 16 * kMiB / classes);
    const auto operand = [](const Shape& shape) { return Tensor::full(shape, 0.5, DType::f16); };
    const Tensor hidden = operand({rows, 64}), weight = operand({classes, 64});
    const Tensor logits = operand({rows, classes});
    const int64_t before = memory_stats(Device::cpu()).in_use;
    reset_peak_memory(Device::cpu());
    int64_t outputs = 0;
    for (const auto& [a, b] :
         {std::pair(hidden, transpose(weight, 0, 1)), std::pair(logits, weight),
          std::pair(transpose(logits, 0, 1), hidden)})
      outputs = std::max(outputs, matmul(a, b).numel() * 2);
    return 2 * (memory_stats(Device::cpu()).peak_in_use - before - outputs);
  };
  // 512 rows. Beyond 32k classes chunks are several, and one weight's gradient is summed in f32.
  const int64_t sums = int64_t{65536} * 64 * 4;
  for (const bool taught : {false, true}) {
    INFO("teacher " << taught << ", packed " << packed(8192) << " and " << packed(65536));
    const int64_t one = peak(1, 8192, taught), one_large = peak(1, 65536, taught);
    CHECK(one < (taught ? 16 : 8) * kMiB + 4 * kMiB + packed(8192));
    CHECK(peak(4, 8192, taught) < one + kMiB);
    CHECK(one_large < 32 * kMiB + sums + kMiB + packed(65536));
    CHECK(peak(4, 65536, taught) < one_large + kMiB);
  }
}

TEST_CASE("the loss of heads on the GPU equals f64 and replays in a graph",
          "[ops][multi_head_loss][cuda]") {
  require_gpu();
  struct Case {
    int64_t classes, chunk;
    bool taught;
  };
  // 128256 f16 logits do not fit shared memory, nor do two rows of 80000.
  for (const Case& c : {Case{1000, 0, false}, Case{1003, 32, false}, Case{1003, 32, true},
                        Case{80000, 0, true}, Case{128256, 16, false}, Case{128256, 16, true}})
    for (const DType logits : {DType::f16, DType::f32}) {
      INFO(c.classes << " classes, chunks of " << c.chunk << ", teacher " << c.taught << ", logits "
                     << logits);
      DecodingHeads all({.length = 40, .dim = 64, .classes = c.classes, .taught = c.taught},
                        DType::f16, test_gpu());
      if (c.taught) mix(all);
      const DecodingHeads exact(all, DType::f64);
      const Tensor expected = exact.plain_loss();
      expected.backward();
      const MultiHeadLoss reference = exact.loss();
      std::vector<Array> gradients;
      for (const auto& [name, tensor] : all.parameters()) {
        gradients.push_back(gpu_empty(tensor.shape(), DType::f16));
        tensor.bind_grad(gradients.back());
      }
      const LossScale scale(4096, test_gpu());
      const Tensor seed(Array::full({}, 4096, DType::f32, test_gpu()));
      MultiHeadLossOptions options;
      options.rows_per_chunk = c.chunk;
      options.logits_dtype = logits;
      check_same_bits(
          [&] {
            all.zero_grad();
            all.loss(options).loss.backward(seed);
          },
          gradients);
      const MultiHeadLoss loss = all.loss(options);
      check_equal(all, loss, 4096, exact, expected, 2e-2);
      CHECK(relative_error(loss.losses.array(), 1, reference.losses.array()) < 2e-3);
      CHECK(relative_error(loss.entropy.array(), 1, reference.entropy.array()) < 2e-3);
      CHECK(relative_error(loss.overlap.array(), 1, reference.overlap.array()) <=
            (c.taught ? 2e-3 : 0));
      CHECK(loss.valid.to_vector<double>() == reference.valid.to_vector<double>());
      const auto hits = loss.hits.to_vector<double>(), wanted = reference.hits.to_vector<double>();
      for (size_t i = 0; i < hits.size(); ++i) CHECK(std::abs(hits[i] - wanted[i]) <= 1);
    }
}
