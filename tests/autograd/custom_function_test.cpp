#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "leaves.h"

using namespace binade;
using Catch::Matchers::Contains;
using test::leaf, test::numbers, test::Numbers;

TEST_CASE("a custom function may return its input unchanged", "[custom-function]") {
  const Tensor x = leaf({1, 2});
  const Tensor y = custom_function(
      "identity", {x}, [](const TensorList& in) -> TensorList { return {in[0]}; },
      [](const TensorList&, const TensorList& out, const TensorList& dy) -> TensorList {
        CHECK(numbers(out[0].array()) == Numbers{1, 2});
        return {dy[0] * 10.0};
      })[0];
  CHECK(x.is_leaf());
  CHECK_FALSE(y.is_leaf());
  const Tensor seed = Tensor::from(Numbers{1, 3}, {2});
  (y + x).backward(seed);
  CHECK(numbers(x.grad()) == Numbers{11, 33});
  CHECK(numbers(seed.array()) == Numbers{1, 3});
}

TEST_CASE("the gradients that a custom function passes on unchanged are kept apart",
          "[custom-function]") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor y = custom_function(
      "both", {a, b}, [](const TensorList& in) -> TensorList { return {in[0] + in[1]}; },
      [](const TensorList&, const TensorList&, const TensorList& dy) -> TensorList {
        return {dy[0], dy[0]};
      })[0];
  const Tensor seed = Tensor::from(Numbers{1, 3}, {2});
  y.backward(seed);
  a.grad().fill(9);
  CHECK(numbers(b.grad()) == Numbers{1, 3});
  CHECK(numbers(seed.array()) == Numbers{1, 3});
}

TEST_CASE("a custom function gets one tensor twice and sums its gradient", "[custom-function]") {
  const Tensor x = leaf({3});
  const auto times = [](const Tensor& a, const Tensor& b) {
    return custom_function(
        "times", {a, b}, [](const TensorList& in) -> TensorList { return {in[0] * in[1]}; },
        [](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
          return {dy[0] * in[1], dy[0] * in[0]};
        })[0];
  };
  sum(times(x, x)).backward();
  CHECK(numbers(x.grad()) == Numbers{6});
  const Tensor first = grad({times(x, x)}, {x}, {}, {.create_graph = true})[0];
  CHECK(grad({first}, {x})[0].item() == 2);
}

TEST_CASE("a custom function may return one tensor twice", "[custom-function]") {
  const Tensor x = leaf({3});
  const TensorList both = custom_function(
      "pair", {x},
      [](const TensorList& in) -> TensorList {
        const Tensor y = in[0] * 2.0;
        return {y, y};
      },
      [](const TensorList&, const TensorList&, const TensorList& dy) -> TensorList {
        return {dy[0] * 2.0 + dy[1] * 20.0};
      });
  REQUIRE(both.size() == 2);
  sum(both[0] * 3 + both[1] + both[1]).backward();
  CHECK(numbers(x.grad()) == Numbers{6 + 40});
}

TEST_CASE("a custom function's backward gets zeros for an output that nothing reached",
          "[custom-function]") {
  const Tensor a = leaf({3, 5}), b = leaf({4, 6});
  const auto both = [&] {
    return custom_function(
        "sum_and_product", {a, b},
        [](const TensorList& in) -> TensorList {
          return {in[0] + in[1], in[0] * in[1]};
        },
        [](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
          return {dy[0] + dy[1] * in[1], dy[0] + dy[1] * in[0]};
        });
  };
  sum(both()[0]).backward();
  CHECK(numbers(a.grad()) == Numbers{1, 1});
  CHECK(numbers(b.grad()) == Numbers{1, 1});
  for (const Tensor& x : {a, b}) x.zero_grad();
  sum(both()[1]).backward();
  CHECK(numbers(a.grad()) == Numbers{4, 6});
  CHECK(numbers(b.grad()) == Numbers{3, 5});
}

