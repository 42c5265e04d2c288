// The statistics of rows of logits, and the loss against a teacher, by brute force.
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/kernels/loss.h>

#include "core/kernel_arrays.h"

using namespace binade;
using namespace binade::kernels;
using namespace binade::test;

namespace {

struct RowOracle {
  double rank = 0, entropy = 0, overlap = 0, divergence = 0, surprise = 0;
  std::vector<double> q, p;

  RowOracle(const Array& logits, const Array& teacher, double temperature, int64_t row,
            int64_t classes, int64_t target) {
    q = softmax(logits, 1, row, classes);
    const double own = read(logits, row * logits.size(1) + target);
    for (int64_t v = 0; v < classes; ++v) {
      const double x = read(logits, row * logits.size(1) + v);
      rank += x > own || (x == own && v < target);
      entropy -= q[v] > 0 ? q[v] * std::log(q[v]) : 0;
    }
    surprise = -std::log(q[target]);
    if (!teacher.defined()) return;
    p = softmax(teacher, temperature, row, classes);
    for (size_t v = 0; v < p.size(); ++v) {
      overlap += std::min(p[v], q[v]);
      divergence += p[v] > 0 ? p[v] * std::log(p[v] / q[v]) : 0;
    }
  }
  static std::vector<double> softmax(const Array& x, double temperature, int64_t row,
                                     int64_t classes) {
    std::vector<double> e;
    double total = 0, largest = -INFINITY;
    for (int64_t v = 0; v < classes; ++v)
      largest = std::max(largest, read(x, row * x.size(1) + v) / temperature);
    for (int64_t v = 0; v < classes; ++v) {
      e.push_back(std::exp(read(x, row * x.size(1) + v) / temperature - largest));
      total += e.back();
    }
    for (double& value : e) value /= total;
    return e;
  }
};

// Logits with ties, as halves have them.
Array coarse_logits(const Shape& shape, DType dtype, Random& random) {
  const Array x = random_array(shape, DType::f64, random, 2);
  for (int64_t i = 0; i < x.numel(); ++i) write(x, i, std::round(read(x, i) * 4) / 4);
  return x.to(dtype);
}

}  // namespace

TEST_CASE("rows are counted beside their loss", "[kernels][cpu]") {
  Random random(11);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16})
    for (const int64_t classes : {1, 3, 50, 1003}) {
      INFO(name_of(dtype) << " classes " << classes);
      const int64_t rows = 21;
      const DType wide = dtype == DType::f64 ? dtype : DType::f32;
      const Array logits = coarse_logits({rows, classes + 5}, dtype, random);
      const Array targets = Array::empty({rows}, DType::i64);
      for (int64_t row = 0; row < rows; ++row)
        write(targets, row, row % 5 == 2 ? -100 : static_cast<double>(row * 7 % classes));
      const Array loss = Array::empty({rows}, wide), alone = Array::empty({rows}, wide);
      const Array counted = Array::full({rows, RowStatistics::kCount}, 7, wide);
      cpu::cross_entropy_with_gradient(logits, classes, targets, {}, {}, loss, {}, counted);
      cpu::cross_entropy_with_gradient(logits.clone(), classes, targets, {}, {}, alone,
                                       logits.clone());
      CHECK(loss.to_vector<double>() == alone.to_vector<double>());
      for (int64_t row = 0; row < rows; ++row) {
        const auto target = static_cast<int64_t>(read(targets, row));
        const auto value = [&](int64_t column) {
          return read(counted, row * RowStatistics::kCount + column);
        };
        if (target == -100) {
          for (int64_t i = 0; i < RowStatistics::kCount; ++i) CHECK(value(i) == 0);
          continue;
        }
        const RowOracle oracle(logits, {}, 1, row, classes, target);
        CHECK(value(RowStatistics::kValid) == 1);
        for (int64_t n = 0; n < RowStatistics::kHits; ++n)
          CHECK(value(RowStatistics::kFirstHit + n) == (oracle.rank <= static_cast<double>(n)));
        CHECK(value(RowStatistics::kEntropy) == Approx(oracle.entropy).epsilon(1e-5).margin(1e-6));
        CHECK(value(RowStatistics::kOverlap) == 0);
      }
    }
}

