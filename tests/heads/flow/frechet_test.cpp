#include <catch2/catch.hpp>

#include <cmath>
#include <random>

#include <binade/core/error.h>
#include <examples/judge_bagel/frechet.h>

using namespace binade;

// Of independent coordinates the distance is Σ (μa − μb)² + (σa − σb)².
TEST_CASE("the Fréchet distance of Gaussians without correlation is known", "[judge]") {
  constexpr int64_t kRows = 20000;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const double means[2][3] = {{0, 1, -2}, {0.5, 1, 0}}, deviations[2][3] = {{1, 2, 0.5}, {1, 1, 1}};
  Array clouds[2];
  double want = 0;
  for (int side = 0; side < 2; ++side) {
    clouds[side] = Array::empty({kRows, 3}, DType::f32);
    for (int64_t i = 0; i < 3 * kRows; ++i)
      clouds[side].data<float>()[i] = static_cast<float>(means[side][i % 3]) +
                                      static_cast<float>(deviations[side][i % 3]) * normal(random);
  }
  for (int i = 0; i < 3; ++i)
    want +=
        std::pow(means[0][i] - means[1][i], 2) + std::pow(deviations[0][i] - deviations[1][i], 2);
  CHECK(examples::frechet_distance(clouds[0], clouds[1]) == Approx(want).epsilon(0.03));
  CHECK(examples::frechet_distance(clouds[0], clouds[0]) == Approx(0).margin(1e-9));
  CHECK_THROWS_WITH(examples::frechet_distance(clouds[0], clouds[1].slice(0, 0, 1)),
                    Catch::Contains("two rows at least"));
}
