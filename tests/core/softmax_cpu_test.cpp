// Softmax and cross-entropy of the CPU against their definitions in f64.
#include <catch2/catch.hpp>

#include <binade/core/kernels/loss.h>
#include <binade/core/kernels/softmax.h>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

// x of the shape with contiguous rows behind one another, rows with gaps, or rows in another order.
Array with_rows(int layout, const Shape& shape, DType dtype, Random& random) {
  if (layout == 0 || shape.dims() < 2) return random_array(shape, dtype, random, 3);
  Shape stored = shape;
  if (layout == 1) {
    stored[shape.dims() - 1] += 5;
    return random_array(stored, dtype, random, 3).slice(-1, 0, shape.back());
  }
  std::swap(stored[0], stored[shape.dims() - 2]);
  return random_array(stored, dtype, random, 3).transpose(0, shape.dims() - 2);
}

std::vector<double> softmax_of(const std::vector<double>& x, size_t width) {
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    double total = 0;
    for (size_t i = 0; i < width; ++i) total += std::exp(x[row + i]);
    for (size_t i = 0; i < width; ++i) y[row + i] = std::exp(x[row + i]) / total;
  }
  return y;
}

TEST_CASE("softmax of the CPU, forward and backward", "[kernels][cpu]") {
  Random random(43);
  for (const DType dtype : kFloatingTypes)
    for (const Shape& shape :
         {Shape{1}, Shape{5000}, Shape{7, 33}, Shape{3, 5, 256}, Shape{2, 3, 4, 17}})
      for (int layout = 0; layout < 3; ++layout)
        for (const float beta : {0.0f, 1.0f}) {
          INFO(name_of(dtype) << " " << concat(shape) << " layout " << layout << " beta " << beta);
          const size_t width = static_cast<size_t>(shape.back());
          const Array x = with_rows(layout, shape, dtype, random);
          const Array dy = with_rows(layout, shape, dtype, random);
          const double inner = dtype == DType::f64 ? 1e-12 : 64 * epsilon_of(DType::f32);
          const double limit = 1.01 * epsilon_of(dtype) + inner;
          const DType wide = dtype == DType::f16 ? DType::f32 : dtype;  // another dtype than x's

          const Array y = with_rows(layout, shape, wide, random);
          const std::vector<double> probabilities = softmax_of(values_of(x), width);
          cpu::softmax(x, y);
          REQUIRE(worst_error(y, probabilities, 1e-3) < 1.01 * epsilon_of(wide) + inner);
          const Array logs = with_rows(layout, shape, dtype, random);
          std::vector<double> expected = probabilities;
          for (double& value : expected) value = std::log(value);
          cpu::log_softmax(x, logs);
          REQUIRE(worst_error(logs, expected, 4) < limit);

          // The gradients' definitions, of the y that they are given.
          const Array dx = with_rows(layout, shape, dtype, random);
          const Array dx_log = with_rows(layout, shape, dtype, random);
          std::vector<double> gradient = values_of(dx), log_gradient = values_of(dx_log);
          for (size_t row = 0; row < gradient.size(); row += width) {
            double dot = 0, total = 0;
            for (size_t i = row; i < row + width; ++i) {
              dot += read(y, static_cast<int64_t>(i)) * read(dy, static_cast<int64_t>(i));
              total += read(dy, static_cast<int64_t>(i));
            }
            for (size_t i = row; i < row + width; ++i) {
              const int64_t at = static_cast<int64_t>(i);
              gradient[i] = beta * gradient[i] + read(y, at) * (read(dy, at) - dot);
              log_gradient[i] =
                  beta * log_gradient[i] + read(dy, at) - std::exp(read(logs, at)) * total;
            }
          }
          cpu::softmax_backward(y, dy, dx, beta);
          cpu::log_softmax_backward(logs, dy, dx_log, beta);
          REQUIRE(worst_error(dx, gradient) < limit);
          REQUIRE(worst_error(dx_log, log_gradient, 4) < limit);
        }
}

