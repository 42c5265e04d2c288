// Tensor hooks, with the semantics of PyTorch's.
#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "leaves.h"

using namespace binade;
using Catch::Matchers::Contains;
using test::leaf, test::numbers, test::Numbers;

namespace {

Array doubled(const Array& gradient) {
  return (Tensor(gradient) * 2.0).array();
}

// What a hook was called with, call by call.
struct Seen {
  std::vector<Numbers> gradients;
  std::function<Array(const Array&)> hook() {
    return [this](const Array& gradient) {
      gradients.push_back(numbers(gradient));
      return Array();
    };
  }
};

}  // namespace

TEST_CASE("a leaf hook sees the gradient of this backward only", "[tape]") {
  const Tensor x = leaf({1});
  Seen seen;
  SECTION("of a leaf with a gradient of its own") {
    x.register_hook(doubled);
    x.register_hook(seen.hook());
    sum(x).backward();
    sum(x).backward();
    CHECK(numbers(x.grad()) == Numbers{4});  // 1·2 + 1·2
  }
  SECTION("of a leaf with a bound gradient") {
    const Array buffer = Array::full({1}, 50, DType::f64);
    x.bind_grad(buffer);
    x.register_hook(doubled);
    x.register_hook(seen.hook());
    sum(x).backward();
    CHECK(numbers(buffer) == Numbers{2});
    sum(x).backward();
    CHECK(numbers(buffer) == Numbers{4});
    CHECK(x.grad().shares_storage(buffer));
  }
  SECTION("that came before the hook") {
    sum(x * 10).backward();
    x.register_hook(doubled);
    x.register_hook(seen.hook());
    sum(x).backward();
    sum(x).backward();
    CHECK(numbers(x.grad()) == Numbers{14});
  }
  SECTION("under recompute") {
    x.register_hook(doubled);
    x.register_hook(seen.hook());
    const auto segment = [&](const TensorList&) -> TensorList { return {sum(x)}; };
    recompute(segment, {})[0].backward();
    recompute(segment, {})[0].backward();
    CHECK(numbers(x.grad()) == Numbers{4});
  }
  CHECK(seen.gradients == std::vector<Numbers>{{2}, {2}});
}

TEST_CASE("a leaf hook is called once with the sum of all uses", "[tape]") {
  const Tensor x = leaf({3});
  Seen seen;
  x.register_hook(seen.hook());
  const auto segment = [&](const TensorList& in) -> TensorList { return {in[0] * x}; };
  sum(x + recompute(segment, {x * 2})[0] + x * x).backward();
  // d/dx (x + 2x² + x²) = 1 + 6x.
  CHECK(seen.gradients == std::vector<Numbers>{{19}});
  CHECK(numbers(x.grad()) == Numbers{19});
}

TEST_CASE("the hook of a tensor that keeps its gradient sees this backward only", "[tape]") {
  const Tensor x = leaf({1});
  const Tensor y = x * 3;
  y.retain_grad();
  Seen seen;
  y.register_hook(doubled);
  y.register_hook(seen.hook());
  const Tensor z = sum(y);
  z.backward({.retain_graph = true});
  z.backward();
  CHECK(seen.gradients == std::vector<Numbers>{{2}, {2}});
  CHECK(numbers(y.grad()) == Numbers{4});
  CHECK(numbers(x.grad()) == Numbers{12});
}

TEST_CASE("grad() calls the hooks of what it collects and no others", "[tape]") {
  const Tensor x = leaf({1}), other = leaf({1});
  const Tensor y = x * 3;
  Seen of_other;
  sum(x * 100).backward();
  x.register_hook(doubled);
  y.register_hook(doubled);
  other.register_hook(of_other.hook());
  const TensorList found = grad({sum(y + other)}, {x, y});
  CHECK(numbers(found[0].array()) == Numbers{12});
  CHECK(numbers(found[1].array()) == Numbers{2});
  CHECK(of_other.gradients.empty());
  CHECK(numbers(x.grad()) == Numbers{100});
}

TEST_CASE("the hook of an inner tensor outlives its handle", "[tape]") {
  const Tensor x = leaf({1});
  Seen seen;
  const auto loss = [&] {
    const Tensor y = x * 3;
    y.register_hook(seen.hook());
    return sum(y + 1);  // keeps nothing of y
  }();
  loss.backward();
  CHECK(seen.gradients == std::vector<Numbers>{{1}});
}

