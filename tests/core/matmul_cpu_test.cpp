#include <catch2/catch.hpp>

#include <limits>

#include <binade/core/kernels/matmul.h>

#include "core/column_sums.h"

using namespace binade;
using namespace binade::test;
using kernels::MatmulEpilogue;

namespace {

// Sums of K terms of size 1: f32 sums (rounding errors grow as √K), then one rounding to `out`.
double tolerance(DType compute, DType out, int64_t k) {
  const DType sums = compute == DType::f64 ? DType::f64 : DType::f32;
  return 8 * std::sqrt(static_cast<double>(k) + 1) * epsilon_of(sums) + 1.01 * epsilon_of(out);
}

// Plain loops in f64 over the last two dimensions; leading ones by row-major position.
std::vector<double> reference(const Array& a, const Array& b, int64_t m, int64_t n, int64_t k) {
  const int64_t batches = m * k == 0 ? 0 : a.numel() / (m * k);
  std::vector<double> out(static_cast<size_t>(batches * m * n), 0);
  const std::vector<double> x = values_of(a), y = values_of(b);
  for (int64_t batch = 0; batch < batches; ++batch)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t l = 0; l < k; ++l)
        for (int64_t j = 0; j < n; ++j)
          out[static_cast<size_t>((batch * m + i) * n + j)] +=
              x[static_cast<size_t>((batch * m + i) * k + l)] *
              y[static_cast<size_t>((batch * k + l) * n + j)];
  return out;
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double gelu_gradient(double x) {
  const double h = 1e-6;
  return (gelu(x + h) - gelu(x - h)) / (2 * h);
}

// A (rows, columns) matrix or a batch of them in one of several layouts.
enum class Layout { rows, columns, padded, strided };
Array make(Layout layout, std::vector<int64_t> sizes, DType dtype, Random& random) {
  const size_t last = sizes.size() - 1;
  const auto shape = [&] { return Shape(std::span<const int64_t>(sizes)); };
  switch (layout) {
    case Layout::rows:
      return random_array(shape(), dtype, random);
    case Layout::columns:
      std::swap(sizes[last], sizes[last - 1]);
      return random_array(shape(), dtype, random).transpose(-1, -2);
    case Layout::padded: {
      const int64_t columns = sizes[last];
      sizes[last] += 5;
      return random_array(shape(), dtype, random).slice(-1, 2, 2 + columns);
    }
    default:
      sizes[last] *= 2;
      return random_array(shape(), dtype, random).slice(-1, 0, kToEnd, 2);
  }
}

}  // namespace

TEST_CASE("cpu matmul equals f64 loops in every dtype and layout", "[matmul][cpu]") {
  Random random(1);
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::f16, DType::bf16);
  const Layout left = GENERATE(Layout::rows, Layout::columns, Layout::padded, Layout::strided);
  const Layout right = GENERATE(Layout::rows, Layout::columns, Layout::padded, Layout::strided);
  struct Size {
    int64_t m, n, k;
  };
  const Size size = GENERATE(Size{1, 1, 1}, Size{1, 77, 33}, Size{65, 1, 19}, Size{37, 41, 1},
                             Size{70, 300, 65}, Size{3, 5, 1100});
  const Array a = make(left, {size.m, size.k}, dtype, random);
  const Array b = make(right, {size.k, size.n}, dtype, random);
  const Array out = Array::empty({size.m, size.n}, dtype);
  set_all(out, std::numeric_limits<double>::quiet_NaN());  // β = 0 must not read it
  kernels::cpu::matmul(a, b, out, {});
  const double scale = std::sqrt(static_cast<double>(size.k));
  CHECK(worst_error(out, reference(a, b, size.m, size.n, size.k), scale) <=
        tolerance(dtype, dtype, size.k));
}