TEST_CASE("a row with NaN or infinite logits is counted as such", "[kernels][cpu]") {
  const auto count = [](std::vector<double> x, int64_t target) {
    const auto classes = static_cast<int64_t>(x.size());
    const Array logits = Array::from(x, {1, classes}).to(DType::f32);
    const Array loss = Array::empty({1}, DType::f32);
    const Array counted = Array::empty({1, RowStatistics::kCount}, DType::f32);
    cpu::cross_entropy_with_gradient(
        logits, classes, Array::from(std::vector<int64_t>{target}, {1}), {}, {}, loss, {}, counted);
    return counted.to_vector<double>();
  };
  // A NaN target is no hit, though there are but three classes; another NaN is ahead of all.
  for (int n = 0; n < 5; ++n) CHECK(count({1, NAN, 2}, 1)[RowStatistics::kFirstHit + n] == 0);
  CHECK(count({1, NAN, 2}, 2)[RowStatistics::kFirstHit] == 0);
  CHECK(count({1, NAN, 2}, 2)[RowStatistics::kFirstHit + 1] == 1);
  CHECK(std::isnan(count({1, NAN, 2}, 2)[RowStatistics::kEntropy]));
  // What has no probability has no part in the entropy.
  CHECK(count({0, -INFINITY, 0}, 0)[RowStatistics::kEntropy] == Approx(std::log(2)));
}

TEST_CASE("the loss against a teacher and its gradient are those of the formulas",
          "[kernels][cpu]") {
  Random random(12);
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::bf16})
    for (const int64_t classes : {1, 50, 1003})
      for (const double temperature : {1.0, 0.5}) {
        INFO(name_of(dtype) << " classes " << classes << " temperature " << temperature);
        const int64_t rows = 9;
        const DType wide = dtype == DType::f64 ? dtype : DType::f32;
        const Array logits = coarse_logits({rows, classes + 3}, dtype, random);
        const Array teacher = coarse_logits({rows, classes + 3}, dtype, random);
        const Array targets = Array::empty({rows}, DType::i32);
        for (int64_t row = 0; row < rows; ++row)
          write(targets, row, row == 4 ? -100 : static_cast<double>(row * 7 % classes));
        const DistillationParams params{-100, 0.5, 0.75, 0.25, temperature};
        const Array factor = Array::full({}, 8, wide), loss = Array::empty({rows}, wide);
        const Array counted = Array::empty({rows, RowStatistics::kCount}, wide);
        const Array gradient = logits.clone();
        cpu::distillation_with_gradient(gradient, teacher, classes, targets, params, factor, loss,
                                        gradient, counted);
        const double limit = 8 * epsilon_of(dtype) + 1e-12;
        for (int64_t row = 0; row < rows; ++row) {
          const auto target = static_cast<int64_t>(read(targets, row));
          const auto got = [&](int64_t v) { return read(gradient, row * (classes + 3) + v); };
          for (int64_t v = classes; v < classes + 3; ++v) CHECK(got(v) == 0);
          if (target == -100) {
            CHECK(read(loss, row) == 0);
            for (int64_t v = 0; v < classes; ++v) CHECK(got(v) == 0);
            continue;
          }
          const RowOracle oracle(logits, teacher, temperature, row, classes, target);
          CHECK(read(loss, row) ==
                Approx(0.5 * oracle.surprise + 0.75 * oracle.divergence - 0.25 * oracle.overlap)
                    .epsilon(1e-5)
                    .margin(1e-6));
          CHECK(read(counted, row * RowStatistics::kCount + RowStatistics::kOverlap) ==
                Approx(oracle.overlap).epsilon(1e-5));
          double below = 0;
          for (size_t v = 0; v < oracle.q.size(); ++v)
            below += oracle.q[v] < oracle.p[v] ? oracle.q[v] : 0;
          double worst = 0;
          for (int64_t v = 0; v < classes; ++v) {
            const double q = oracle.q[v], p = oracle.p[v];
            if (std::abs(q - p) < 1e-6 * p) continue;  // rounding decides which is below
            const double expected =
                0.5 * (q - (v == target)) + 0.75 * (q - p) + 0.25 * q * (below - (q < p));
            worst = std::max(worst, std::abs(got(v) - 8 * expected));
          }
          CHECK(worst < 8 * limit + 2e-5 * (dtype != DType::f64));
        }
      }
}
