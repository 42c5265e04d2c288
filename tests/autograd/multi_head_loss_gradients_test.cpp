// Gradients of the loss of several decoding heads: which are made, what backward finds of them, and
// what lies in whose memory meanwhile.
#include <catch2/catch.hpp>

#include <binade/amp/grad_scaler.h>
#include <binade/optim/adamw.h>

#include "autograd/decoding_heads.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

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