// As gradients of weights are: low and wide, so that several tasks read the same rows of a, which
// is a transpose; and more of k than is multiplied at a time.
TEST_CASE("cpu matmul of rows that several tasks read", "[matmul][cpu]") {
  Random random(3);
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const Layout left = GENERATE(Layout::rows, Layout::columns, Layout::strided);
  const int64_t m = GENERATE(33, 100), n = 333, k = GENERATE(97, 1037);
  const Array a = make(left, {m, k}, dtype, random);
  const Array b = make(GENERATE(Layout::rows, Layout::columns), {k, n}, dtype, random);
  const Array out = Array::empty({m, n}, DType::f32);
  set_all(out, std::numeric_limits<double>::quiet_NaN());
  kernels::MatmulEpilogue epilogue;
  epilogue.a_sums = Array::empty({m}, DType::f32);
  kernels::cpu::matmul(a, b, out, epilogue);
  const double scale = std::sqrt(static_cast<double>(k));
  CHECK(worst_error(out, reference(a, b, m, n, k), scale) <= tolerance(dtype, DType::f32, k));
  std::vector<double> sums(static_cast<size_t>(m), 0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < k; ++j) sums[static_cast<size_t>(i)] += read(a, i * k + j);
  CHECK(worst_error(epilogue.a_sums, sums, scale) <= tolerance(dtype, DType::f32, k));
}

TEST_CASE("cpu matmul of a few rows with a weight's transpose", "[matmul][cpu]") {
  Random random(7);
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const int64_t m = GENERATE(1, 2, 3, 4, 5, 15, 16, 17);
  const auto [n, k] = GENERATE(std::pair<int64_t, int64_t>{1031, 16}, std::pair{129L, 255L},
                               std::pair{3L, 6000L}, std::pair{64L, 272L});
  const Array a =
      make(GENERATE(Layout::rows, Layout::columns, Layout::strided), {m, k}, dtype, random);
  // Columns may lie apart from each other.
  const Array weight = make(GENERATE(Layout::rows, Layout::padded), {n, k}, dtype, random);
  const Array b = weight.transpose(0, 1);
  const double scale = std::sqrt(static_cast<double>(k));
  std::vector<double> expected = reference(a, b, m, n, k);

  SECTION("as it is") {
    const Array out = Array::empty({m, n}, dtype);
    set_all(out, std::numeric_limits<double>::quiet_NaN());
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, expected, scale) <= tolerance(dtype, dtype, k));
  }
  SECTION("added to what is there, with a bias, into another dtype and layout") {
    const DType out_dtype = dtype == DType::f16 ? DType::f32 : dtype;
    const Array out = make(GENERATE(Layout::columns, Layout::padded), {m, n}, out_dtype, random);
    const Array bias = random_array({n}, dtype, random);
    const std::vector<double> before = values_of(out), added = values_of(bias);
    for (size_t i = 0; i < expected.size(); ++i)
      expected[i] += before[i] + added[i % static_cast<size_t>(n)];
    kernels::cpu::matmul(a, b, out, {.beta = 1, .bias = bias});
    CHECK(worst_error(out, expected, scale) <= tolerance(dtype, out_dtype, k));
  }
  SECTION("a row alone has the same bits") {
    if (m > 16) return;  // another kernel
    const Array out = Array::empty({m, n}, dtype), alone = Array::empty({1, n}, dtype);
    kernels::cpu::matmul(a, b, out, {});
    for (int64_t row = 0; row < m; ++row) {
      kernels::cpu::matmul(a.slice(0, row, row + 1), b, alone, {});
      CHECK(values_of(out.slice(0, row, row + 1)) == values_of(alone));
    }
  }
  SECTION("what is not finite stays so, and nowhere else") {
    const Array out = Array::empty({m, n}, dtype);
    const auto set = [](const Array& array, int64_t row, int64_t column, double value) {
      set_all(array.slice(0, row, row + 1).slice(1, column, column + 1), value);
    };
    set(weight, n - 1, k - 1, std::numeric_limits<double>::infinity());
    set(a, m - 1, k - 1, 1);
    kernels::cpu::matmul(a, b, out, {});
    const std::vector<double> values = values_of(out);
    CHECK(values.back() == std::numeric_limits<double>::infinity());
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j + 1 < n; ++j)
        if (!std::isfinite(values[static_cast<size_t>(i * n + j)]))
          FAIL("row " << i << ", column " << j);
  }
}

