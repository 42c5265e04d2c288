#include <catch2/catch.hpp>
#include <thread>

#include <binade/autograd/ops.h>
#include <binade/core/write_log.h>

#include "leaves.h"

using namespace binade;
using Catch::Matchers::Contains;
using test::leaf, test::numbers, test::Numbers;

TEST_CASE("a bias takes its gradient from the norm behind its layer", "[tape]") {
  const auto tensor = [](const Shape& shape, double shift) {
    const Array values = Array::arange(shape.numel(), DType::f64).view(shape);
    const NoGrad off;
    return Tensor(sin(Tensor(values) * 1.7 + shift).array(), true);
  };
  const Tensor x = tensor({4, 3}, 0), weight = tensor({5, 3}, 1), bias = tensor({5}, 2);
  const Tensor residual = tensor({4, 5}, 3), gamma = tensor({5}, 4), beta = tensor({5}, 5);
  const Tensor seed = tensor({4, 5}, 6).detach();
  enum class Between { nothing, second_use, hook, op };
  const auto bias_gradient = [&](Between between) {
    const Tensor y = linear(x, weight, bias);
    const Tensor into_norm = between == Between::op ? y * 1.0 : y;
    if (between == Between::hook)
      y.register_hook([](const Array& grad) { return (Tensor(grad) * 2.0).array(); });
    const auto [sum_, normed] = add_layer_norm(into_norm, residual, gamma, beta);
    Tensor loss = sum(square(sum_) * seed) + sum(normed * seed);
    if (between == Between::second_use) loss = loss + sum(y * seed);
    return grad({loss}, {bias})[0].to_vector<double>();
  };
  const std::vector<double> plain = bias_gradient(Between::op);  // summed by the layer itself
  CHECK_THAT(bias_gradient(Between::nothing), Catch::Matchers::Approx(plain).margin(1e-12));
  std::vector<double> doubled = plain, with_second = plain;
  const std::vector<double> extra = sum(seed, {0}).to_vector<double>();
  for (size_t i = 0; i < plain.size(); ++i) {
    doubled[i] *= 2;
    with_second[i] += extra[i];
  }
  CHECK_THAT(bias_gradient(Between::hook), Catch::Matchers::Approx(doubled).margin(1e-12));
  CHECK_THAT(bias_gradient(Between::second_use),
             Catch::Matchers::Approx(with_second).margin(1e-12));
}

TEST_CASE("gradients of several uses and several passes are summed", "[tape]") {
  const Tensor x = leaf({1, 2});
  sum(x * x + x).backward();
  CHECK(numbers(x.grad()) == Numbers{3, 5});
  sum(x * 2).backward();
  CHECK(numbers(x.grad()) == Numbers{5, 7});
  x.zero_grad();
  CHECK_FALSE(x.grad().defined());
  sum(x * 2).backward();
  CHECK(numbers(x.grad()) == Numbers{2, 2});
}

TEST_CASE("what was handed out as a gradient is not written over", "[tape]") {
  // add gives one gradient to both operands; b then gets more.
  const Tensor a = leaf({1}), b = leaf({1});
  const Tensor total = a + b;
  sum(total + b * 2).backward();
  CHECK(numbers(a.grad()) == Numbers{1});
  CHECK(numbers(b.grad()) == Numbers{3});
  const Array kept = a.grad();
  sum(a * 5).backward();
  CHECK(numbers(kept) == Numbers{1});
  CHECK(numbers(a.grad()) == Numbers{6});
}

TEST_CASE("residual streams keep apart what fused norms share", "[tape]") {
  // The gradient of x + residual goes to both, and the hook's copy of it must not change.
  const Tensor x(Array::arange(8, DType::f64).view({2, 4}), true);
  const Tensor residual(Array::full({2, 4}, 0.5, DType::f64), true);
  const Tensor weight(Array::full({4}, 1, DType::f64), true);
  const auto [stream, y] = add_rms_norm(x, residual, weight);
  Array seen, copy;
  stream.register_hook([&](const Array& grad) {
    seen = grad;
    copy = grad.clone();
    return Array();
  });
  sum(stream * stream + y).backward();
  CHECK(numbers(seen) == numbers(copy));
  CHECK(numbers(x.grad()) == numbers(residual.grad()));

  const Tensor z = x.detach() + residual.detach();
  const Tensor plain(z.array(), true);
  sum(plain * plain + rms_norm(plain, weight.detach())).backward();
  const Numbers expected = numbers(plain.grad()), got = numbers(x.grad());
  for (size_t i = 0; i < got.size(); ++i) CHECK(got[i] == Approx(expected[i]).epsilon(1e-12));
}

