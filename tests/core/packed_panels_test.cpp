// The CPU's own matmuls: the micro-kernels, packing, and the large matmuls made of them.
#include <binade/core/kernels/cpu/matmul/packed_panels.h>

#include <omp.h>

#include <catch2/catch.hpp>
#include <limits>

#include <binade/core/kernels/cpu/common/line_functions.h>
#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/blocked_matmul.h>
#include <binade/core/kernels/matmul.h>

#include "kernel_arrays.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels::cpu;
using kernels::MatmulEpilogue;

namespace {

double matmul_tolerance(DType sums, DType out, int64_t k) {
  return 8 * std::sqrt(static_cast<double>(k) + 1) * epsilon_of(sums) + 1.01 * epsilon_of(out);
}

std::vector<const MicroKernel*> usable_kernels() {
  std::vector<const MicroKernel*> kernels = {&kMicroKernelAvx2};
  if (__builtin_cpu_supports("avx512f")) kernels.push_back(&kMicroKernelAvx512);
  return kernels;
}

// Plain loops in f64.
std::vector<double> matmul_of(const Array& a, const Array& b) {
  const int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  const std::vector<double> x = values_of(a), y = values_of(b);
  std::vector<double> out(static_cast<size_t>(m * n), 0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t l = 0; l < k; ++l)
      for (int64_t j = 0; j < n; ++j)
        out[static_cast<size_t>(i * n + j)] +=
            x[static_cast<size_t>(i * k + l)] * y[static_cast<size_t>(l * n + j)];
  return out;
}

// A matrix by rows, by columns, with gaps between the rows, or with gaps between the elements.
enum class Layout { rows, columns, padded, strided };
Array matrix(Layout storage, int64_t rows, int64_t columns, DType dtype, Random& random) {
  switch (storage) {
    case Layout::rows:
      return random_array({rows, columns}, dtype, random);
    case Layout::columns:
      return random_array({columns, rows}, dtype, random).transpose(0, 1);
    case Layout::padded:
      return random_array({rows, columns + 7}, dtype, random).slice(1, 3, 3 + columns);
    default:
      return random_array({rows, columns * 2}, dtype, random).slice(1, 0, kToEnd, 2);
  }
}

// The ways that this processor has of multiplying packed operands.
using PackedMatmul = void (*)(const MatmulProblem&, const MatmulEpilogue&);
std::vector<PackedMatmul> packed_matmuls() {
  std::vector<PackedMatmul> ways = {&blocked_matmul};
  if (tile_kernel() != nullptr) ways.push_back(&bf16_split_matmul);
  return ways;
}

Block<const float> block(const Array& array) {
  const bool transposed = array.stride(1) != 1;
  return {array.data<float>(), transposed ? array.stride(1) : array.stride(0), transposed};
}

}  // namespace

TEST_CASE("micro-kernels equal f64 loops for every number of rows", "[matmul][cpu]") {
  Random random(1);
  for (const MicroKernel* kernel : usable_kernels()) {
    for (int64_t rows = 1; rows <= kernel->rows; ++rows) {
      const int64_t k = 37, columns = kernel->columns;
      const bool accumulate = rows % 2 == 0;
      INFO(kernel->columns << " columns, " << rows << " rows");
      // Neither rows nor the output are aligned for vectors.
      const Array a = random_array({rows, k + 2}, DType::f32, random).slice(1, 1, 1 + k);
      const Array b = random_array({k, columns}, DType::f32, random);
      const Array c =
          random_array({rows, columns + 3}, DType::f32, random).slice(1, 1, 1 + columns);
      std::vector<double> expected = matmul_of(a, b);
      if (accumulate) {
        const std::vector<double> old = values_of(c);
        for (size_t i = 0; i < expected.size(); ++i) expected[i] += old[i];
      }
      kernel->multiply[rows - 1](k, a.data<float>(), a.stride(0), b.data<float>(), accumulate,
                                 c.data<float>(), c.stride(0), b.data<float>() + b.numel());
      CHECK(worst_error(c, expected, std::sqrt(k)) <= matmul_tolerance(DType::f32, DType::f32, k));
    }
  }
}

