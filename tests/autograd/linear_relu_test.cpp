// linear_relu beside linear and relu: the same values and gradients, and what else may see either.
#include <cmath>
#include <limits>

#include <catch2/catch.hpp>

#include <binade/core/kernels/relu_gradient.h>

#include "core/column_sums.h"
#include "core/cuda_repeat.h"
#include "gpu.h"
#include "leaves.h"

using namespace binade;
using namespace binade::test;

namespace {

Tensor linear_then_relu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return relu(linear(x, weight, bias));
}

struct Needed {
  bool x = true, weight = true, bias = true;
};

// The value and the gradients of x, weight and bias (none: empty) for a given gradient of y.
template <class Layer>
std::vector<Numbers> run(const Layer& layer, const Array& x_values, const Array& weight_values,
                         const Array& bias_values, const Array& dy, Needed needed = {}) {
  const Tensor x(x_values, needed.x), weight(weight_values, needed.weight);
  const Tensor bias = bias_values.defined() ? Tensor(bias_values, needed.bias) : Tensor();
  const Tensor y = layer(x, weight, bias);
  if (y.requires_grad()) y.backward(Tensor(dy));
  std::vector<Numbers> result = {y.to_vector<double>()};
  for (const Tensor& tensor : {x, weight, bias})
    result.push_back(tensor.defined() && tensor.requires_grad() ? numbers(tensor.grad())
                                                                : Numbers());
  return result;
}

// N, K, O: few rows, tiles, and what is packed.
const std::vector<Shape> kSizes = {{1, 5, 3}, {3, 64, 256}, {7, 33, 47}, {300, 40, 520}};

}  // namespace

TEST_CASE("linear_relu has the values and gradients of linear and then relu", "[linear_relu]") {
  Random random(1);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& size : kSizes)
      for (const bool biased : {true, false}) {
        const Array weight = random_array({size[2], size[1]}, dtype, random);
        const Array bias = biased ? random_array({size[2]}, dtype, random) : Array();
        const Array dy = random_array({size[0], size[2]}, dtype, random);
        for (const Array& x : layouts({size[0], size[1]}, dtype, random)) {
          INFO(dtype << ", size " << size << ", bias " << biased << ", strides " << x.strides());
          CHECK(run(linear_relu, x, weight, bias, dy) ==
                run(linear_then_relu, x, weight, bias, dy));
        }
      }
}