TEST_CASE("softmax of large and infinite logits", "[kernels][cpu]") {
  const Array x = array_of({1e4, 1e4, -INFINITY, 0, -1e30, -1e30, NAN, 1, 2}, {3, 3}, DType::f32);
  const Array y = Array::empty({3, 3}, DType::f32);
  cpu::softmax(x, y);
  CHECK(std::vector<double>{0.5, 0.5, 0, 1, 0, 0} == [&] {
    std::vector<double> first = values_of(y);
    first.resize(6);
    return first;
  }());
  for (int64_t i = 6; i < 9; ++i) CHECK(std::isnan(read(y, i)));
}

TEST_CASE("cross-entropy of the CPU, forward and backward", "[kernels][cpu]") {
  Random random(47);
  for (const DType dtype : kFloatingTypes)
    for (const DType index : {DType::i64, DType::i32})
      for (const int64_t classes : {1, 2, 50, 256, 3001})
        for (const float smoothing : {0.0f, 0.125f})
          for (const bool in_place : {false, true}) {
            INFO(name_of(dtype) << " classes " << classes << " smoothing " << smoothing);
            const int64_t rows = 37;
            const DType wide = dtype == DType::f64 ? dtype : DType::f32;
            const Array logits = with_rows(1, {rows, classes}, dtype, random);
            const Array targets = Array::empty({rows}, index);
            for (int64_t row = 0; row < rows; ++row)
              write(targets, row,
                    row % 5 == 2 ? -7
                                 : static_cast<double>(random() % static_cast<uint64_t>(classes)));
            CrossEntropyParams params;
            params.ignore_index = -7;
            params.label_smoothing = smoothing;
            const Array loss = Array::empty({rows}, wide), log_sums = Array::empty({rows}, wide);
            const Array dloss = random_array({1}, wide, random).expand({rows});

            std::vector<double> losses, sums, gradient;
            const double share = smoothing / static_cast<double>(classes);
            for (int64_t row = 0; row < rows; ++row) {
              const int64_t label = static_cast<int64_t>(read(targets, row));
              double total = 0, value = 0;
              for (int64_t i = 0; i < classes; ++i)
                total += std::exp(read(logits, row * classes + i));
              sums.push_back(std::log(total));
              for (int64_t i = 0; i < classes; ++i) {
                const double x = read(logits, row * classes + i);
                const double weight = (i == label ? 1 - smoothing : 0) + share;
                value -= weight * (x - std::log(total));
                gradient.push_back(label == -7 ? 0
                                               : (std::exp(x) / total - weight) * read(dloss, row));
              }
              losses.push_back(label == -7 ? 0 : value);
            }
            cpu::cross_entropy(logits, targets, params, loss, log_sums);
            const Array dlogits = in_place ? logits : with_rows(1, {rows, classes}, dtype, random);
            cpu::cross_entropy_backward(logits, targets, log_sums, dloss, params, dlogits);
            const double inner = 64 * epsilon_of(wide);
            REQUIRE(worst_error(loss, losses) < inner);
            REQUIRE(worst_error(log_sums, sums) < inner);
            REQUIRE(worst_error(dlogits, gradient) < 1.01 * epsilon_of(dtype) + inner);
          }
}

TEST_CASE("cross-entropy gradients keep the loss scale before they are rounded to half",
          "[kernels][cpu]") {
  // (p − y) / N is 2^-27 here: it would be 0 as a half, but scaled by 2^16 first it is not.
  const Array logits = Array::zeros({1, 2}, DType::f16);
  const Array targets = Array::from(std::vector<int64_t>{0}, {1});
  const Array loss = Array::empty({1}, DType::f32), log_sums = Array::empty({1}, DType::f32);
  const Array dlogits = Array::empty({1, 2}, DType::f16);
  cpu::cross_entropy(logits, targets, {}, loss, log_sums);
  const Array scaled = array_of({0x1p-26 * 65536}, {1}, DType::f32);
  cpu::cross_entropy_backward(logits, targets, log_sums, scaled, {}, dlogits);
  CHECK(read(dlogits, 1) == Approx(0x1p-11));
  CHECK(read(dlogits, 0) == Approx(-0x1p-11));
}

