// Whole sequences in f32 (core/kernels/cpu/recurrent/sequence.cpp) beside f64, which goes step by
// step.
#include <omp.h>
#include <catch2/catch.hpp>

#include <cmath>

#include <binade/autograd/ops.h>

using namespace binade;

namespace {

struct Case {
  int64_t batch, steps, width;
};
// Fewer rows than a task takes, several tasks, and a width of several steps along k.
const Case kCases[] = {{1, 3, 5}, {7, 4, 16}, {37, 5, 70}, {70, 2, 520}};

// Results and gradients of gru or lstm, in an order of their own.
std::vector<std::vector<double>> run(bool is_gru, const Case& c, DType dtype,
                                     bool with_first = true) {
  const int64_t gates = (is_gru ? 3 : 4) * c.width;
  uint64_t place = 0;
  const auto draw = [&](const Shape& shape, double scale, bool wants_gradient = true) {
    std::vector<double> values(static_cast<size_t>(shape.numel()));
    for (double& value : values)
      value = scale * std::sin(12.9898 * static_cast<double>(++place % 7919) * 78.233);
    return Tensor(Array::from(values, shape).to(dtype), wants_gradient);
  };
  const Tensor x = draw({c.batch, c.steps, gates}, 0.5);
  const Tensor weight = draw({gates, c.width}, 1 / std::sqrt(static_cast<double>(c.width)));
  const Tensor bias = draw({gates}, 0.3), first = draw({c.batch, c.width}, 0.5, with_first);
  const Tensor cell = draw({c.batch, c.width}, 0.5), seed = draw({c.batch, c.steps, c.width}, 1);
  TensorList inputs = {x, weight, bias};
  if (with_first) inputs.push_back(first);
  TensorList results;
  if (is_gru) {
    results = {gru(x, weight, bias, first)};
  } else {
    const auto [states, last] = lstm(x, weight, bias, first, cell);
    results = {states, last};
    inputs.push_back(cell);
  }
  Tensor loss = sum(results[0] * seed);
  if (!is_gru) loss = loss + sum(results[1]);
  std::vector<std::vector<double>> all;
  for (const Tensor& result : results) all.push_back(result.to_vector<double>());
  for (const Tensor& gradient : grad({loss}, inputs)) all.push_back(gradient.to_vector<double>());
  return all;
}

}  // namespace

TEST_CASE("recurrent layers over whole sequences equal single steps in f64", "[recurrent]") {
  const Case c = GENERATE(from_range(std::begin(kCases), std::end(kCases)));
  const bool is_gru = GENERATE(true, false), with_first = GENERATE(true, false);
  CAPTURE(c.batch, c.width, is_gru, with_first);
  const auto ours = run(is_gru, c, DType::f32, with_first);
  const auto exact = run(is_gru, c, DType::f64, with_first);
  REQUIRE(ours.size() == exact.size());
  for (size_t i = 0; i < ours.size(); ++i) {
    CAPTURE(i);
    double worst = 0, largest = 0;
    for (size_t j = 0; j < ours[i].size(); ++j) {
      worst = std::max(worst, std::fabs(ours[i][j] - exact[i][j]));
      largest = std::max(largest, std::fabs(exact[i][j]));
    }
    CHECK(worst <= 1e-5 * largest);  // sums of some hundred f32 terms
  }
}

TEST_CASE("recurrent layers give the same bits on any number of threads", "[recurrent]") {
  const Case c = GENERATE(from_range(std::begin(kCases), std::end(kCases)));
  const bool is_gru = GENERATE(true, false);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto alone = run(is_gru, c, DType::f32);
  omp_set_num_threads(3);
  const auto together = run(is_gru, c, DType::f32);
  omp_set_num_threads(threads);
  CHECK(alone == together);
}