TEST_CASE("linear_relu gives every subset of its gradients", "[linear_relu]") {
  Random random(2);
  const Array x = random_array({9, 6}, DType::f32, random);
  const Array weight = random_array({5, 6}, DType::f32, random);
  const Array bias = random_array({5}, DType::f32, random);
  const Array dy = random_array({9, 5}, DType::f32, random);
  for (int bits = 0; bits < 8; ++bits) {
    const Needed needed{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    INFO("needed " << bits);
    CHECK(run(linear_relu, x, weight, bias, dy, needed) ==
          run(linear_then_relu, x, weight, bias, dy, needed));
  }
}

TEST_CASE("linear_relu has relu's gradient at 0, and keeps NaN", "[linear_relu]") {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const auto check_on = [&](Device device) {
    for (const DType dtype : kFloatingDTypes)
      for (const bool biased : {true, false}) {
        INFO(device << ", " << dtype << ", bias " << biased);
        const Tensor x = leaf({-1, 0, nan, 2, inf, -inf}, {6, 1}, dtype, device);
        const Tensor weight = leaf({1}, {1, 1}, dtype, device);
        const Tensor bias = biased ? leaf({0}, {1}, dtype, device) : Tensor();
        const Tensor y = linear_relu(x, weight, bias);
        const Numbers values = y.to_vector<double>();
        CHECK(std::isnan(values[2]));
        CHECK(Numbers{values[0], values[1], values[3], values[4], values[5]} ==
              Numbers{0, 0, 2, inf, 0});
        // What is masked does not show, not even where it overflowed.
        y.backward(Tensor(Array::from(Numbers{inf, nan, 3, 4, 5, 6}, {6, 1}).to(dtype).to(device)));
        CHECK(numbers(x.grad()) == Numbers{0, 0, 3, 4, 5, 0});
        if (biased) CHECK(bias.grad().item() == 12);
      }
  };
  check_on(Device());
  if (cuda_device_count() > 0) check_on(test_gpu());
}

TEST_CASE("linear_relu leaves alone what others see of its gradient", "[linear_relu]") {
  const auto make = [] { return leaf({1, -2, 3, -4}, {2, 2}); };
  const Tensor weight = leaf({1, 0, 0, 1}, {2, 2});
  const Numbers unmasked = {5, 6, 7, 8}, masked = {5, 0, 7, 0};
  const auto seed = [&] { return Tensor(Array::from(unmasked, {2, 2})); };

  Tensor x = make();
  Tensor y = linear_relu(x, weight);
  const Tensor given = seed();
  y.backward(given);
  CHECK(given.to_vector<double>() == unmasked);
  CHECK(numbers(x.grad()) == masked);

  x = make();
  y = linear_relu(x, weight);
  y.retain_grad();
  (y * seed()).backward(Tensor::ones({2, 2}, DType::f64));
  CHECK(numbers(y.grad()) == unmasked);
  CHECK(numbers(x.grad()) == masked);

  // The gradient also goes past it.
  x = make();
  const Tensor other = make();
  y = (linear_relu(x, weight) + other) * seed();
  sum(y).backward();
  CHECK(numbers(other.grad()) == unmasked);
  CHECK(numbers(x.grad()) == masked);

  // Twice over one graph, and of two users.
  x = make();
  y = linear_relu(x, weight);
  const Tensor total = sum(y * seed()) + sum(y);
  total.backward({.retain_graph = true});
  total.backward();
  CHECK(numbers(x.grad()) == Numbers{12, 0, 16, 0});
}

namespace {

// Three layers; the gradients of x, weights and biases, after `look` at the inner tensors.
template <class Layer, class Look>
std::vector<Numbers> stack_gradients(const Layer& layer, DType dtype, Device device,
                                     const Look& look) {
  Random random(5);
  const auto leaf_of = [&](const Shape& shape) {
    return Tensor(random_array(shape, dtype, random).to(device), true);
  };
  const Tensor x = leaf_of({3, 4, 16});
  TensorList leaves = {x};
  Tensor y = x;
  for (const int64_t width : {24, 40, 8}) {
    leaves.push_back(leaf_of({width, y.size(-1)}));
    leaves.push_back(leaf_of({width}));
    y = layer(y, leaves[leaves.size() - 2], leaves.back());
    look(y);
  }
  y.backward(Tensor(random_array(y.shape(), dtype, random).to(device)));
  std::vector<Numbers> gradients;
  for (const Tensor& tensor : leaves) gradients.push_back(numbers(tensor.grad()));
  return gradients;
}

}  // namespace

TEST_CASE("layers with relu on each other have the gradients of the ops one by one",
          "[linear_relu]") {
  for (const DType dtype : kFloatingDTypes) {
    INFO(dtype);
    const auto leave = [](const Tensor&) {};
    const std::vector<Numbers> expected = stack_gradients(linear_then_relu, dtype, Device(), leave);
    CHECK(stack_gradients(linear_relu, dtype, Device(), leave) == expected);
    // Nobody who looks at an inner gradient gets the masked one.
    const auto kept_gradients = [&](const auto& layer) {
      std::vector<Tensor> kept;
      stack_gradients(layer, dtype, Device(), [&](Tensor& y) {
        y.retain_grad();
        kept.push_back(y);
      });
      std::vector<Numbers> gradients;
      for (const Tensor& y : kept) gradients.push_back(numbers(y.grad()));
      return gradients;
    };
    CHECK(kept_gradients(linear_relu) == kept_gradients(linear_then_relu));
    const auto hooked_gradients = [&](const auto& layer) {
      std::vector<Numbers> gradients;
      stack_gradients(layer, dtype, Device(), [&](Tensor& y) {
        y.register_hook([&](const Array& gradient) {
          gradients.push_back(gradient.to_vector<double>());
          return Array();
        });
      });
      return gradients;
    };
    CHECK(hooked_gradients(linear_relu) == hooked_gradients(linear_then_relu));
  }
}

TEST_CASE("a layer with relu may have other users than the next layer", "[linear_relu]") {
  const auto run_with = [](const auto& layer, int which) {
    Random random(6);
    const auto leaf_of = [&](const Shape& shape) {
      return Tensor(random_array(shape, DType::f32, random), true);
    };
    const Tensor x = leaf_of({5, 6}), w1 = leaf_of({7, 6}), w2 = leaf_of({7, 7}),
                 w3 = leaf_of({7, 7}), bias = leaf_of({7});
    const Tensor y = layer(x, w1, bias);
    Tensor z;
    if (which == 0) z = layer(y, w2, bias) + layer(y, w3, bias);
    if (which == 1) z = y * layer(y, w2, bias);
    if (which == 2) z = layer(y, w2, bias) + y;
    if (which == 3) z = layer(y, Tensor(w2.array()), bias);  // a frozen layer saves no input
    if (which == 4) z = linear_joint(y, {w2, w3});
    if (which == 5) {  // the gradient of the inner tensor itself
      z = layer(y, w2, bias);
      return std::vector<Numbers>{grad({sum(z * z)}, {y})[0].to_vector<double>()};
    }
    sum(z * z).backward();
    std::vector<Numbers> gradients;
    for (const Tensor& tensor : {x, w1, bias}) gradients.push_back(numbers(tensor.grad()));
    return gradients;
  };
  for (int which = 0; which < 6; ++which) {
    INFO("case " << which);
    const auto got = run_with(linear_relu, which), expected = run_with(linear_then_relu, which);
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i)
      for (size_t j = 0; j < got[i].size(); ++j)
        CHECK(got[i][j] == Approx(expected[i][j]).epsilon(1e-5).margin(1e-5));
  }
}