TEST_CASE("one thread's matmul of every size equals f64 loops", "[matmul][cpu]") {
  // The ways through gemm: one row, few rows, columns in place, packed panels; both orders of a and
  // b, rows a page apart, widths beside a panel's, and k of more than one step.
  const int64_t m = GENERATE(1, 2, 3, 8, 9, 15, 16, 63, 64, 70);
  const int64_t n = GENERATE(1, 8, 16, 17, 32, 33, 100);
  const int64_t k = GENERATE(1, 64, 130, 600);
  const bool a_transposed = GENERATE(false, true), b_transposed = GENERATE(false, true);
  const int64_t b_gap = GENERATE(3, 1024);
  Random random(1);
  const Array a = random_array({m, k}, DType::f32, random);
  const Array b = random_array({k, n}, DType::f32, random);
  const auto lines_of = [](const Array& x, bool transposed, int64_t leading) {
    const Array lines = transposed ? x.transpose(0, 1) : x;
    std::vector<float> memory(static_cast<size_t>(lines.size(0) * leading), 1e30f);
    const std::vector<double> values = values_of(lines);
    for (int64_t i = 0; i < lines.size(0); ++i)
      for (int64_t j = 0; j < lines.size(1); ++j)
        memory[static_cast<size_t>(i * leading + j)] =
            static_cast<float>(values[static_cast<size_t>(i * lines.size(1) + j)]);
    return memory;
  };
  const int64_t leading_a = a_transposed ? m : k;
  const int64_t leading_b = b_gap == 1024 ? 1024 : (b_transposed ? k : n) + b_gap;
  const std::vector<float> left = lines_of(a, a_transposed, leading_a);
  const std::vector<float> right = lines_of(b, b_transposed, leading_b);
  const std::vector<double> expected = matmul_of(a, b);
  const double tolerance = matmul_tolerance(DType::f32, DType::f32, k);
  constexpr int64_t kGap = 5;  // floats behind each row of the result, which stay
  std::vector<float> out(static_cast<size_t>(m * (n + kGap)), 0.5f);
  CAPTURE(m, n, k, a_transposed, b_transposed, leading_b);
  for (const bool accumulate : {true, false}) {
    std::fill(out.begin(), out.end(), 0.5f);
    gemm(m, n, k, Block<const float>{left.data(), leading_a, a_transposed},
         Block<const float>{right.data(), leading_b, b_transposed}, accumulate, out.data(),
         n + kGap);
    const auto sum = [&](int64_t i, int64_t j) {
      return expected[static_cast<size_t>(i * n + j)] + (accumulate ? 0.5 : 0.0);
    };
    double largest = 0;
    bool gaps_stay = true;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n + kGap; ++j) {
        const double value = out[static_cast<size_t>(i * (n + kGap) + j)];
        if (j >= n)
          gaps_stay = gaps_stay && value == 0.5;
        else
          largest = std::max(
              largest, std::abs(value - sum(i, j)) / std::max(std::sqrt(k), std::abs(sum(i, j))));
      }
    CHECK(largest <= tolerance);
    CHECK(gaps_stay);
  }
}

TEST_CASE("micro-kernels give the same bits from a panel and in place", "[matmul][cpu]") {
  Random random(1);
  for (const MicroKernel* kernel : usable_kernels()) {
    const int64_t k = 37, width = kernel->columns, leading = width + 9;
    const Array a = random_array({kernel->rows, k}, DType::f32, random);
    const Array b = random_array({k, leading}, DType::f32, random);
    alignas(64) float panel[37 * MicroKernel::kMostColumns];
    for (int64_t i = 0; i < k; ++i)
      std::copy_n(b.data<float>() + i * leading, width, panel + i * width);
    for (int64_t rows = 1; rows <= kernel->rows; ++rows) {
      for (const bool accumulate : {false, true}) {
        std::vector<float> packed(static_cast<size_t>(rows * width), 2.0f), in_place = packed;
        kernel->multiply[rows - 1](k, a.data<float>(), k, panel, accumulate, packed.data(), width,
                                   panel);
        kernel->multiply_in_place[rows - 1](k, a.data<float>(), k, b.data<float>(), leading,
                                            accumulate, in_place.data(), width);
        CHECK(packed == in_place);
      }
    }
  }
}

TEST_CASE("epilogues in AVX-512 give the bits that AVX2 gives", "[matmul][cpu]") {
  if (!__builtin_cpu_supports("avx512f")) return;
  Random random(7);
  const int64_t n = 301;
  const Array sums = random_array({n}, DType::f32, random);
  const Array other = random_array({n}, DType::f32, random);
  const auto results = [&](const LineFunctions<float>& functions) {
    std::vector<double> all;
    const auto apply = [&](auto function) {
      const Array line = sums.clone();
      function(line.data<float>());
      for (const double value : values_of(line)) all.push_back(value);
    };
    const float* const bias = other.data<float>();
    const Array pre = Array::empty({n}, DType::f32);
    apply([&](float* line) { functions.add(line, bias, n); });
    apply([&](float* line) { functions.gelu(line, nullptr, nullptr, n); });
    apply([&](float* line) { functions.gelu(line, bias, pre.data<float>(), n); });
    apply([&](float* line) { functions.multiply_by_gelu_gradient(line, bias, n); });
    for (const double value : values_of(pre)) all.push_back(value);
    return all;
  };
  CHECK(results(kLineFunctionsAvx512) == results(kLineFunctionsAvx2));
}

