// Gradients that are handed out: contiguous, and in memory that nobody else sees.
#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "leaves.h"

using namespace binade;
using test::leaf, test::numbers, test::Numbers;

namespace {

// y = Σ inputs in value, with gradients that are one and the same array, made by `gradient`.
Tensor with_gradient(const TensorList& inputs, std::function<Array(const Array& dy)> gradient) {
  return record("with_gradient", inputs, {inputs[0].array().clone()},
                FusedBackward([=, count = inputs.size()](Backward& backward) {
                  const Array one = gradient(backward.grad());
                  for (size_t i = 0; i < count; ++i) backward.slot(static_cast<int>(i)).add(one);
                }))[0];
}

// Writing into one of them leaves the others as they are.
void check_apart(const std::vector<Array>& arrays) {
  for (size_t i = 0; i < arrays.size(); ++i) {
    REQUIRE(arrays[i].defined());
    CHECK(arrays[i].is_contiguous());
    std::vector<Numbers> before;
    for (const Array& array : arrays) before.push_back(numbers(array));
    arrays[i].fill(-1000.0 - static_cast<double>(i));
    for (size_t k = 0; k < arrays.size(); ++k)
      if (k != i) CHECK(numbers(arrays[k]) == before[k]);
  }
}

}  // namespace

TEST_CASE("kept gradients share memory neither with each other nor with the seed", "[tape]") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor seed = Tensor::from(Numbers{5, 6}, {2});
  SECTION("of leaves") {
    (a + b).backward(seed);
    CHECK(numbers(a.grad()) == Numbers{5, 6});
    CHECK(numbers(b.grad()) == Numbers{5, 6});
    check_apart({a.grad(), b.grad(), seed.array()});
  }
  SECTION("of a leaf that is the result itself") {
    a.backward(seed);
    check_apart({a.grad(), seed.array()});
  }
  SECTION("of inner tensors") {
    const Tensor x = a * 2, y = b * 3, z = x + y;
    for (const Tensor& inner : {x, y, z}) inner.retain_grad();
    z.backward(seed);
    check_apart({x.grad(), y.grad(), z.grad(), a.grad(), b.grad(), seed.array()});
  }
  SECTION("of grad()") {
    const Tensor z = a + b;
    const TensorList found = grad({z}, {a, b, z, a}, {seed}, {.retain_graph = true});
    std::vector<Array> arrays = {seed.array()};
    for (const Tensor& gradient : found) arrays.push_back(gradient.array());
    check_apart(arrays);
    CHECK_FALSE(a.grad().defined());
  }
  SECTION("with create_graph") {
    (a + b).backward(seed, {.create_graph = true});
    check_apart({a.grad(), b.grad(), seed.array()});
    const TensorList found = grad({a + b}, {a, b}, {seed}, {.create_graph = true});
    check_apart({found[0].array(), found[1].array(), seed.array(), a.grad()});
  }
  SECTION("of a bound gradient made with create_graph") {
    const Array buffer = Array::zeros({2}, DType::f64);
    a.bind_grad(buffer);
    (a + b).backward(seed, {.create_graph = true});
    CHECK(a.grad().shares_storage(buffer));
    check_apart({buffer, b.grad(), seed.array(), a.grad_tensor().array()});
  }
  SECTION("of a fused function that gives one array to all") {
    const Array own = Array::full({2}, 7, DType::f64);
    with_gradient({a, b}, [own](const Array&) { return own; }).backward(seed);
    check_apart({a.grad(), b.grad(), own});
  }
  SECTION("of memory of somebody else's") {
    Numbers memory = {1, 2};
    with_gradient({a}, [&](const Array&) {
      return Array::from_blob(memory.data(), {2}, DType::f64);
    }).backward(seed);
    a.grad().fill(9);
    CHECK(memory == Numbers{1, 2});
  }
}

TEST_CASE("a gradient of foreign memory is not added to in place", "[tape]") {
  const Tensor a = leaf({1, 2});
  Numbers memory = {1, 2};
  const Tensor blob = with_gradient(
      {a}, [&](const Array&) { return Array::from_blob(memory.data(), {2}, DType::f64); });
  // The blob's op was recorded last, so its gradient comes first and the other is added to it.
  const Tensor early = a * 3;
  (void)early;
  const Tensor first = a * 2;
  const Tensor last = with_gradient(
      {a}, [&](const Array&) { return Array::from_blob(memory.data(), {2}, DType::f64); });
  sum(first + last + blob).backward();
  CHECK(memory == Numbers{1, 2});
  CHECK(numbers(a.grad()) == Numbers{4, 6});
}

TEST_CASE("kept gradients are contiguous whatever the op made", "[tape]") {
  const Tensor x(Array::arange(6, DType::f64).view({2, 3}), true);
  SECTION("expanded by a sum") {
    sum(x).backward();
    REQUIRE(x.grad().is_contiguous());
    x.grad().slice(0, 0, 1).fill(5);
    CHECK(numbers(x.grad()) == Numbers{5, 5, 5, 1, 1, 1});
    CHECK(grad({sum(x)}, {x})[0].array().is_contiguous());
  }
  SECTION("of a transposed view") {
    const Tensor weights = Tensor(Array::arange(6, DType::f64).view({3, 2}));
    sum(transpose(x, 0, 1) * weights).backward();
    CHECK(x.grad().is_contiguous());
    CHECK(numbers(x.grad()) == Numbers{0, 2, 4, 1, 3, 5});
  }
}