TEST_CASE("tied weights sum their gradients in one buffer", "[tape]") {
  const Tensor table(Array::arange(6, DType::f64).view({3, 2}), true);
  const Array buffer = Array::full({3, 2}, -1, DType::f64);
  table.bind_grad(buffer);
  const Tensor index = Tensor::from(std::vector<int64_t>{2, 0, 2}, {3});
  const Tensor hidden = embedding(table, index);
  sum(linear(hidden, table)).backward();
  CHECK(table.grad().shares_storage(buffer));
  // d/dT Σ_nv h_n·T_v = Σ_n h_n for every v, and Σ_v T_v for every row that was looked up.
  // Rows 2, 0, 2 sum to (8, 11); all rows sum to (6, 9).
  CHECK(numbers(buffer) == Numbers{8 + 6, 11 + 9, 8, 11, 8 + 12, 11 + 18});
}

TEST_CASE("bound buffers are overwritten first, then added to", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Array buffer = Array::full({2}, 100, DType::f64);
  x.bind_grad(buffer);
  sum(x * 3).backward();
  CHECK(numbers(buffer) == Numbers{3, 3});
  sum(x * 3).backward();
  CHECK(numbers(buffer) == Numbers{6, 6});
  x.zero_grad();
  sum(x * 3).backward();
  CHECK(numbers(buffer) == Numbers{3, 3});
  CHECK_THROWS_WITH(x.bind_grad(Array::zeros({3}, DType::f64)), Contains("bind_grad"));
}

TEST_CASE("hooks see complete gradients and may replace them", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Tensor y = x * 3;
  int calls = 0;
  const auto remove = y.register_hook([&](const Array& grad) {
    ++calls;
    CHECK(numbers(grad) == Numbers{5, 5});  // of both uses
    return grad.to(DType::f64).clone().fill(10);
  });
  const Tensor result = sum(y * 2 + y * 3);
  result.backward({.retain_graph = true});
  CHECK(calls == 1);
  CHECK(numbers(x.grad()) == Numbers{30, 30});
  remove();
  x.zero_grad();
  result.backward();
  CHECK(calls == 1);
  CHECK(numbers(x.grad()) == Numbers{15, 15});

  const Tensor w = leaf({1});
  w.register_hook([](const Array& grad) { return Array::full(grad.shape(), 7, grad.dtype()); });
  sum(w * 2).backward();
  CHECK(numbers(w.grad()) == Numbers{7});
  w.register_hook([](const Array&) { return Array::zeros({2}, DType::f64); });
  CHECK_THROWS_WITH(sum(w).backward(), Contains("hook"));
}

TEST_CASE("retain_grad keeps the gradient of an inner tensor", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Tensor y = x * 3;
  const Tensor z = square(y);
  y.retain_grad();
  sum(z).backward();
  CHECK(numbers(y.grad()) == Numbers{6, 12});
  CHECK_FALSE(z.grad().defined());
}

TEST_CASE("a graph is freed unless it is retained", "[tape]") {
  const Tensor x = leaf({3});
  const Tensor y = sum(square(x));
  y.backward({.retain_graph = true});
  y.backward();
  CHECK(numbers(x.grad()) == Numbers{12});
  CHECK_THROWS_WITH(y.backward(), Contains("retain_graph"));
}

TEST_CASE("create_graph makes gradients differentiable", "[tape]") {
  const Tensor x = leaf({2});
  const Tensor first = grad({sum(x * x * x)}, {x}, {}, {.create_graph = true})[0];
  CHECK(first.to_vector<double>() == Numbers{12});
  const Tensor second = grad({sum(first)}, {x}, {}, {.create_graph = true})[0];
  CHECK(second.to_vector<double>() == Numbers{12});
  CHECK(grad({sum(second)}, {x})[0].to_vector<double>() == Numbers{6});

  // A gradient penalty: d/dx ‖dy/dx‖².
  sum(exp(x)).backward({.create_graph = true});
  const Tensor gradient = x.grad_tensor();
  const double penalty = grad({sum(square(gradient))}, {x})[0].item();
  CHECK(penalty == Approx(2 * std::exp(4.0)));
  x.zero_grad();

  const Tensor fused = record("fused_only", {x}, x.array().clone(),
                              [](Backward& backward) { backward.slot(0).add(backward.grad()); });
  CHECK_THROWS_WITH(
      fused.backward(leaf({1}), {.create_graph = true}),
      Contains("fused_only: its gradient has no gradient (create_graph)") && Contains("on_tape.h"));
}