TEST_CASE("hooks may be removed and registered while hooks run", "[tape]") {
  const Tensor x = leaf({1});
  std::vector<int> calls;
  std::function<void()> remove_first, remove_second;
  const auto note = [&calls](int which) {
    calls.push_back(which);
    return Array();
  };
  remove_first = x.register_hook([&](const Array&) {
    remove_first();  // itself
    remove_second();
    x.register_hook([&](const Array&) { return note(3); });
    return note(1);
  });
  remove_second = x.register_hook([&](const Array&) { return note(2); });
  sum(x).backward();
  CHECK(calls == std::vector<int>{1, 2});
  sum(x).backward();
  CHECK(calls == std::vector<int>{1, 2, 3});
  remove_first();  // again, to no effect
  CHECK(numbers(x.grad()) == Numbers{2});
}

TEST_CASE("hooks run in order and each gets what the one before left", "[tape]") {
  const Tensor x = leaf({1});
  x.register_hook(doubled);
  x.register_hook([](const Array& gradient) { return (Tensor(gradient) + 1.0).array(); });
  x.register_hook(doubled);
  sum(x).backward();
  CHECK(numbers(x.grad()) == Numbers{6});
}

TEST_CASE("a hook that keeps or writes its gradient changes no other", "[tape]") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor x = a * 1.0, y = b * 1.0;
  const Tensor seed = Tensor::from(Numbers{5, 6}, {2});
  Array kept;
  x.register_hook([](const Array& gradient) {
    gradient.fill(0);
    return Array();
  });
  b.register_hook([&](const Array& gradient) {
    kept = gradient;
    return gradient;
  });
  (x + y).backward(seed);
  CHECK(numbers(a.grad()) == Numbers{0, 0});
  CHECK(numbers(b.grad()) == Numbers{5, 6});
  CHECK(numbers(seed.array()) == Numbers{5, 6});
  kept.fill(-1);
  CHECK(numbers(b.grad()) == Numbers{5, 6});
}

TEST_CASE("what a hook returns is not kept itself", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Array mine = Array::full({2}, 3, DType::f64);
  x.register_hook([&](const Array&) { return mine; });
  sum(x).backward();
  sum(x).backward();
  CHECK(numbers(mine) == Numbers{3, 3});
  CHECK(numbers(x.grad()) == Numbers{6, 6});
  x.zero_grad();
  sum(x).backward();
  x.grad().fill(0);
  CHECK(numbers(mine) == Numbers{3, 3});
}

TEST_CASE("a hook is not called where no gradient arrives", "[tape]") {
  const Tensor x = leaf({1}), unreached = leaf({1});
  Seen seen;
  unreached.register_hook(seen.hook());
  const Tensor y = record("partial", {x, unreached}, x.array().clone(), [](Backward& backward) {
    backward.slot(0).add(backward.grad().clone());
  });
  sum(y).backward();
  CHECK(seen.gradients.empty());
  CHECK_FALSE(unreached.grad().defined());
}

TEST_CASE("a hook may run backward and zero gradients", "[tape]") {
  const Tensor x = leaf({1}), w = leaf({2});
  x.register_hook([&](const Array&) {
    CHECK_FALSE(grad_enabled());
    const EnableGrad on;
    sum(w * 5).backward();
    x.zero_grad();
    return Array();
  });
  sum(x * 7).backward();
  sum(x * w).backward();
  CHECK(numbers(x.grad()) == Numbers{2});  // of the second backward alone
  CHECK(numbers(w.grad()) == Numbers{5 + 1 + 5});
}

TEST_CASE("an empty hook and a hook on another device's shape are refused", "[tape]") {
  const Tensor x = leaf({1});
  CHECK_THROWS_WITH(x.register_hook(nullptr), Contains("register_hook"));
  CHECK_THROWS_WITH(x.detach().register_hook(doubled), Contains("requires a gradient"));
  x.register_hook([](const Array&) { return Array::zeros({1}, DType::f32); });
  CHECK_THROWS_WITH(sum(x).backward(), Contains("a hook returned") && Contains("f32"));
}

TEST_CASE("create_graph gradients pass by hooks that only look", "[tape]") {
  const Tensor x = leaf({2});
  Seen seen;
  x.register_hook(seen.hook());
  sum(x * x * x).backward({.create_graph = true});
  CHECK(seen.gradients == std::vector<Numbers>{{12}});
  CHECK(grad({sum(x.grad_tensor())}, {x})[0].item() == 12);
  x.zero_grad();
}
