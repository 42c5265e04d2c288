// The loss of several decoding heads: values and gradients against the same in public ops, what
// backward finds, and what lies in whose memory meanwhile.
#include <tuple>

#include <catch2/catch.hpp>

#include <binade/amp/grad_scaler.h>
#include <binade/core/device.h>
#include <binade/optim/adamw.h>

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

TEST_CASE("only the gradients of heads that somebody wants are made", "[ops][multi_head_loss]") {
  const DecodingHeads every({}, DType::f64);
  every.loss().loss.backward();
  const auto wanted = every.parameters();
  // Each alone frozen, and all but each.
  for (size_t i = 0; i < wanted.size(); ++i)
    for (const bool alone : {false, true}) {
      INFO(wanted[i].first << (alone ? " alone" : " frozen"));
      DecodingHeads some({}, DType::f64);
      const auto parameters = some.parameters();
      for (size_t j = 0; j < parameters.size(); ++j) {
        Tensor tensor = parameters[j].second;
        tensor.set_requires_grad((i == j) == alone);
      }
      some.loss().loss.backward();
      for (size_t j = 0; j < parameters.size(); ++j) {
        REQUIRE(parameters[j].second.grad().defined() == ((i == j) == alone));
        if ((i == j) == alone)
          CHECK(relative_error(parameters[j].second.grad(), 1, wanted[j].second.grad()) < 1e-14);
      }
    }
  DecodingHeads none({}, DType::f64);
  for (const auto& [name, parameter] : none.parameters()) {
    Tensor tensor = parameter;
    tensor.set_requires_grad(false);
  }
  CHECK(!none.loss().loss.requires_grad());
  CHECK(none.loss().loss.item() == every.loss().loss.item());
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

TEST_CASE("the loss scale keeps small gradients of half heads", "[ops][multi_head_loss]") {
  // (p − y)·λ/N is far below f16's smallest subnormal for most classes.
  const DecodingHeads all({.length = 1 << 12, .dim = 8, .classes = 50, .blocks = {0, 0}},
                          DType::f16);
  const DecodingHeads exact(all, DType::f64);
  exact.plain_loss().backward();
  const LossScale scale(65536);
  all.loss().loss.backward(Tensor::scalar(65536));
  CHECK(relative_error(all.hidden.grad(), 0x1p-16, exact.hidden.grad()) < 4e-3);
  for (size_t k = 0; k < 2; ++k)
    CHECK(relative_error(all.heads[k].weight.grad(), 0x1p-16, exact.heads[k].weight.grad()) < 1e-3);
}

TEST_CASE("a second backward of heads finds what the first one found", "[ops][multi_head_loss]") {
  for (const bool bound : {false, true})
    for (const bool with_scale : {false, true}) {
      INFO("bound " << bound << ", loss scale " << with_scale);
      const DecodingHeads all({.shared_weight = true}, DType::f32);
      std::optional<LossScale> slot;
      if (with_scale) slot.emplace(8);
      if (bound)
        for (const auto& [name, tensor] : all.parameters())
          tensor.bind_grad(Array::full(tensor.shape(), NAN, DType::f32));
      const MultiHeadLoss loss = all.loss();
      const auto gradients = [&](double seed, bool retain) {
        all.zero_grad();
        BackwardOptions options;
        options.retain_graph = retain;
        loss.loss.backward(Tensor::scalar(seed), options);
        std::vector<std::vector<float>> values;
        for (const auto& [name, tensor] : all.parameters())
          values.push_back(tensor.grad().to_vector<float>());
        return values;
      };
      const auto first = gradients(8, true);
      CHECK(gradients(2, true) != first);
      CHECK(gradients(8, true) == first);
      CHECK(gradients(8, false) == first);
      CHECK_THROWS_WITH(loss.loss.backward(), Contains("retain_graph"));
    }
}

TEST_CASE("a fused head loss is refused where its gradient shall have one",
          "[ops][multi_head_loss]") {
  const DecodingHeads all({}, DType::f64);
  BackwardOptions options;
  options.create_graph = true;
  CHECK_THROWS_WITH(all.loss().loss.backward(options), Contains("create_graph"));
}

TEST_CASE("gradients of heads are written where an optimizer has its own",
          "[ops][multi_head_loss]") {
  const DecodingHeads all({}, DType::f16), plain(all, DType::f16);
  const LossScale scale(64);
  plain.loss().loss.backward(Tensor::scalar(64));
  std::vector<Array> buffers;
  for (const auto& [name, tensor] : all.parameters()) {
    buffers.push_back(Array::full(tensor.shape(), 7, DType::f16));
    tensor.bind_grad(buffers.back());
  }
  const Tensor loss = all.loss().loss;
  const auto expected = plain.parameters();
  for (size_t i = 0; i < buffers.size(); ++i) {
    INFO(expected[i].first);
    CHECK(!all.parameters()[i].second.grad().defined());  // before backward nobody has a gradient
    CHECK(buffers[i].to_vector<float>() == expected[i].second.grad().to_vector<float>());
  }
  loss.backward(Tensor::scalar(64));
  for (size_t i = 0; i < buffers.size(); ++i)
    CHECK(all.parameters()[i].second.grad().shares_storage(buffers[i]));
}

TEST_CASE("a buffer that somebody else writes meanwhile costs heads no gradient",
          "[ops][multi_head_loss]") {
  const DecodingHeads plain({}, DType::f64);
  plain.loss().loss.backward();
  const auto expected = plain.parameters();
  enum class Meanwhile : uint8_t {
    other_op,
    other_op_first,
    added_before,
    second_loss,
    cleared,
    rebound,
    hook,
    grad_call,
    dropped
  };
  for (const Meanwhile meanwhile :
       {Meanwhile::other_op, Meanwhile::other_op_first, Meanwhile::added_before,
        Meanwhile::second_loss, Meanwhile::cleared, Meanwhile::rebound, Meanwhile::hook,
        Meanwhile::grad_call, Meanwhile::dropped}) {
    INFO("case " << static_cast<int>(meanwhile));
    const DecodingHeads all({}, DType::f64);
    std::vector<Array> buffers;
    for (const auto& [name, tensor] : all.parameters()) {
      buffers.push_back(Array::full(tensor.shape(), 7, DType::f64));
      tensor.bind_grad(buffers.back());
    }
    const auto parameters = all.parameters();
    // Adds `times` to every element of a gradient.
    const auto sum_of_all = [&] {
      Tensor total = Tensor::scalar(0, DType::f64);
      for (const auto& [name, tensor] : parameters) total = total + sum(tensor);
      return total;
    };
    double times = 1, added = 0;
    if (meanwhile == Meanwhile::added_before) {
      sum_of_all().backward();
      added = 1;
    }
    if (meanwhile == Meanwhile::dropped) all.loss();
    const Tensor before = sum_of_all();
    Tensor loss = all.loss().loss;
    switch (meanwhile) {
      case Meanwhile::other_op:  // its backward runs before the heads'
        loss = loss + sum_of_all();
        added = 1;
        break;
      case Meanwhile::other_op_first:  // and after
        loss = before + loss;
        added = 1;
        break;
      case Meanwhile::second_loss:
        loss = loss + all.loss().loss * 2;
        times = 3;
        break;
      case Meanwhile::cleared:
        for (size_t i = 0; i < buffers.size(); ++i) {
          parameters[i].second.clear_grad_buffer();
          buffers[i].zero();
        }
        break;
      case Meanwhile::rebound:
        for (size_t i = 0; i < buffers.size(); ++i) {
          parameters[i].second.bind_grad(Array::full(buffers[i].shape(), 3, DType::f64));
          buffers[i].fill(NAN);
        }
        break;
      case Meanwhile::hook:
        for (const auto& [name, tensor] : parameters)
          tensor.register_hook([](const Array& grad) { return (Tensor(grad) * 2).array(); });
        times = 2;
        break;
      case Meanwhile::grad_call: {
        BackwardOptions retain;
        retain.retain_graph = true;
        grad({loss}, {parameters[1].second}, {}, retain);
        CHECK(!parameters[1].second.grad().defined());
        break;
      }
      default:
        break;
    }
    loss.backward();
    for (size_t i = 0; i < expected.size(); ++i) {
      INFO(expected[i].first);
      const Tensor wanted = Tensor(expected[i].second.grad()) * times + added;
      CHECK(relative_error(parameters[i].second.grad(), 1, wanted.array()) < 1e-14);
    }
  }
}

TEST_CASE("an optimizer's step between forward and backward costs heads no gradient",
          "[ops][multi_head_loss][optim]") {
  Random random(5);
  const auto weight = std::make_shared<nn::Parameter>(random_array({11, 5}, DType::f32, random));
  const auto other = std::make_shared<nn::Parameter>(random_array({3}, DType::f32, random));
  optim::AdamW optimizer({{{{"weight", weight}, {"other", other}}}}, {});
  optimizer.set_learning_rate(0);  // values stay
  const Tensor hidden(random_array({8, 5}, DType::f32, random));
  const Tensor labels = Tensor::from(std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8}, {1, 8});
  DecodingHead head;
  head.weight = weight->tensor();
  const auto gradient = [&](bool step) {
    optimizer.zero_grad();
    const Tensor loss = multi_head_loss(hidden, {head}, labels).loss;
    if (step) {
      sum(other->tensor()).backward();
      optimizer.step();
    }
    loss.backward();
    return weight->tensor().grad().to_vector<float>();
  };
  const std::vector<float> expected = gradient(false);
  CHECK(gradient(true) == expected);
}