TEST_CASE("grad() leaves everybody's gradients alone", "[tape]") {
  const Tensor x = leaf({1}), w = leaf({2}), unused = leaf({3});
  const Tensor hidden = x * w;
  const TensorList gradients = grad({sum(hidden * hidden)}, {w, hidden, unused});
  CHECK(gradients[0].to_vector<double>() == Numbers{4});
  CHECK(gradients[1].to_vector<double>() == Numbers{4});
  CHECK_FALSE(gradients[2].defined());
  CHECK_FALSE(w.grad().defined());
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("nothing is recorded without gradients", "[tape]") {
  const Tensor x = leaf({1});
  {
    const NoGrad off;
    const Tensor y = x * 2;
    CHECK_FALSE(y.requires_grad());
    {
      const EnableGrad on;
      CHECK((x * 2).requires_grad());
    }
    CHECK_FALSE((x * 2).requires_grad());
  }
  CHECK((x * 2).requires_grad());
  CHECK_FALSE((x.detach() * 2).requires_grad());
  CHECK(x.detach().array().shares_storage(x.array()));
  CHECK_FALSE(equal(x, x).requires_grad());
  CHECK_THROWS_WITH((x.detach() * 2).backward(), Contains("does not require a gradient"));
  CHECK_THROWS_WITH((leaf({1, 2}) * 2).backward(), Contains("seed"));
}

TEST_CASE("a value changed in place after it was saved is noticed", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Tensor copy(x.array().clone(), true);
  const Tensor y = sum(square(copy));
  copy.array().fill(5);
  CHECK_THROWS_WITH(y.backward(), Contains("changed in place"));

  // A view shares the version of its storage.
  const Tensor base(Array::zeros({4}, DType::f64), true);
  const Tensor z = sum(square(slice(base, 0, 0, 2)));
  base.array().slice(0, 2, 3).fill(1);
  CHECK_THROWS_WITH(z.backward(), Contains("changed in place"));

  // What does not need the value does not mind.
  const Tensor w(Array::zeros({2}, DType::f64), true);
  const Tensor s = sum(w + 1);
  w.set_value(Array::full({2}, 3, DType::f64));
  s.backward();
  CHECK(numbers(w.grad()) == Numbers{1, 1});
}

TEST_CASE("a saved value that a replay writes is noticed", "[tape]") {
  const Tensor x = leaf({1, 2});
  WriteLog log;
  {
    const WriteLog::Scope noting(log);
    x.array().fill(5);
  }
  const Tensor y = sum(square(x));
  log.bump_versions();
  CHECK_THROWS_WITH(y.backward(), Contains("changed in place"));
}

TEST_CASE("leaves and tensors on the tape are told apart", "[tape]") {
  Tensor x = leaf({1});
  const Tensor y = x * 2;
  CHECK(x.is_leaf());
  CHECK_FALSE(y.is_leaf());
  CHECK_THROWS_WITH(Tensor(y).set_requires_grad(false), Contains("leaves"));
  CHECK_THROWS_WITH(y.set_value(x.array()), Contains("leaves"));
  CHECK_THROWS_WITH(Tensor(Array::zeros({1}, DType::i64), true), Contains("i64"));
}

TEST_CASE("long chains are freed without recursion", "[tape]") {
  const Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 100000; ++i) y = y + 0.0;
  sum(y).backward();
  CHECK(numbers(x.grad()) == Numbers{1});
}

TEST_CASE("a custom function has the gradient its author gives", "[tape]") {
  const auto clipped = [](const Tensor& x) {
    return custom_function(
        "clip_grad", {x}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
        [](const TensorList&, const TensorList&, const TensorList& dy) -> TensorList {
          return {clamp(dy[0], -1, 1)};
        })[0];
  };
  const Tensor x = leaf({1, 2});
  sum(clipped(x) * Tensor::from(Numbers{0.5, 5}, {2})).backward();
  CHECK(numbers(x.grad()) == Numbers{0.5, 1});

  const Tensor a = leaf({3}), b = leaf({4});
  const TensorList both = custom_function(
      "sum_and_product", {a, b},
      [](const TensorList& in) -> TensorList {
        return {in[0] + in[1], in[0] * in[1]};
      },
      [](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
        return {dy[0] + dy[1] * in[1], dy[0] + dy[1] * in[0]};
      });
  sum(both[0] * 2 + both[1] * 3).backward();
  CHECK(numbers(a.grad()) == Numbers{14});
  CHECK(numbers(b.grad()) == Numbers{11});

  const Tensor wrong = custom_function(
      "wrong", {a}, [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; },
      [](const TensorList&, const TensorList&, const TensorList&) -> TensorList {
        return {Tensor::zeros({2}, DType::f64)};
      })[0];
  CHECK_THROWS_WITH(sum(wrong).backward(), Contains("(2)") && Contains("(1)"));
}