TEST_CASE("cpu matmul of batches: strided, expanded and folded", "[matmul][cpu]") {
  Random random(2);
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::bf16);
  const int64_t m = 9, n = 17, k = 21;
  const Layout layout = GENERATE(Layout::rows, Layout::columns, Layout::padded);
  const double allowed = tolerance(dtype, dtype, k);

  SECTION("both of their own") {
    // (3, 2) leading sizes whose strides are swapped.
    const Array a = make(layout, {2, 3, m, k}, dtype, random).transpose(0, 1);
    const Array b = make(layout, {3, 2, k, n}, dtype, random);
    const Array out = Array::empty({3, 2, m, n}, dtype);
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, reference(a, b, m, n, k), 5) <= allowed);
  }
  SECTION("one right matrix for all") {
    const Array a = make(layout, {4, 3, m, k}, dtype, random);
    const Array b = make(layout, {k, n}, dtype, random).expand({4, 3, k, n});
    const Array out = Array::empty({4, 3, m, n}, dtype);
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, reference(a, b, m, n, k), 5) <= allowed);
  }
  SECTION("one left matrix for all, single rows") {
    const Array a = make(layout, {1, k}, dtype, random).expand({5, 1, k});
    const Array b = make(layout, {5, k, n}, dtype, random);
    const Array out = Array::empty({5, 1, n}, dtype);
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, reference(a, b, 1, n, k), 5) <= allowed);
  }
  SECTION("output with strides") {
    const Array a = make(layout, {2, m, k}, dtype, random);
    const Array b = make(layout, {2, k, n}, dtype, random);
    const Array out =
        make(GENERATE(Layout::columns, Layout::padded, Layout::strided), {2, m, n}, dtype, random);
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, reference(a, b, m, n, k), 5) <= allowed);
  }
  SECTION("many tiles of a broadcast row") {  // a: every row the same
    const Array a = make(layout, {1, k}, dtype, random).expand({300, k});
    const Array b = make(layout, {k, n}, dtype, random);
    const Array out = Array::empty({300, n}, dtype);
    kernels::cpu::matmul(a, b, out, {});
    CHECK(worst_error(out, reference(a, b, 300, n, k), 5) <= allowed);
  }
}