TEST_CASE("layers with relu on each other agree on both devices", "[linear_relu][cuda]") {
  require_gpu();
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    INFO(dtype);
    const auto leave = [](const Tensor&) {};
    const auto cpu = stack_gradients(linear_relu, dtype, Device(), leave);
    const auto gpu = stack_gradients(linear_relu, dtype, test_gpu(), leave);
    for (size_t i = 0; i < cpu.size(); ++i) {
      double largest = 0, worst = 0;
      for (size_t j = 0; j < cpu[i].size(); ++j) {
        largest = std::max(largest, std::abs(cpu[i][j]));
        worst = std::max(worst, std::abs(cpu[i][j] - gpu[i][j]));
      }
      // A rounding or two of inner values, which three layers pass on.
      CHECK(worst <= 8 * epsilon_of(dtype) * largest);
    }
  }
}

TEST_CASE("recompute changes no bit of linear_relu", "[linear_relu][recompute]") {
  Random random(3);
  const Array x = random_array({9, 6}, DType::f16, random);
  const Array weight = random_array({5, 6}, DType::f16, random);
  const Array bias = random_array({5}, DType::f16, random);
  const Array dy = random_array({9, 5}, DType::f16, random);
  const auto again = [](const Tensor& a, const Tensor& b, const Tensor& c) {
    return recompute(
        [](const TensorList& in) -> TensorList { return {linear_relu(in[0], in[1], in[2])}; },
        {a, b, c})[0];
  };
  CHECK(run(linear_relu, x, weight, bias, dy) == run(again, x, weight, bias, dy));
}

TEST_CASE("linear_relu's gradient is summed as it is masked on the GPU", "[linear_relu][cuda]") {
  require_gpu();
  Random random(4);
  for (const DType dtype : kFloatingDTypes)
    for (const Shape& size :
         {Shape{1, 8}, Shape{40, 24}, Shape{1000, 256}, Shape{999, 1030}, Shape{64, 7}}) {
      INFO(dtype << ", " << size);
      const Array y = gpu_random(size, dtype, random), dy = gpu_random(size, dtype, random);
      const DType wide = dtype == DType::f64 ? DType::f64 : DType::f32;
      const Array dx = gpu_empty(size, dtype), sums = gpu_empty({size[1]}, wide);
      const auto work = [&] { BINADE_DISPATCH(y.device(), relu_gradient(y, dy, dx, sums)); };
      check_same_bits(work, {dx, sums});
      const Numbers kept = numbers(y), gradient = numbers(dy), got = numbers(dx);
      for (size_t i = 0; i < got.size(); ++i)
        if (got[i] != (kept[i] > 0 ? gradient[i] : 0)) FAIL("element " << i);
      CHECK(column_sum_error(on_device(sums, Device()), on_device(dx, Device())) <=
            8 * epsilon_of(wide));
      const Array in_place = dy.clone();
      BINADE_DISPATCH(y.device(), relu_gradient(y, in_place, in_place, sums));
      CHECK(numbers(in_place) == got);
    }
}
