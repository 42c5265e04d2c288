// One tensor in several inputs of one op: its gradient is the sum over the inputs. The oracle is
// the same op on copies, one an input.
#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

using namespace binade;

namespace {

using Numbers = std::vector<double>;
using Op = std::function<Tensor(const TensorList&)>;

Tensor leaf(const Shape& shape, double shift, DType dtype = DType::f64) {
  const NoGrad off;
  const Tensor values(Array::arange(shape.numel(), DType::f64).view(shape));
  return Tensor(sin(values * 1.7 + shift).array().to(dtype), true);
}

Tensor weighted(const Tensor& y) {
  const NoGrad off;
  const Tensor weights(Array::arange(y.numel(), DType::f64).view(y.shape()));
  return Tensor((cos(weights) + 2).array().to(y.dtype()));
}

Tensor loss_of(const Tensor& y) {
  return sum(y * weighted(y));
}

// Σ of the gradients of as many copies of `values` as the op has inputs.
Numbers expected(const Op& op, const Tensor& values, size_t inputs) {
  TensorList copies;
  for (size_t i = 0; i < inputs; ++i) copies.emplace_back(values.array().clone(), true);
  Numbers total(static_cast<size_t>(values.numel()), 0.0);
  for (const Tensor& gradient : grad({loss_of(op(copies))}, copies)) {
    const Numbers part = gradient.to_vector<double>();
    for (size_t i = 0; i < total.size(); ++i) total[i] += part[i];
  }
  return total;
}

void check_near(const Array& gradient, const Numbers& expected, double tolerance = 1e-12) {
  REQUIRE(gradient.defined());
  CHECK_THAT(gradient.to_vector<double>(), Catch::Matchers::Approx(expected).margin(tolerance));
}

void check_repeated(const Op& op, const Tensor& x, size_t inputs, double tolerance = 1e-12) {
  const Numbers once = expected(op, x, inputs);
  Numbers twice = once;
  for (double& value : twice) value *= 2;

  const TensorList same(inputs, x);
  SECTION("a leaf, over two passes") {
    const Tensor loss = loss_of(op(same));
    loss.backward({.retain_graph = true});
    check_near(x.grad(), once, tolerance);
    loss.backward();
    check_near(x.grad(), twice, tolerance);
  }
  SECTION("a leaf with a bound gradient") {
    const Array buffer = Array::full(x.shape(), -7, x.dtype());
    x.bind_grad(buffer);
    loss_of(op(same)).backward();
    check_near(buffer, once, tolerance);
    loss_of(op(same)).backward();
    check_near(buffer, twice, tolerance);
  }
  SECTION("an inner tensor") {
    const Tensor inner = x * 1.0;
    inner.retain_grad();
    loss_of(op(TensorList(inputs, inner))).backward();
    check_near(inner.grad(), once, tolerance);
    check_near(x.grad(), once, tolerance);
  }
  SECTION("grad()") {
    check_near(grad({loss_of(op(same))}, {x})[0].array(), once, tolerance);
    CHECK_FALSE(x.grad().defined());
  }
  SECTION("a hook sees the sum") {
    int calls = 0;
    x.register_hook([&](const Array& gradient) {
      ++calls;
      check_near(gradient, once, tolerance);
      return Array();
    });
    loss_of(op(same)).backward();
    CHECK(calls == 1);
  }
  SECTION("inside and across recompute") {
    const auto segment = [&](const TensorList& in) -> TensorList { return {op(in)}; };
    loss_of(recompute(segment, same)[0]).backward();
    check_near(x.grad(), once, tolerance);
    x.zero_grad();
    const auto captured = [&](const TensorList&) -> TensorList { return {op(same)}; };
    loss_of(recompute(captured, {})[0]).backward();
    check_near(x.grad(), once, tolerance);
  }
  SECTION("beside another use") {
    (loss_of(op(same)) + sum(x)).backward();
    Numbers with_ones = once;
    for (double& value : with_ones) value += 1;
    check_near(x.grad(), with_ones, tolerance);
  }
}

}  // namespace

TEST_CASE("linear_joint sums the gradient of a weight that it has twice", "[tape]") {
  const Tensor x = leaf({4, 3}, 1).detach();
  check_repeated(
      [&](const TensorList& in) {
        return linear_joint(x, {in[0], in[1]});
      },
      leaf({2, 3}, 2), 2);
}

TEST_CASE("linear_joint sums the gradient of a weight that it has three times", "[tape]") {
  const Tensor x = leaf({4, 3}, 1).detach();
  check_repeated(
      [&](const TensorList& in) {
        return linear_joint(x, {in[0], in[1], in[2]});
      },
      leaf({2, 3}, 2), 3);
}

TEST_CASE("swiglu_mlp sums the gradient of a weight that is gate and up", "[tape]") {
  const Tensor x = leaf({4, 3}, 1).detach(), down = leaf({5, 2}, 3).detach();
  check_repeated([&](const TensorList& in) { return swiglu_mlp(x, in[0], in[1], down); },
                 leaf({2, 3}, 2), 2);
}

