// Matmuls on BF16 tiles: their accuracy beside that of FP32 multiply-adds, and the numbers that do
// not split.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <limits>

#include <binade/core/kernels/cpu/matmul/amx_tile.h>
#include <binade/core/kernels/cpu/matmul/blocked_matmul.h>

#include "kernel_arrays.h"
#include "skip.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels::cpu;
using kernels::MatmulEpilogue;

namespace {

void need_tiles() {
  if (tile_kernel() == nullptr) skip("no AMX, or BINADE_AMX=0");
}

// Normal numbers times 2^s, s uniform in ± binades/2.
Array random_normal(const Shape& shape, DType dtype, double binades, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> exponent(-binades / 2, binades / 2);
  const Array array = Array::empty(shape, dtype);
  for (int64_t i = 0; i < array.numel(); ++i)
    write(array, i, normal(generator) * std::exp2(exponent(generator)));
  return array;
}

// a · b and |a| · |b| by plain loops in f64.
struct Reference {
  std::vector<double> product, magnitude;

  Reference(const Array& a, const Array& b)
      : product(static_cast<size_t>(a.size(0) * b.size(1))), magnitude(product.size()) {
    const int64_t m = a.size(0), k = a.size(1), n = b.size(1);
    const std::vector<double> x = values_of(a), y = values_of(b);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t l = 0; l < k; ++l)
        for (int64_t j = 0; j < n; ++j) {
          const double term = x[static_cast<size_t>(i * k + l)] * y[static_cast<size_t>(l * n + j)];
          product[static_cast<size_t>(i * n + j)] += term;
          magnitude[static_cast<size_t>(i * n + j)] += std::fabs(term);
        }
  }
};

struct Errors {
  double rms = 0, largest = 0;  // against the size of the result, and against Σ |terms|
};
Errors errors_of(const Array& out, const Reference& expected) {
  Errors errors;
  double squares = 0, size = 0;
  for (size_t i = 0; i < expected.product.size(); ++i) {
    const double error = std::fabs(read(out, static_cast<int64_t>(i)) - expected.product[i]);
    squares += error * error;
    size += expected.product[i] * expected.product[i];
    errors.largest = std::max(errors.largest, error / expected.magnitude[i]);
  }
  errors.rms = std::sqrt(squares / size);
  return errors;
}

Array split_matmul(const Array& a, const Array& b) {
  const Array out = Array::empty({a.size(0), b.size(1)}, DType::f32);
  bf16_split_matmul(MatmulProblem(a, b, out, {}), {});
  return out;
}
Array vector_matmul(const Array& a, const Array& b) {
  const Array out = Array::empty({a.size(0), b.size(1)}, DType::f32);
  blocked_matmul(MatmulProblem(a, b, out, {}), {});
  return out;
}

}  // namespace

TEST_CASE("split f32 matmuls are as accurate as multiply-adds", "[matmul][cpu]") {
  need_tiles();
  const int64_t m = 64, n = 96, k = GENERATE(16, 64, 384, 2048, 9000);
  const double binades = GENERATE(0, 12);
  CAPTURE(k, binades);
  const Array a = random_normal({m, k}, DType::f32, binades, 1);
  const Array b = random_normal({k, n}, DType::f32, binades, 2);
  const Reference expected(a, b);
  const Errors split = errors_of(split_matmul(a, b), expected);
  const Errors vectors = errors_of(vector_matmul(a, b), expected);
  CAPTURE(split.rms, vectors.rms, split.largest, vectors.largest);
  // With few terms, of which one is most of the sum, the products that are left out show.
  CHECK(split.rms <= (k <= 16 ? 1.2 : 1.0) * vectors.rms);
  CHECK(split.largest <= (k <= 16 ? 1.2 : 1.0) * vectors.largest);
}

TEST_CASE("split matmuls keep every bit of an operand", "[matmul][cpu]") {
  need_tiles();
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const int64_t size = 96;
  const Array identity = Array::zeros({size, size}, dtype);
  for (int64_t i = 0; i < size; ++i) write(identity, i * (size + 1), 1);
  const double binades = dtype == DType::f16 ? 20 : 80;
  const Array x = random_normal({size, size}, dtype, binades, 3);
  CHECK(values_of(split_matmul(x, identity)) == values_of(x));
  CHECK(values_of(split_matmul(identity, x)) == values_of(x));
}

TEST_CASE("split matmuls of half numbers are exact", "[matmul][cpu]") {
  need_tiles();
  const DType dtype = GENERATE(DType::f16, DType::bf16);
  const Array a = random_normal({48, 1}, dtype, 6, 4), b = random_normal({1, 80}, dtype, 6, 5);
  CHECK(values_of(split_matmul(a, b)) == Reference(a, b).product);
}

TEST_CASE("split matmuls of numbers that do not split", "[matmul][cpu]") {
  need_tiles();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kLargest = std::numeric_limits<float>::max();
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const int64_t m = 300, n = 70, k = GENERATE(40, 2100);
  const Array a = random_normal({m, k}, dtype, 0, 6), b = random_normal({k, n}, dtype, 0, 7);
  const bool in_a = GENERATE(true, false);
  const auto put = [&](int64_t line, int64_t along, double value) {
    if (dtype == DType::f16 && std::isfinite(value)) return;
    in_a ? write(a, line * k + along, value) : write(b, along * n + line, value);
  };
  put(3, 5, kInfinity);
  put(17, 39, -kInfinity);
  put(20, 0, kNan);
  put(40, 1, kInfinity);  // ∞ − ∞
  put(40, 2, -kInfinity);
  put(50, 7, 0x1p127);  // remains finite
  put(60, 8, kLargest);
  if (in_a) {  // a zero that meets an infinity, products beyond f32, and a whole block of rows
    write(b, 5 * n + 4, 0);
    if (dtype != DType::f16) write(b, 8 * n + 9, 4), write(b, 8 * n + 10, -4);
  }
  const Array out = split_matmul(a, b);
  const Reference expected(a, b);
  int64_t wrong = 0, special = 0;
  for (int64_t i = 0; i < m * n; ++i) {
    const double value = read(out, i), exact = expected.product[static_cast<size_t>(i)];
    const double magnitude = expected.magnitude[static_cast<size_t>(i)];
    if (std::isnan(exact)) {
      wrong += !std::isnan(value);
    } else if (std::fabs(exact) > kLargest) {
      wrong += value != std::copysign(kInfinity, exact);
    } else {
      wrong += !(std::fabs(value - exact) <= 1e-5 * magnitude);
    }
    special += !std::isfinite(value);
  }
  CHECK(wrong == 0);
  CHECK(special >= 4 * (in_a ? n : m));
}

TEST_CASE("BINADE_AMX=0 turns the tiles off", "[matmul][cpu]") {
  const char* const setting = std::getenv("BINADE_AMX");
  if (setting == nullptr || std::string(setting) != "0") skip("BINADE_AMX is not 0");
  CHECK(tile_kernel() == nullptr);
}
