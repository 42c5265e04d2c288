// Layer norm and RMS norm of the CPU against their definitions in f64.
#include <binade/core/kernels/norm.h>

#include <catch2/catch.hpp>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

struct Sizes {
  int64_t rows, width;
};
const Sizes kSizes[] = {{1, 1}, {3, 7}, {200, 33}, {9, 300}, {2, 1030}};

// What the definition gives. Gradients come from the Jacobian ∂x̂_i/∂x_j written out.
struct Reference {
  std::vector<double> y, mean, rstd, dx, dweight, dbias;
};

Reference reference(const std::vector<double>& x, const std::vector<double>& w,
                    const std::vector<double>& b, const std::vector<double>& dy, bool centered,
                    double eps) {
  const size_t width = w.size(), rows = x.size() / width;
  const double n = static_cast<double>(width), center = centered ? 1 : 0;
  Reference r;
  r.y = r.dx = std::vector<double>(x.size());
  r.dweight = r.dbias = std::vector<double>(width);
  for (size_t row = 0; row < rows; ++row) {
    const double* in = x.data() + row * width;
    const double* d = dy.data() + row * width;
    double mean = 0, variance = 0;
    for (size_t i = 0; i < width; ++i) mean += center * in[i] / n;
    for (size_t i = 0; i < width; ++i) variance += (in[i] - mean) * (in[i] - mean) / n;
    const double rstd = 1 / std::sqrt(variance + eps);
    r.mean.push_back(mean);
    r.rstd.push_back(rstd);
    std::vector<double> hat(width);
    for (size_t i = 0; i < width; ++i) {
      hat[i] = (in[i] - mean) * rstd;
      r.y[row * width + i] = hat[i] * w[i] + b[i];
      r.dweight[i] += d[i] * hat[i];
      r.dbias[i] += d[i];
    }
    for (size_t j = 0; j < width; ++j)
      for (size_t i = 0; i < width; ++i)
        r.dx[row * width + j] +=
            d[i] * w[i] * rstd * ((i == j ? 1 : 0) - center / n - hat[i] * hat[j] / n);
  }
  return r;
}

// Rows with a gap behind each.
Array padded(const Sizes& sizes, DType dtype, Random& random) {
  return random_array({sizes.rows, sizes.width + 3}, dtype, random).slice(1, 0, sizes.width);
}

void add_old(std::vector<double>& values, const Array& old, float beta) {
  for (size_t i = 0; i < values.size(); ++i) values[i] += beta * read(old, static_cast<int64_t>(i));
}

TEST_CASE("norms of the CPU, forward and backward", "[kernels][cpu]") {
  Random random(31);
  const float eps = 1e-3f;
  for (const DType dtype : kFloatingTypes)
    for (const DType parameter : {DType::f64, DType::f32, DType::bf16})
      for (const Sizes& sizes : kSizes)
        for (const bool centered : {true, false})
          for (const float beta : {0.0f, 1.0f}) {
            INFO(name_of(dtype) << " parameters " << name_of(parameter) << " (" << sizes.rows
                                << ", " << sizes.width << ") centered " << centered << " beta "
                                << beta);
            const DType statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
            const Array x = padded(sizes, dtype, random), dy = padded(sizes, dtype, random);
            const Array w = random_array({sizes.width}, parameter, random);
            const Array b = random_array({sizes.width}, parameter, random);
            const Array y = padded(sizes, dtype, random), dx = padded(sizes, dtype, random);
            const Array dw = random_array({sizes.width}, parameter, random);
            const Array db = random_array({sizes.width}, parameter, random);
            const Array mean = Array::empty({sizes.rows}, statistics);
            const Array rstd = Array::empty({sizes.rows}, statistics);

            Reference r = reference(values_of(x), values_of(w),
                                    centered ? values_of(b) : std::vector<double>(w.numel()),
                                    values_of(dy), centered, static_cast<double>(eps));
            add_old(r.dx, dx, beta);
            add_old(r.dweight, dw, beta);
            add_old(r.dbias, db, beta);
            if (centered) {
              cpu::layer_norm(x, w, b, eps, y, mean, rstd);
              cpu::layer_norm_backward(dy, x, w, mean, rstd, dx, beta, dw, beta, db, beta, {});
            } else {
              cpu::rms_norm(x, w, eps, y, rstd);
              cpu::rms_norm_backward(dy, x, w, rstd, dx, beta, dw, beta);
            }
            const double inner = 64 * epsilon_of(statistics);
            const double limit = 1.01 * epsilon_of(dtype) + inner;
            REQUIRE(worst_error(y, r.y) < limit);
            if (centered) REQUIRE(worst_error(mean, r.mean) < inner);
            REQUIRE(worst_error(rstd, r.rstd) < inner);
            REQUIRE(worst_error(dx, r.dx, 4) < limit);
            const double sums = 1.01 * epsilon_of(parameter) + 4 * inner;
            REQUIRE(worst_error(dw, r.dweight) < sums);
            if (centered) REQUIRE(worst_error(db, r.dbias) < sums);
          }
}

