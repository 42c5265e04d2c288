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
