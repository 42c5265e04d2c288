// Clipping without a scaler, against the formula in f64.
#include <binade/optim/clip.h>

#include <catch2/catch.hpp>
#include <cmath>

#include <binade/optim/adamw.h>
#include <binade/optim/sgd.h>

#include "optim/parameters.h"

using namespace binade;
using namespace binade::test;
using Catch::Matchers::Contains;

namespace {

struct Net {
  explicit Net(const std::vector<float>& values) {
    weight = model.put<float>("weight", values, {static_cast<int64_t>(values.size())});
    sgd.emplace(model.group());
    sgd->set_learning_rate(0.5);
  }
  void give(const std::vector<float>& gradient) {
    sgd->zero_grad();
    give_gradient(weight, gradient);
  }
  std::vector<float> values() const { return weight->master().to_vector<float>(); }

  Parameters model;
  nn::ParameterPtr weight;
  std::optional<optim::Sgd> sgd;
};

}  // namespace

TEST_CASE("a clipped step takes gradients of the clipped norm", "[optim][clip]") {
  for (const double most : {0.0, 1.0, 13.0, 100.0}) {
    Net net({1, 2, 3});
    net.give({3, -4, 12});  // norm 13
    CHECK(optim::clipped_step(*net.sgd, most).item() == 13);
    const double factor = most > 0 ? std::min(1.0, most / (13 + 1e-6)) : 1;
    const std::vector<float> values = net.values();
    const double expected[] = {1 - 0.5 * 3 * factor, 2 + 0.5 * 4 * factor, 3 - 0.5 * 12 * factor};
    for (size_t i = 0; i < 3; ++i) CHECK(values[i] == Approx(expected[i]).epsilon(1e-6));
    CHECK(net.sgd->steps_done() == 1);
  }
}

TEST_CASE("each optimizer is clipped by itself, or several by their joint norm", "[optim][clip]") {
  Net a({0}), b({0});
  a.give({3});
  b.give({4});
  CHECK(optim::clipped_step({&*a.sgd, &*b.sgd}, 1).item() == 5);
  CHECK(a.values()[0] == Approx(-0.5 * 3 / 5.0));
  CHECK(b.values()[0] == Approx(-0.5 * 4 / 5.0));
  Net c({0}), d({0});
  c.give({3});
  d.give({4});
  CHECK(optim::clipped_step(*c.sgd, 1).item() == 3);
  CHECK(optim::clipped_step(*d.sgd, 2).item() == 4);
  CHECK(c.values()[0] == Approx(-0.5));
  CHECK(d.values()[0] == Approx(-1.0));
}

TEST_CASE("a clipped step skips gradients that are not finite", "[optim][clip]") {
  for (const float bad : {NAN, INFINITY}) {
    Net a({1, 2}), b({1});
    a.give({bad, 1});
    b.give({1});
    optim::clipped_step({&*a.sgd, &*b.sgd}, 1);
    CHECK(a.values() == std::vector<float>{1, 2});
    CHECK(b.values() == std::vector<float>{1});
    CHECK(a.sgd->steps_done() == 0);
  }
}

TEST_CASE("a clipped step refuses what is no step", "[optim][clip][errors]") {
  Net net({1});
  net.give({1});
  CHECK_THROWS_WITH(optim::clipped_step(*net.sgd, -1), Contains("0 or more"));
  CHECK_THROWS_WITH(optim::clipped_step(*net.sgd, NAN), Contains("0 or more"));
  CHECK_THROWS_WITH(optim::clipped_step({&*net.sgd, &*net.sgd}, 1), Contains("twice"));
  CHECK_THROWS_WITH(optim::clipped_step(std::vector<optim::Optimizer*>{}, 1),
                    Contains("without an optimizer"));
  CHECK_THROWS_WITH(optim::clipped_step({&*net.sgd, nullptr}, 1), Contains("without an optimizer"));
  net.sgd->zero_grad();
  CHECK_THROWS_WITH(optim::clipped_step(*net.sgd, 1), Contains("no gradient"));
  CHECK(net.values() == std::vector<float>{1});
}