TEST_CASE("gradients nobody needs are not computed", "[tape]") {
  // The observer sees which gradients an op produced.
  struct Counter : OpObserver {
    int produced = 0;
    void on_forward(const char*, const TensorList&, const std::vector<Array>&) override {}
    void on_backward(const char* name, const std::vector<Array>&,
                     const std::vector<Array>& dinputs) override {
      if (std::string(name) == "sum") return;
      for (const Array& gradient : dinputs) produced += gradient.defined();
    }
  } counter;
  const Tensor a(Array::full({2, 2}, 1, DType::f64), true);
  const Tensor b = Tensor::ones({2, 2}, DType::f64);
  OpObserver* before = exchange_op_observer(&counter);
  for (const auto& op : {mul, div, matmul, maximum, sub}) {
    counter.produced = 0;
    sum(op(a, b)).backward();
    CHECK(counter.produced == 1);
  }
  counter.produced = 0;
  sum(linear(b, a)).backward();
  CHECK(counter.produced == 1);
  exchange_op_observer(before);
}

TEST_CASE("anomaly mode names the op that made a NaN", "[tape]") {
  const AnomalyMode watching;
  const Tensor x = leaf({-1, 4});
  CHECK_THROWS_WITH(
      log(x), Contains("anomaly") && Contains("forward") && Contains("log") && Contains("[-1, 4]"));
  // 0 · ∞ in the backward pass only.
  const Tensor zero = leaf({0});
  const Tensor y = sum(sqrt(zero) * 0.0);
  CHECK_THROWS_WITH(y.backward(), Contains("backward") && Contains("sqrt"));
  const Tensor fine = leaf({1});
  sum(log(fine)).backward();
  CHECK(numbers(fine.grad()) == Numbers{1});
}

TEST_CASE("gradients made with create_graph reach bound buffers and are added to", "[tape]") {
  const Tensor free = leaf({2}), bound = leaf({2});
  const Array buffer = Array::zeros({1}, DType::f64);
  bound.bind_grad(buffer);
  for (const Tensor& x : {free, bound}) {
    sum(x * x).backward({.create_graph = true});
    CHECK(numbers(x.grad()) == Numbers{4});
    const Tensor differentiable = x.grad_tensor();
    sum(x * 3).backward();
    CHECK(numbers(x.grad()) == Numbers{7});
    CHECK(numbers(differentiable.array()) == Numbers{4});
    sum(x * x).backward({.create_graph = true});
    CHECK(numbers(x.grad()) == Numbers{11});
    x.zero_grad();
  }
  CHECK(numbers(buffer) == Numbers{11});
}

TEST_CASE("a gradient made with create_graph holds its leaf until zero_grad", "[tape]") {
  std::weak_ptr<TensorState> kept;
  {
    const Tensor x = leaf({2});
    kept = x.state();
    sum(x * x * x).backward({.create_graph = true});
  }
  REQUIRE_FALSE(kept.expired());
  Tensor(kept.lock()).zero_grad();
  CHECK(kept.expired());

  // An inner tensor that keeps its gradient is in the same case.
  const Tensor x = leaf({2});
  {
    const Tensor y = x * x;
    kept = y.state();
    y.retain_grad();
    sum(y * y).backward({.create_graph = true});
    y.zero_grad();
  }
  CHECK(kept.expired());
  x.zero_grad();

  {
    const Tensor z = leaf({2});
    kept = z.state();
    sum(z * z).backward({.create_graph = true});
    sum(z).backward();  // goes on as a plain value
    CHECK(numbers(z.grad()) == Numbers{5});
  }
  CHECK(kept.expired());
}

TEST_CASE("grad() with create_graph leaves nothing behind", "[tape]") {
  std::weak_ptr<TensorState> leaf_state, gradient_state;
  {
    const Tensor x = leaf({2});
    const Tensor first = grad({sum(x * x * x)}, {x}, {}, {.create_graph = true})[0];
    leaf_state = x.state();
    gradient_state = first.state();
    CHECK(grad({sum(first)}, {x})[0].to_vector<double>() == Numbers{12});
  }
  CHECK(leaf_state.expired());
  CHECK(gradient_state.expired());
}

TEST_CASE("a graph recorded by two threads is walked in order", "[tape]") {
  const Tensor x = leaf({3});
  Tensor y = x;
  for (int i = 0; i < 10; ++i) y = y * 1.0;
  Tensor z;
  std::thread([&] { z = y * y; }).join();
  sum(z + y).backward();
  CHECK(numbers(x.grad()) == Numbers{7});
}

TEST_CASE("a long chain of ops that save their inputs is dropped without recursion", "[tape]") {
  const Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 200000; ++i) y = y * x;
  CHECK(y.requires_grad());
}