TEST_CASE("a custom function may return indices beside values", "[custom-function]") {
  const Tensor x = leaf({5, 7});
  const TensorList out = custom_function(
      "with_index", {x},
      [](const TensorList& in) -> TensorList {
        return {Tensor::from(std::vector<int64_t>{1}, {1}), in[0] * 2.0};
      },
      [](const TensorList&, const TensorList& out, const TensorList& dy) -> TensorList {
        CHECK(out[0].dtype() == DType::i64);
        CHECK_FALSE(dy[0].defined());
        return {dy[1] * 2.0};
      });
  CHECK_FALSE(out[0].requires_grad());
  CHECK(out[1].requires_grad());
  sum(out[1]).backward();
  CHECK(numbers(x.grad()) == Numbers{2, 2});
}

TEST_CASE("a custom function may have no outputs and no inputs", "[custom-function]") {
  const Tensor x = leaf({5});
  bool ran = false;
  const auto nothing = [](const TensorList&, const TensorList&, const TensorList&) -> TensorList {
    return {};
  };
  CHECK(custom_function(
            "watch", {x},
            [&](const TensorList& in) -> TensorList {
              ran = in.size() == 1;
              return {};
            },
            nothing)
            .empty());
  CHECK(ran);
  const TensorList made = custom_function(
      "make", {}, [](const TensorList&) -> TensorList { return {Tensor::ones({2})}; }, nothing);
  REQUIRE(made.size() == 1);
  CHECK_FALSE(made[0].requires_grad());
}

TEST_CASE("a custom function takes undefined and empty inputs", "[custom-function]") {
  const Tensor x(Array::zeros({0, 3}, DType::f64), true);
  const Tensor y = custom_function(
      "optional", {x, {}},
      [](const TensorList& in) -> TensorList {
        CHECK_FALSE(in[1].defined());
        return {in[0] * 2.0};
      },
      [](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
        CHECK_FALSE(in[1].defined());
        return {dy[0] * 2.0, {}};
      })[0];
  CHECK(y.shape() == Shape{0, 3});
  sum(y).backward();
  CHECK(x.grad().shape() == Shape{0, 3});
}

TEST_CASE("a custom function without a function is refused when it is made", "[custom-function]") {
  const Tensor x = leaf({1});
  const CustomForward forward = [](const TensorList& in) -> TensorList { return in; };
  const CustomBackward backward = [](const TensorList&, const TensorList&, const TensorList& dy) {
    return dy;
  };
  CHECK_THROWS_WITH(custom_function("half", {x}, nullptr, backward),
                    Contains("custom function half") && Contains("both"));
  CHECK_THROWS_WITH(custom_function("half", {x}, forward, nullptr), Contains("both"));
  CHECK_THROWS_WITH(recompute(nullptr, {x}), Contains("recompute needs a function"));
}

TEST_CASE("what a custom function gets wrong is refused by name", "[custom-function]") {
  const Tensor x = leaf({5});
  const auto same = [](const TensorList& in) -> TensorList { return {in[0] * 1.0}; };
  const auto run = [&](const CustomForward& forward, const TensorList& gradients) {
    sum(custom_function("mine", {x}, forward,
                        [gradients](const TensorList&, const TensorList&, const TensorList&) {
                          return gradients;
                        })[0])
        .backward();
  };
  CHECK_THROWS_WITH(run([](const TensorList&) -> TensorList { return {Tensor()}; }, {}),
                    Contains("mine") && Contains("undefined"));
  CHECK_THROWS_WITH(run(same, {}), Contains("mine") && Contains("0 gradients for 1"));
  CHECK_THROWS_WITH(run(same, {x, x}), Contains("2 gradients for 1"));
  CHECK_THROWS_WITH(run(same, {Tensor::ones({1}, DType::f32)}), Contains("f32"));
  CHECK_FALSE(x.grad().defined());
  run(same, {Tensor()});  // none
  CHECK_FALSE(x.grad().defined());
}