TEST_CASE("a right operand made ready once multiplies in parts", "[matmul][cpu]") {
  Random random(2);
  const int64_t m = GENERATE(1, 5, 64, 77), k = 1100, n = 107;
  const Array a =
      matrix(GENERATE(Layout::rows, Layout::columns, Layout::padded), m, k, DType::f32, random);
  const Array b =
      matrix(GENERATE(Layout::rows, Layout::columns, Layout::padded), k, n, DType::f32, random);
  RightOperand<float> right;
  right.assign(k, n, block(b), m);
  const int64_t row = 9, column = RightOperand<float>::kColumnStep;
  const Array out = Array::empty({m, n - column}, DType::f32);
  right.multiply(m, n - column, k - row, block(a.slice(1, row, k)), row, column, false,
                 out.data<float>(), n - column);
  CHECK(worst_error(out, matmul_of(a.slice(1, row, k), b.slice(0, row, k).slice(1, column, n)),
                    std::sqrt(k)) <= matmul_tolerance(DType::f32, DType::f32, k));
}

TEST_CASE("rows a page apart are multiplied as others are", "[matmul][cpu]") {
  Random random(3);
  const Array a = random_array({40, 1024}, DType::f32, random),
              b = random_array({1024, 64}, DType::f32, random);
  const Array out = Array::empty({40, 64}, DType::f32);
  matmul(a, b, out, {});
  CHECK(worst_error(out, matmul_of(a, b), 32) <= matmul_tolerance(DType::f32, DType::f32, 1024));
}

TEST_CASE("large cpu matmuls equal f64 loops over odd sizes, transposes and strides",
          "[matmul][cpu]") {
  Random random(4);
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const Layout left = GENERATE(Layout::rows, Layout::columns, Layout::padded, Layout::strided);
  const Layout right = GENERATE(Layout::rows, Layout::columns, Layout::padded, Layout::strided);
  struct Size {
    int64_t m, n, k;
  };
  const Size size = GENERATE(Size{33, 97, 513}, Size{131, 33, 600}, Size{200, 301, 47});
  const PackedMatmul multiply = GENERATE(from_range(packed_matmuls()));
  const Array a = matrix(left, size.m, size.k, dtype, random);
  const Array b = matrix(right, size.k, size.n, dtype, random);
  const Array out = Array::empty({size.m, size.n}, dtype);
  set_all(out, std::numeric_limits<double>::quiet_NaN());  // β = 0 must not read it
  multiply(MatmulProblem(a, b, out, {}), {});
  CHECK(worst_error(out, matmul_of(a, b), std::sqrt(static_cast<double>(size.k))) <=
        matmul_tolerance(DType::f32, dtype, size.k));
}

TEST_CASE("large cpu matmuls cut k and the columns where they do not fit the cache",
          "[matmul][cpu]") {
  Random random(5);
  const bool long_k = GENERATE(true, false);
  const int64_t m = 37, n = long_k ? 45 : 1100, k = long_k ? 9000 : 4200;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const Array a = random_array({m, k}, dtype, random), b = random_array({k, n}, dtype, random);
  const Layout storage = GENERATE(Layout::padded, Layout::columns);
  const Array out = matrix(storage, m, n, dtype, random);
  std::vector<double> expected = matmul_of(a, b), sums(static_cast<size_t>(m), 0);
  const std::vector<double> old = values_of(out), x = values_of(a);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += old[i];
  for (size_t i = 0; i < x.size(); ++i) sums[i / static_cast<size_t>(k)] += x[i];
  MatmulEpilogue epilogue;
  epilogue.beta = 1;
  epilogue.a_sums = Array::empty({m}, DType::f32);
  const PackedMatmul multiply = GENERATE(from_range(packed_matmuls()));
  multiply(MatmulProblem(a, b, out, epilogue), epilogue);
  const double scale = std::sqrt(static_cast<double>(k));
  CHECK(worst_error(out, expected, scale) <= matmul_tolerance(DType::f32, dtype, k));
  CHECK(worst_error(epilogue.a_sums, sums, scale) <= matmul_tolerance(DType::f32, DType::f32, k));
}

TEST_CASE("large cpu matmuls give the same bits on any number of threads", "[matmul][cpu]") {
  Random random(6);
  const int64_t n = GENERATE(200, 900);
  const Array a = random_array({300, 700}, DType::f32, random);
  const Array b = random_array({700, n}, DType::f32, random);
  const PackedMatmul multiply = GENERATE(from_range(packed_matmuls()));
  const int threads = omp_get_max_threads();
  std::vector<std::vector<double>> results;
  for (const int used : {1, 2, 5}) {
    omp_set_num_threads(used);
    const Array out = Array::empty({300, n}, DType::f32);
    multiply(MatmulProblem(a, b, out, {}), {});
    results.push_back(values_of(out));
  }
  omp_set_num_threads(threads);
  CHECK(results[1] == results[0]);
  CHECK(results[2] == results[0]);
}