TEST_CASE("cross-entropy with its gradient is the loss and its gradient", "[kernels][cpu]") {
  Random random(48);
  for (const DType dtype : kFloatingTypes)
    for (const auto& [classes, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {1, 4}, {50, 50}, {257, 264}, {3001, 3001}})
      for (const float smoothing : {0.0f, 0.125f})
        for (const double factor : {1.0, 96.0}) {
          INFO(name_of(dtype) << " classes " << classes << " of " << width << " smoothing "
                              << smoothing << " factor " << factor);
          const int64_t rows = 23;
          const DType wide = dtype == DType::f64 ? dtype : DType::f32;
          const Array logits = with_rows(1, {rows, width}, dtype, random);
          const Array targets = Array::empty({rows}, DType::i64);
          for (int64_t row = 0; row < rows; ++row)
            write(targets, row,
                  row % 5 == 2 ? -100
                               : static_cast<double>(random() % static_cast<uint64_t>(classes)));
          CrossEntropyParams params;
          params.label_smoothing = smoothing;

          const Array seen = logits.slice(1, 0, classes).clone();
          const Array expected = Array::zeros({rows, width}, dtype);
          const Array losses = Array::empty({rows}, wide), log_sums = Array::empty({rows}, wide);
          const Array scale = array_of({factor}, {}, wide);
          cpu::cross_entropy(seen, targets, params, losses, log_sums);
          cpu::cross_entropy_backward(seen, targets, log_sums, scale.expand({rows}), params,
                                      expected.slice(1, 0, classes));
          const Array loss = Array::empty({rows}, wide);
          if (dtype == DType::f32)
            for (const DType half : {DType::f16, DType::bf16}) {
              const Array gradient = Array::full({rows, width}, 7, half);
              cpu::cross_entropy_with_gradient(logits, classes, targets, params,
                                               factor == 1 ? Array() : scale, loss, gradient);
              CHECK(values_of(loss) == values_of(losses));
              CHECK(values_of(gradient) == values_of(expected.to(half)));
            }
          cpu::cross_entropy_with_gradient(logits, classes, targets, params,
                                           factor == 1 ? Array() : scale, loss, logits);
          CHECK(values_of(loss) == values_of(losses));
          CHECK(values_of(logits) == values_of(expected));
        }
  const Array none = Array::zeros({0, 3}, DType::f16);
  cpu::cross_entropy_with_gradient(none, 3, Array::zeros({0}, DType::i64), {}, {},
                                   Array::zeros({0}, DType::f32), none);
}

TEST_CASE("an ignored row's gradient is 0 whatever its logits are", "[kernels][cpu]") {
  const Array logits = array_of({NAN, INFINITY, 1, 2}, {2, 2}, DType::f16);
  const Array loss = Array::empty({2}, DType::f32);
  cpu::cross_entropy_with_gradient(logits, 2, Array::from(std::vector<int64_t>{-100, 0}, {2}), {},
                                   {}, loss, logits);
  CHECK(read(loss, 0) == 0);
  CHECK(read(logits, 0) == 0);
  CHECK(read(logits, 1) == 0);
  CHECK(read(logits, 2) == Approx(-1 / (1 + std::exp(-1.0))).epsilon(1e-3));
}

TEST_CASE("cross-entropy names a target that is no class", "[kernels][cpu]") {
  const Array logits = Array::zeros({3, 10}, DType::f32), loss = Array::empty({3}, DType::f32);
  for (const int64_t bad : {int64_t{10}, int64_t{-1}, int64_t{1} << 40}) {
    const Array targets = Array::from(std::vector<int64_t>{0, bad, -100}, {3});
    CHECK_THROWS_WITH(
        cpu::cross_entropy(logits, targets, {}, loss, loss.clone()),
        Catch::Contains(concat("target ", bad, " of row 1")) && Catch::Contains("10 classes"));
  }
}

}  // namespace
}  // namespace binade::test