TEST_CASE("cpu matmul epilogues", "[matmul][cpu]") {
  Random random(3);
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::f16, DType::bf16);
  const bool wide_out = dtype == DType::f16 && GENERATE(false, true);
  const DType out_dtype = wide_out ? DType::f32 : dtype;
  const auto [m, n, k] =
      GENERATE(std::tuple<int64_t, int64_t, int64_t>{33, 47, 29}, std::tuple{300L, 520L, 40L});
  const Array a = random_array({m, k}, dtype, random, 0.3);
  const Array b = random_array({n, k}, dtype, random, 0.3).transpose(0, 1);
  const Array bias = random_array({n}, GENERATE(DType::f32, DType::f16), random);
  const Array out = random_array({m, n}, out_dtype, random);
  std::vector<double> expected = reference(a, b, m, n, k);
  const double allowed = tolerance(dtype, out_dtype, k);
  MatmulEpilogue epilogue;
  const auto for_each = [&](auto&& change) {
    for (int64_t i = 0; i < m * n; ++i) change(expected[static_cast<size_t>(i)], i, i % n);
  };

  SECTION("beta adds before the rounding") {
    epilogue.beta = 1;
    for_each([&](double& value, int64_t i, int64_t) { value += read(out, i); });
    kernels::cpu::matmul(a, b, out, epilogue);
    CHECK(worst_error(out, expected) <= allowed);
  }
  SECTION("relu, behind a bias and without") {
    epilogue.relu = true;
    if (GENERATE(false, true)) {
      epilogue.bias = bias;
      for_each([&](double& value, int64_t, int64_t j) { value += read(bias, j); });
    }
    for_each([&](double& value, int64_t, int64_t) { value = value > 0 ? value : 0; });
    write(a, 3 * k, std::nan(""));
    kernels::cpu::matmul(a, b, out, epilogue);
    for (int64_t j = 0; j < n; ++j) {
      CHECK(std::isnan(read(out, 3 * n + j)));
      write(out, 3 * n + j, expected[static_cast<size_t>(3 * n + j)]);
    }
    CHECK(worst_error(out, expected) <= allowed);
  }
  SECTION("bias, then gelu with the value before it saved") {
    epilogue.bias = bias;
    epilogue.gelu = true;
    for_each([&](double& value, int64_t, int64_t j) { value += read(bias, j); });
    const bool save = GENERATE(false, true);
    if (save) epilogue.pre_activation = random_array({m, n}, out_dtype, random);
    kernels::cpu::matmul(a, b, out, epilogue);
    if (save) CHECK(worst_error(epilogue.pre_activation, expected) <= allowed);
    for_each([&](double& value, int64_t, int64_t) { value = gelu(value); });
    CHECK(worst_error(out, expected) <= 2 * allowed);
  }
  SECTION("dgelu") {
    epilogue.dgelu = true;
    epilogue.pre_activation = random_array({m, n}, out_dtype, random, 2);
    std::vector<double> again(static_cast<size_t>(m * n));
    for_each([&](double& value, int64_t i, int64_t) {
      const double pre = read(epilogue.pre_activation, i);
      value *= gelu_gradient(pre);
      again[static_cast<size_t>(i)] = gelu(pre);
    });
    const bool store = GENERATE(false, true);
    if (store) epilogue.recomputed_gelu = random_array({m, n}, out_dtype, random);
    kernels::cpu::matmul(a, b, out, epilogue);
    // The finite difference above is good to about 1e-9.
    CHECK(worst_error(out, expected) <= 2 * allowed + 1e-8);
    if (store)
      CHECK(worst_error(epilogue.recomputed_gelu, again) <= tolerance(dtype, out_dtype, 0));
  }
  SECTION("drelu") {
    epilogue.drelu = true;
    epilogue.pre_activation = random_array({m, n}, out_dtype, random);
    write(epilogue.pre_activation, 0, 0);
    write(epilogue.pre_activation, n, std::nan(""));
    for_each([&](double& value, int64_t i, int64_t) {
      if (read(epilogue.pre_activation, i) <= 0) value = 0;
    });
    epilogue.out_sums = random_array({n}, dtype == DType::f64 ? DType::f64 : DType::f32, random);
    kernels::cpu::matmul(a, b, out, epilogue);
    CHECK(worst_error(out, expected) <= allowed);
    CHECK(column_sum_error(epilogue.out_sums, out) <= 8 * epsilon_of(epilogue.out_sums.dtype()));
    // What is masked does not show, not even where it overflowed.
    for (int64_t i = 0; i < k; ++i) write(a, i, std::nan(""));
    kernels::cpu::matmul(a, b, out, epilogue);
    for (int64_t j = 0; j < n; ++j)
      CHECK((read(epilogue.pre_activation, j) <= 0 ? read(out, j) == 0 : std::isnan(read(out, j))));
  }
  SECTION("sums of the rows of a") {
    const DType sums_dtype = GENERATE(DType::f32, DType::bf16);
    epilogue.a_sums = random_array({m}, dtype == DType::f64 ? DType::f64 : sums_dtype, random);
    epilogue.a_sums_beta = GENERATE(0.f, 1.f);
    std::vector<double> sums(static_cast<size_t>(m), 0);
    if (epilogue.a_sums_beta != 0) sums = values_of(epilogue.a_sums);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < k; ++j) sums[static_cast<size_t>(i)] += read(a, i * k + j);
    kernels::cpu::matmul(a, b, out, epilogue);
    CHECK(worst_error(out, expected) <= allowed);
    CHECK(worst_error(epilogue.a_sums, sums, std::sqrt(static_cast<double>(k))) <=
          tolerance(dtype, epilogue.a_sums.dtype(), k));
  }
  SECTION("sums of the output's columns") {
    epilogue.dgelu = GENERATE(false, true);
    epilogue.pre_activation = random_array({m, n}, out_dtype, random, 2);
    epilogue.out_sums = random_array({n}, dtype == DType::f64 ? DType::f64 : DType::f32, random);
    kernels::cpu::matmul(a, b, out, epilogue);
    CHECK(column_sum_error(epilogue.out_sums, out) <= 8 * epsilon_of(epilogue.out_sums.dtype()));
  }
}

