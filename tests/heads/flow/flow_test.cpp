#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <random>

#include <binade/autograd/ops.h>
#include <binade/heads/flow/flow.h>

using namespace binade;
using namespace binade::heads::flow;

namespace {

constexpr int64_t kImages = 2, kTokens = 3, kValues = 4;

Tensor random_velocity(std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<double> values(kImages * kTokens * kValues);
  for (double& value : values) value = normal(random);
  return Tensor::from(values, {kImages, kTokens, kValues});
}

double norm_of(const std::vector<double>& v, size_t begin, size_t count) {
  double sum = 0;
  for (size_t i = begin; i < begin + count; ++i) sum += v[i] * v[i];
  return std::sqrt(sum);
}

// g scaled, stretch by stretch, to at most the size of v.
void bring_back(std::vector<double>& g, const std::vector<double>& v, size_t stretch,
                double least) {
  for (size_t i = 0; i < g.size(); i += stretch) {
    const double factor =
        std::clamp(norm_of(v, i, stretch) / (norm_of(g, i, stretch) + 1e-8), least, 1.0);
    for (size_t j = i; j < i + stretch; ++j) g[j] *= factor;
  }
}

}  // namespace

TEST_CASE("guidance is BAGEL's algebra", "[flow]") {
  std::mt19937 random(1);
  const Tensor v = random_velocity(random), no_text = random_velocity(random),
               no_image = random_velocity(random);
  const auto a = v.to_vector<double>(), b = no_text.to_vector<double>(),
             c = no_image.to_vector<double>();
  const size_t token = kValues, image = kTokens * kValues;
  for (const Renorm renorm : {Renorm::none, Renorm::global, Renorm::channel, Renorm::text_channel})
    for (const bool images : {false, true})
      for (const double least : {0.0, 0.6}) {
        const Guidance guidance{
            .text_scale = 3, .image_scale = 1.7, .renorm = renorm, .least_renorm = least};
        std::vector<double> want(a.size());
        for (size_t i = 0; i < a.size(); ++i) want[i] = b[i] + 3 * (a[i] - b[i]);
        if (renorm == Renorm::text_channel) bring_back(want, a, token, least);
        if (images)
          for (size_t i = 0; i < a.size(); ++i) want[i] = c[i] + 1.7 * (want[i] - c[i]);
        if (renorm == Renorm::global) bring_back(want, a, image, least);
        if (renorm == Renorm::channel) bring_back(want, a, token, least);
        const auto got =
            guided(v, no_text, images ? no_image : Tensor(), guidance).to_vector<double>();
        for (size_t i = 0; i < a.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-12));
      }
}

TEST_CASE("guidance is on where its interval and its scale say so", "[flow]") {
  const Guidance usual;
  CHECK(usual.at(1));
  CHECK(usual.at(0.5));
  CHECK_FALSE(usual.at(0.4));
  CHECK_FALSE(Guidance{.text_scale = 1}.at(1));
  CHECK(parse_renorm("text_channel") == Renorm::text_channel);
  CHECK_THROWS_WITH(parse_renorm("local"), Catch::Contains("unknown renorm 'local'"));
}

TEST_CASE("times are shifted sigmoids, and those of clean latents exactly 0", "[flow]") {
  const double infinity = std::numeric_limits<double>::infinity();
  const Tensor u = Tensor::from(std::vector<double>{-infinity, -2, 0, 1.5}, {4});
  for (const double shift : {1.0, 4.0}) {
    const auto t = times_of(u, shift).to_vector<double>();
    CHECK(t[0] == 0);
    for (size_t i = 1; i < 4; ++i) {
      const double s = 1 / (1 + std::exp(-u.to_vector<double>()[i]));
      CHECK(t[i] == Approx(shift * s / (1 + (shift - 1) * s)));
    }
  }
}

TEST_CASE("drawings walk from noise to data in one step less than points", "[flow]") {
  const std::vector<double> times = drawing_times(50, 3);
  REQUIRE(times.size() == 50);
  CHECK(times.front() == 1);
  CHECK(times.back() == 0);
  CHECK(times[25] == Approx(3 * (24.0 / 49) / (1 + 2 * 24.0 / 49)));
  CHECK(std::is_sorted(times.rbegin(), times.rend()));
  CHECK_THROWS_WITH(drawing_times(1, 3), Catch::Contains("at least 2 points"));
  CHECK_THROWS_WITH(drawing_times(50, 0), Catch::Contains("positive"));
}
