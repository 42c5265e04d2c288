// That gradcheck finds what it is there to find.
#include <catch2/catch.hpp>

#include <binade/autograd/gradcheck.h>
#include <binade/autograd/ops.h>

using namespace binade;
using Catch::Matchers::Contains;

namespace {

Tensor leaf() {
  return Tensor(Array::from(std::vector<double>{0.5, 1, -1.5}, {3}), true);
}

// x² with a gradient that is wrong by the given factor in one element.
TensorList square_with(const TensorList& in, double factor) {
  return custom_function(
      "square_with", in, [](const TensorList& in) -> TensorList { return {square(in[0])}; },
      [factor](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
        const Tensor factors = Tensor::from(std::vector<double>{1, factor, 1}, {3});
        return {dy[0] * in[0] * 2 * factors};
      });
}

}  // namespace

TEST_CASE("gradcheck tells right gradients from wrong ones", "[gradcheck]") {
  CHECK(gradcheck([](const TensorList& in) { return square_with(in, 1); }, {leaf()}) == "");
  CHECK_THAT(gradcheck([](const TensorList& in) { return square_with(in, 1.001); }, {leaf()}),
             Contains("input 0, element 1") && Contains("finite difference"));
}

TEST_CASE("gradcheck notices a gradient that is cut", "[gradcheck]") {
  CHECK_THAT(gradcheck([](const TensorList& in) -> TensorList { return {in[0] * in[0].detach()}; },
                       {leaf()}),
             Contains("input 0"));
  CHECK_THAT(
      gradcheck([](const TensorList& in) -> TensorList { return {in[0].detach()}; }, {leaf()}),
      Contains("no output depends"));
}

TEST_CASE("gradcheck wants f64 and something to check", "[gradcheck]") {
  const auto identity = [](const TensorList& in) { return in; };
  CHECK_THROWS_WITH(gradcheck(identity, {Tensor(Array::zeros({2}, DType::f32), true)}),
                    Contains("f64"));
  CHECK_THROWS_WITH(gradcheck(identity, {leaf().detach()}), Contains("no input"));
}

TEST_CASE("gradgradcheck tells right second gradients from wrong ones", "[gradcheck]") {
  CHECK(gradgradcheck([](const TensorList& in) -> TensorList { return {exp(in[0]) * in[0]}; },
                      {leaf()}) == "");
  // The first gradient is right; written with a detached value, its own is not.
  const auto cut = [](const TensorList& in) {
    return custom_function(
        "cut", in, [](const TensorList& in) -> TensorList { return {square(in[0])}; },
        [](const TensorList& in, const TensorList&, const TensorList& dy) -> TensorList {
          return {dy[0] * in[0].detach() * 2};
        });
  };
  CHECK(gradcheck(cut, {leaf()}) == "");
  CHECK(gradgradcheck(cut, {leaf()}) != "");
}

TEST_CASE("a custom function's gradient may be written with its outputs", "[gradcheck]") {
  const auto exponential = [](const TensorList& in) {
    return custom_function(
        "exponential", in, [](const TensorList& in) -> TensorList { return {exp(in[0])}; },
        [](const TensorList&, const TensorList& out, const TensorList& dy) -> TensorList {
          return {dy[0] * out[0]};
        });
  };
  CHECK(gradcheck(exponential, {leaf()}) == "");
  CHECK(gradgradcheck(exponential, {leaf()}) == "");
}