TEST_CASE("cpu matmul of half inputs sums in f32", "[matmul][cpu]") {
  // 4096 ones: in f16 the sum would stop at 2048, in bf16 at 256.
  const DType dtype = GENERATE(DType::f16, DType::bf16);
  const int64_t k = 4096;
  const Array a = Array::empty({2, k}, dtype), b = Array::empty({k, 3}, dtype);
  set_all(a, 1);
  set_all(b, 1);
  const Array out = Array::empty({2, 3}, dtype);
  kernels::cpu::matmul(a, b, out, {});
  for (int64_t i = 0; i < 6; ++i) CHECK(read(out, i) == 4096);
}

TEST_CASE("cpu matmul with empty dimensions", "[matmul][cpu]") {
  Random random(4);
  const DType dtype = GENERATE(DType::f64, DType::f32, DType::f16);
  const Array bias = random_array({5}, dtype, random);
  MatmulEpilogue epilogue;
  SECTION("nothing to sum: the bias remains") {
    epilogue.bias = bias;
    const Array out = random_array({3, 5}, dtype, random);
    kernels::cpu::matmul(Array::empty({3, 0}, dtype), Array::empty({0, 5}, dtype), out, epilogue);
    for (int64_t i = 0; i < 15; ++i) CHECK(read(out, i) == read(bias, i % 5));
  }
  SECTION("nothing to sum: the sums of the rows are zero") {
    epilogue.a_sums = bias;
    const Array out = Array::empty({5, 3}, dtype);
    kernels::cpu::matmul(Array::empty({5, 0}, dtype), Array::empty({0, 3}, dtype), out, epilogue);
    for (int64_t i = 0; i < 5; ++i) CHECK(read(bias, i) == 0);
  }
  SECTION("no rows: the sums of the columns are zero") {
    epilogue.out_sums = random_array({5}, DType::f32, random);
    kernels::cpu::matmul(Array::empty({0, 3}, DType::f32), random_array({3, 5}, DType::f32, random),
                         Array::empty({0, 5}, DType::f32), epilogue);
    for (int64_t i = 0; i < 5; ++i) CHECK(read(epilogue.out_sums, i) == 0);
  }
  SECTION("no columns, no batches") {
    kernels::cpu::matmul(random_array({3, 4}, dtype, random), Array::empty({4, 0}, dtype),
                         Array::empty({3, 0}, dtype), {});
    kernels::cpu::matmul(Array::empty({0, 3, 4}, dtype), Array::empty({0, 4, 2}, dtype),
                         Array::empty({0, 3, 2}, dtype), {});
  }
}

TEST_CASE("cpu matmul gives the same bits twice", "[matmul][cpu]") {
  Random random(5);
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const Array a = random_array({200, 700}, dtype, random);
  const Array b = random_array({700, 300}, dtype, random);
  const Array once = Array::empty({200, 300}, dtype), again = Array::empty({200, 300}, dtype);
  kernels::cpu::matmul(a, b, once, {});
  kernels::cpu::matmul(a, b, again, {});
  CHECK(values_of(once) == values_of(again));
}