TEST_CASE("what nobody else holds is kept without a copy", "[tape]") {
  const Tensor x = leaf({1, 2, 3});
  const void* made = nullptr;
  const auto fresh = [&](const Array&) {
    const Array gradient = Array::full({3}, 4, DType::f64);
    made = gradient.data();
    return gradient;
  };
  const Tensor y = with_gradient({x}, fresh);
  SECTION("by a leaf") {
    sum(y).backward();
    CHECK(x.grad().data() == made);
  }
  SECTION("by grad()") {
    CHECK(grad({sum(y)}, {x})[0].array().data() == made);
  }
  SECTION("by a leaf with a hook") {
    x.register_hook([](const Array&) { return Array(); });
    sum(y).backward();
    CHECK(x.grad().data() == made);
  }
  SECTION("by an inner tensor") {
    const Tensor inner = x * 1.0;
    inner.retain_grad();
    sum(with_gradient({inner}, fresh)).backward();
    CHECK(inner.grad().data() == made);
  }
  SECTION("by a bound buffer, which takes no memory at all") {
    const Array buffer = Array::zeros({3}, DType::f64);
    x.bind_grad(buffer);
    const Tensor written = record("opens", {x}, x.array().clone(), [&](Backward& backward) {
      made = backward.slot(0).open().array.data();
      backward.slot(0).open().array.fill(2);
    });
    sum(written).backward();
    CHECK(made == buffer.data());
  }
}

TEST_CASE("a walk copies no gradient that lies in bound buffers", "[tape]") {
  const int64_t size = 1 << 16;
  const Tensor weight(Array::full({size, 1}, 1, DType::f32), true);
  weight.bind_grad(Array::zeros({size, 1}, DType::f32));
  const Tensor x = Tensor::ones({1, 1});
  const Tensor y = linear(x, weight);
  const Tensor seed = Tensor::ones(y.shape());
  reset_peak_memory(Device::cpu());
  const int64_t before = memory_stats(Device::cpu()).in_use;
  y.backward(seed);
  CHECK(memory_stats(Device::cpu()).peak_in_use - before < size * 4);
}

TEST_CASE("a bound gradient takes over what was there", "[tape]") {
  const Tensor x = leaf({1, 2});
  sum(x * 3).backward();
  const Array buffer = Array::full({2}, 100, DType::f64);
  x.bind_grad(buffer);
  CHECK(numbers(buffer) == Numbers{3, 3});
  sum(x * 2).backward();
  CHECK(numbers(buffer) == Numbers{5, 5});
  const Array other = Array::full({2}, 100, DType::f64);
  x.bind_grad(other);
  sum(x * 2).backward();
  CHECK(numbers(other) == Numbers{7, 7});
  CHECK(numbers(buffer) == Numbers{5, 5});
  CHECK_THROWS_WITH(x.bind_grad(Array::zeros({1}, DType::f64).expand({2})),
                    Catch::Contains("repeats"));
}

TEST_CASE("a value saved from a bound gradient notices the next backward", "[tape]") {
  const Tensor x = leaf({1, 2}), w = leaf({3, 4});
  x.bind_grad(Array::zeros({2}, DType::f64));
  sum(x * 2).backward();
  const Tensor y = sum(Tensor(x.grad()) * w);
  sum(x * 2).backward();
  CHECK_THROWS_WITH(y.backward(), Catch::Contains("changed in place"));
}

TEST_CASE("create_graph records sums under NoGrad, too", "[tape]") {
  const Tensor x = leaf({2});
  const Tensor y = sum(x * x * x);
  TensorList first;
  {
    const NoGrad off;
    first = grad({y}, {x}, {}, {.create_graph = true});
  }
  CHECK(grad({sum(first[0])}, {x})[0].item() == 12);
}

TEST_CASE("a leaf that no longer requires a gradient gets none", "[tape]") {
  Tensor x = leaf({1, 2}), w = leaf({3, 4});
  const Tensor y = sum(x * w);
  const Tensor rows(Array::full({2, 3}, 1, DType::f64), true);
  Tensor weight(Array::full({4, 3}, 1, DType::f64), true);
  Tensor bias(Array::full({4}, 1, DType::f64), true);
  const Tensor z = sum(linear(rows, weight, bias));
  for (Tensor* frozen : {&x, &weight, &bias}) frozen->set_requires_grad(false);
  y.backward();
  z.backward();
  CHECK_FALSE(x.grad().defined());
  CHECK_FALSE(weight.grad().defined());
  CHECK_FALSE(bias.grad().defined());
  CHECK(numbers(w.grad()) == Numbers{1, 2});
  CHECK(numbers(rows.grad()) == Numbers(6, 4));
}

TEST_CASE("a second backward through a freed graph changes no gradient on its way", "[tape]") {
  const Tensor x = leaf({1, 2});
  const Tensor y = sum(square(x));
  y.retain_grad();
  int calls = 0;
  y.backward();
  y.register_hook([&](const Array&) {
    ++calls;
    return Array();
  });
  CHECK_THROWS_WITH(y.backward(), Catch::Contains("retain_graph"));
  CHECK(calls == 0);
  CHECK(numbers(y.grad()) == Numbers{1});
  CHECK(numbers(x.grad()) == Numbers{2, 4});
}

TEST_CASE("a seed that does not fit its result is refused by name", "[tape]") {
  const Tensor y = leaf({1, 2}) * 2;
  CHECK_THROWS_WITH(y.backward(Tensor::ones({3}, DType::f64)), Catch::Contains("seed of (3)"));
  CHECK_THROWS_WITH(y.backward(Tensor::ones({2}, DType::f32)), Catch::Contains("f32"));
}