TEST_CASE("layer_norm sums the gradient of a weight that is its bias", "[tape]") {
  const Tensor x = leaf({4, 3}, 1).detach();
  check_repeated([&](const TensorList& in) { return layer_norm(x, in[0], in[1]); }, leaf({3}, 2),
                 2);
}

TEST_CASE("linear sums the gradient of an input that is its weight", "[tape]") {
  check_repeated([](const TensorList& in) { return linear(in[0], in[1]); }, leaf({3, 3}, 2), 2);
}

TEST_CASE("conv2d sums the gradient of an image that is its weight", "[tape]") {
  check_repeated([](const TensorList& in) { return conv2d(in[0], in[1]); }, leaf({2, 2, 3, 3}, 2),
                 2);
}

TEST_CASE("add_layer_norm sums the gradient of a residual that is its input", "[tape]") {
  const Tensor weight = leaf({3}, 1).detach();
  check_repeated(
      [&](const TensorList& in) {
        const auto [stream, y] = add_layer_norm(in[0], in[1], weight, weight);
        return stream + y;
      },
      leaf({4, 3}, 2), 2);
}

TEST_CASE("attention sums the gradient of queries that are keys and values", "[tape]") {
  check_repeated(
      [](const TensorList& in) { return scaled_dot_product_attention(in[0], in[1], in[2]); },
      leaf({1, 2, 3, 4}, 2), 3);
}

TEST_CASE("an f16 weight that is there twice gets the sum", "[tape]") {
  const Tensor x = leaf({4, 3}, 1, DType::f16).detach();
  // Two roundings to f16 of values below 8.
  check_repeated(
      [&](const TensorList& in) {
        return linear_joint(x, {in[0], in[1]});
      },
      leaf({2, 3}, 2, DType::f16), 2, 0.02);
}

TEST_CASE("a fused function of the user's own may get one tensor three times", "[tape]") {
  // y = a·b·c, written slot by slot in the three ways there are.
  const auto op = [](const TensorList& in) {
    const Array a = in[0].array(), b = in[1].array(), c = in[2].array();
    const auto times = [](const Array& p, const Array& q) {
      const NoGrad off;
      return (Tensor(p) * Tensor(q)).array();
    };
    return record("triple", {in[0], in[1], in[2]}, times(a, times(b, c)), [=](Backward& backward) {
      const Array dy = backward.grad();
      const auto first = backward.slot(0).open();
      const auto second = backward.slot(1).open();
      for (const auto& [to, value] :
           {std::pair(first, times(dy, times(b, c))), std::pair(second, times(dy, times(a, c)))}) {
        if (!to) continue;
        to.array.copy_from(to.beta == 0 ? value : (Tensor(to.array) + Tensor(value)).array());
      }
      backward.slot(2).add(times(dy, times(a, b)));
    });
  };
  check_repeated(op, leaf({5}, 2), 3);
}

TEST_CASE("an input that is there twice keeps the column sums right", "[tape]") {
  // The bias of a layer asks for the sums of a gradient that reaches it by two inputs of one norm.
  const Tensor x = leaf({4, 3}, 0).detach(), weight = leaf({3, 3}, 1).detach();
  const Tensor gamma = leaf({3}, 2).detach();
  const auto bias_gradient = [&](bool apart) {
    const Tensor bias = leaf({3}, 3);
    const Tensor y = linear(x, weight, bias);
    const auto [stream, normed] = add_layer_norm(y, apart ? y * 1.0 : y, gamma, gamma);
    return grad({loss_of(stream * normed)}, {bias})[0].to_vector<double>();
  };
  CHECK_THAT(bias_gradient(false), Catch::Matchers::Approx(bias_gradient(true)).margin(1e-12));
}

TEST_CASE("an observer sees the gradient of every slot, written or not", "[tape]") {
  struct Watcher : OpObserver {
    std::vector<Array> seen;
    void on_forward(const char*, const TensorList&, const std::vector<Array>&) override {}
    void on_backward(const char* name, const std::vector<Array>&,
                     const std::vector<Array>& dinputs) override {
      if (std::string(name) == "partial") seen = dinputs;
    }
  } watcher;
  const Tensor x = leaf({2}, 0), bound = leaf({2}, 1);
  bound.bind_grad(Array::full({2}, 1e300, DType::f64));  // nothing of this backward
  const Tensor y = record("partial", {x, x, bound}, x.array().clone(), [](Backward& backward) {
    backward.slot(0).add(Array::full({2}, 1, DType::f64));
    backward.slot(1).add(Array::full({2}, 2, DType::f64));
  });
  OpObserver* before = exchange_op_observer(&watcher);
  sum(y).backward();
  exchange_op_observer(before);
  REQUIRE(watcher.seen.size() == 3);
  CHECK(watcher.seen[1].to_vector<double>() == Numbers{2, 2});
  CHECK_FALSE(watcher.seen[2].defined());
  CHECK(x.grad().to_vector<double>() == Numbers{3, 3});
}