TEST_CASE("add_norm rounds the sum once and normalises it", "[kernels][cpu]") {
  Random random(37);
  for (const DType dtype : kFloatingTypes)
    for (const bool centered : {true, false}) {
      const Sizes sizes{40, 96};
      const DType statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
      const Array x = padded(sizes, dtype, random), residual = padded(sizes, dtype, random);
      const Array w = random_array({96}, dtype, random), b = random_array({96}, dtype, random);
      const Array sum = padded(sizes, dtype, random), y = padded(sizes, dtype, random);
      const Array mean = Array::empty({40}, statistics), rstd = Array::empty({40}, statistics);
      cpu::add_norm(x, residual, w, centered ? b : Array(), 1e-5f, sum, y,
                    centered ? mean : Array(), rstd);
      std::vector<double> expected = values_of(x);
      add_old(expected, residual, 1);
      CHECK(values_of(sum) == values_of(array_of(expected, {40, 96}, dtype)));

      const Array y_alone = Array::empty({40, 96}, dtype);
      const Array mean_alone = Array::empty({40}, statistics);
      const Array rstd_alone = Array::empty({40}, statistics);
      if (centered)
        cpu::layer_norm(sum, w, b, 1e-5f, y_alone, mean_alone, rstd_alone);
      else
        cpu::rms_norm(sum, w, 1e-5f, y_alone, rstd_alone);
      CHECK(values_of(y) == values_of(y_alone));
      CHECK(values_of(rstd) == values_of(rstd_alone));
      if (centered) CHECK(values_of(mean) == values_of(mean_alone));
    }
}

TEST_CASE("norm gradients that nobody asks for are not computed", "[kernels][cpu]") {
  Random random(41);
  const Array x = random_array({6, 10}, DType::f32, random),
              dy = random_array({6, 10}, DType::f32, random);
  const Array w = random_array({10}, DType::f32, random), y = Array::empty({6, 10}, DType::f32);
  const Array mean = Array::empty({6}, DType::f32), rstd = Array::empty({6}, DType::f32);
  cpu::layer_norm(x, w, w, 1e-5f, y, mean, rstd);
  const Array dx = Array::empty({6, 10}, DType::f32), dx_alone = Array::empty({6, 10}, DType::f32);
  const Array db = Array::empty({10}, DType::f32), db_alone = Array::empty({10}, DType::f32);
  cpu::layer_norm_backward(dy, x, w, mean, rstd, dx, 0, {}, 0, db, 0, {});
  cpu::layer_norm_backward(dy, x, w, mean, rstd, dx_alone, 0, {}, 0, {}, 0, {});
  cpu::layer_norm_backward(dy, x, w, mean, rstd, {}, 0, {}, 0, db_alone, 0, {});
  CHECK(values_of(dx) == values_of(dx_alone));
  CHECK(values_of(db) == values_of(db_alone));
}

}  // namespace
}  // namespace binade::test