TEST_CASE("a recomputed loss of heads changes no bit", "[ops][multi_head_loss][recompute]") {
  const LossScale scale(1024);
  const auto run = [](bool recomputed, bool bound) {
    const DecodingHeads all({}, DType::f16);
    if (bound)
      for (const auto& [name, tensor] : all.parameters())
        tensor.bind_grad(Array::full(tensor.shape(), NAN, DType::f16));
    const auto segment = [&](const TensorList& in) -> TensorList {
      return {multi_head_loss(in[0], all.heads, all.labels).loss};
    };
    const Tensor loss = recomputed ? recompute(segment, {all.hidden})[0] : segment({all.hidden})[0];
    loss.backward(Tensor::scalar(1024));
    std::vector<std::vector<float>> values = {{static_cast<float>(loss.item())}};
    for (const auto& [name, tensor] : all.parameters())
      values.push_back(tensor.grad().to_vector<float>());
    return values;
  };
  const auto expected = run(false, false);
  CHECK(run(true, false) == expected);
  CHECK(run(false, true) == expected);
  CHECK(run(true, true) == expected);
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

TEST_CASE("statistics of heads equal those of a brute force", "[ops][multi_head_loss]") {
  for (const DType dtype : {DType::f64, DType::f16})
    for (const bool taught : {false, true}) {
      DecodingHeads all({.taught = taught}, dtype);
      const DecodingHeads exact(all, DType::f64);
      const MultiHeadLoss loss = all.loss();
      MultiHeadLossOptions without;
      without.statistics = false;
      CHECK(all.loss(without).loss.item() == loss.loss.item());
      CHECK(!all.loss(without).hits.defined());
      const std::vector<double> hits = loss.hits.to_vector<double>();
      for (size_t k = 0; k < all.heads.size(); ++k) {
        INFO(dtype << ", teacher " << taught << ", head " << k);
        const auto logits = exact.logits(exact.heads[k]).to_vector<double>();
        const auto labels = select(exact.labels, 0, static_cast<int64_t>(k)).to_vector<int64_t>();
        const std::vector<double> p =
            taught ? exact.teacher_probabilities(exact.heads[k]).to_vector<double>()
                   : std::vector<double>();
        double valid = 0, entropy = 0, overlap = 0, expected[5] = {};
        for (size_t row = 0; row < labels.size(); ++row) {
          if (labels[row] == -100) continue;
          ++valid;
          const double* x = logits.data() + row * 19;
          double total = 0, rank = 0;
          for (int64_t v = 0; v < 19; ++v) {
            total += std::exp(x[v]);
            rank += x[v] > x[labels[row]] || (x[v] == x[labels[row]] && v < labels[row]);
          }
          for (int n = 0; n < 5; ++n) expected[n] += rank <= n;
          for (int64_t v = 0; v < 19; ++v) {
            const double q = std::exp(x[v]) / total;
            entropy -= q * std::log(q);
            if (taught) overlap += std::min(q, p[row * 19 + static_cast<size_t>(v)]);
          }
        }
        CHECK(loss.valid.to_vector<double>()[k] == valid);
        for (size_t n = 0; n < 5; ++n)  // a near-tie may be rounded away in half
          CHECK(std::abs(hits[k * 5 + n] - expected[n]) <= (dtype == DType::f64 ? 0 : 1));
        const double limit = dtype == DType::f64 ? 1e-12 : 2e-3;
        CHECK(loss.entropy.to_vector<double>()[k] == Approx(entropy).epsilon(limit));
        CHECK(loss.overlap.to_vector<double>()[k] == Approx(overlap).epsilon(limit).margin(1e-12));
      }
    }
}

TEST_CASE("ranks of labels stop at the fifth, and say which rows are ignored",
          "[ops][multi_head_loss]") {
  for (const bool taught : {false, true})
    for (const int64_t chunk : {0, 3}) {
      DecodingHeads all({.taught = taught}, DType::f64);
      MultiHeadLossOptions options;
      options.rows_per_chunk = chunk;
      CHECK(!all.loss(options).ranks.defined());
      options.ranks = true;
      const MultiHeadLoss loss = all.loss(options);
      REQUIRE(loss.ranks.shape() == all.labels.shape());
      CHECK(loss.ranks.dtype() == DType::i32);
      std::vector<int32_t> expected;
      for (size_t k = 0; k < all.heads.size(); ++k) {
        const auto logits = all.logits(all.heads[k]).to_vector<double>();
        const auto labels = select(all.labels, 0, static_cast<int64_t>(k)).to_vector<int64_t>();
        for (size_t row = 0; row < labels.size(); ++row) {
          const double* x = logits.data() + row * 19;
          const int64_t label = labels[row];
          const auto larger = label == -100 ? 0 : std::count_if(x, x + 19, [&](double value) {
            return value > x[label];
          });
          expected.push_back(label == -100 ? -1 : static_cast<int32_t>(std::min(larger, 5L)));
        }
      }
      CHECK(loss.ranks.to_vector<int32_t>() == expected);
      // The sums are those of the rows, ranks or not.
      options.ranks = false;
      CHECK(loss.hits.to_vector<double>() == all.loss(options).hits.to_vector<double>());
    }
}

TEST_CASE("a teacher's rows lie as far ahead as the labels they go with",
          "[ops][multi_head_loss]") {
  // shift 2 against hidden rows that were moved by hand.
  DecodingHeads all({.length = 12, .blocks = {0}, .taught = true}, DType::f64);
  all.heads[0].soft = 1;
  const Tensor targets = reshape(shifted_labels(select(all.labels, 0, 0), {}, {2}), {1, 2, 12});
  DecodingHeads moved(all, DType::f64);
  const Tensor& hidden = moved.heads[0].teacher->hidden;
  moved.heads[0].teacher->hidden =
      cat({slice(hidden, 1, 2, 12), Tensor::zeros({2, 2, 4}, DType::f64)}, 1);
  all.heads[0].teacher->shift = 2;
  for (const int64_t chunk : {0, 1, 5}) {
    MultiHeadLossOptions options;
    options.rows_per_chunk = chunk;
    all.zero_grad();
    moved.zero_grad();
    const MultiHeadLoss got = multi_head_loss(all.hidden, all.heads, targets, options);
    const MultiHeadLoss expected = multi_head_loss(moved.hidden, moved.heads, targets);
    CHECK(got.loss.item() == Approx(expected.loss.item()).epsilon(1e-13));
    CHECK(got.overlap.item() == Approx(expected.overlap.item()).epsilon(1e-13));
    got.loss.backward();
    expected.loss.backward();
    CHECK(relative_error(all.hidden.grad(), 1, moved.hidden.grad()) < 1e-13);
  }
}

TEST_CASE("shifted labels stay in their row and document", "[ops][multi_head_loss]") {
  const Tensor labels = Tensor::from(std::vector<int32_t>{1, 2, 3, 4, 5, -100, 7, 8}, {2, 4});
  const Tensor documents = Tensor::from(std::vector<int32_t>{0, 0, 0, 1, 3, 3, 3, 3}, {2, 4});
  CHECK(shifted_labels(labels, {}, {0, 1, 3, 9}).to_vector<int32_t>() ==
        std::vector<int32_t>{1,    2,    3,    4,    5,    -100, 7,    8,     //
                             2,    3,    4,    -100, -100, 7,    8,    -100,  //
                             4,    -100, -100, -100, 8,    -100, -100, -100,
                             -100, -100, -100, -100, -100, -100, -100, -100});
  CHECK(shifted_labels(labels, documents, {1, 2}, -1).to_vector<int32_t>() ==
        std::vector<int32_t>{2, 3, -1, -1, -100, 7, 8, -1,  //
                             3, -1, -1, -1, 7, 8, -1, -1});
  CHECK_THROWS_WITH(shifted_labels(labels, {}, {-1}), Contains("-1"));
  CHECK_THROWS_WITH(shifted_labels(labels, slice(documents, 0, 0, 1), {1}), Contains("shape"));
  CHECK_THROWS_WITH(shifted_labels(to(labels, DType::f32), {}, {1}), Contains("i32"));
}

TEST_CASE("heads of unequal NaN rows say so", "[ops][multi_head_loss]") {
  const DecodingHeads all({.blocks = {0, 0}}, DType::f32);
  all.hidden.array().select(0, 0).select(0, 1).fill(NAN);
  const MultiHeadLoss loss = all.loss();
  CHECK(std::isnan(loss.loss.item()));
  loss.loss.backward();
  CHECK(std::isnan(sum(Tensor(all.heads[0].weight.grad())).item()));
  // The NaN row is no hit at any rank, and the other rows have finite gradients.
  CHECK(loss.hits.to_vector<double>()[4] <= loss.valid.to_vector<double>()[0] - 1);
  CHECK(std::isfinite(sum(select(Tensor(all.hidden.grad()), 0, 1)).item()));
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
  // 512 rows. Beyond 32k classes chunks are several, and one weight's gradient is summed in f32; as
  // much is what the CPU's matmul packs a weight into.
  const int64_t sums = int64_t{65536} * 64 * 4;
  for (const bool taught : {false, true}) {
    INFO("teacher " << taught);
    const int64_t one = peak(1, 8192, taught), one_large = peak(1, 65536, taught);
    CHECK(one < (taught ? 24 : 12) * kMiB);
    CHECK(peak(4, 8192, taught) < one + kMiB);
    CHECK(one_large < 32 * kMiB + 2 * sums + kMiB);
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
      const MultiHeadLoss loss = all.loss(options), reference = exact.loss();
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
