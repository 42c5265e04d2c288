// Kernels that make gradients on the CPU: against finite differences of the op in f64, and sums and
// copies against plain loops. The formulas are those that the GPU's kernels share.
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/norm.h>
#include <binade/core/kernels/rearrange.h>
#include <binade/core/kernels/reduce.h>

#include <catch2/catch.hpp>

#include "core/kernel_arrays.h"

using namespace binade;
using namespace binade::test;
using namespace binade::kernels;

namespace {

constexpr DType kWide = DType::f64;

// Σ weights · values.
double dot(const Array& weights, const Array& values) {
  double sum = 0;
  for (int64_t i = 0; i < values.numel(); ++i) sum += read(weights, i) * read(values, i);
  return sum;
}

// Away from 0 and from each other: where the ops have slopes.
Array distinct(const Shape& shape, Random& random, double start) {
  const Array x = Array::empty(shape, kWide);
  for (int64_t i = 0; i < x.numel(); ++i)
    write(x, i,
          start + 0.25 * static_cast<double>(i % 7) + 0.01 * static_cast<double>(random() % 9));
  return x;
}

}  // namespace

TEST_CASE("gradients of functions equal finite differences", "[kernels][cpu][gradients]") {
  Random random(1);
  for (const UnaryOp op :
       {UnaryOp::abs, UnaryOp::square, UnaryOp::sqrt, UnaryOp::rsqrt, UnaryOp::reciprocal,
        UnaryOp::exp, UnaryOp::exp2, UnaryOp::expm1, UnaryOp::log, UnaryOp::log2, UnaryOp::log1p,
        UnaryOp::sin, UnaryOp::cos, UnaryOp::tan, UnaryOp::erf}) {
    INFO("op " << static_cast<int>(op));
    const double start = op == UnaryOp::tan ? -0.9 : 0.3;  // not over tan's pole
    const Array x = distinct({4, 5}, random, start), dy = random_array({4, 5}, kWide, random);
    const Array y = Array::empty(x.shape(), kWide), dx = Array::empty(x.shape(), kWide);
    cpu::unary_backward(op, x, dy, dx, 0);
    CHECK(worst_difference(x, dx, [&] {
            cpu::unary(op, x, y);
            return dot(dy, y);
          }) < 1e-7);
  }
  const Array x = Array::zeros({2}, kWide);
  CHECK_THROWS_AS(cpu::unary_backward(UnaryOp::floor, x, x, x, 0), Error);
}

TEST_CASE("gradients of two and three operands equal finite differences",
          "[kernels][cpu][gradients]") {
  Random random(2);
  const Shape shape{3, 7};
  const Array dy = random_array(shape, kWide, random), y = Array::empty(shape, kWide);
  const Array a = distinct(shape, random, -0.6), b = distinct(shape, random, 0.17),
              c = distinct(shape, random, 0.53);
  const auto empty = [&] { return Array::empty(shape, kWide); };
  for (const BinaryOp op :
       {BinaryOp::div, BinaryOp::atan2, BinaryOp::maximum, BinaryOp::minimum, BinaryOp::distance}) {
    INFO("op " << static_cast<int>(op));
    const Array da = empty(), db = empty();
    cpu::binary_backward(op, a, b, dy, da, db);
    const auto loss = [&] {
      cpu::binary(op, a, b, y);
      return dot(dy, y);
    };
    CHECK(worst_difference(a, da, loss) < 1e-7);
    CHECK(worst_difference(b, db, loss) < 1e-7);
    const Array alone = empty();
    cpu::binary_backward(op, a, b, dy, {}, alone);
    CHECK(values_of(alone) == values_of(db));
  }
  for (const TernaryOp op : {TernaryOp::lerp, TernaryOp::addcmul, TernaryOp::clamp}) {
    INFO("ternary op " << static_cast<int>(op));
    const Array da = empty(), db = empty(), dc = empty();
    cpu::ternary_backward(op, a, b, c, 0.7, dy, da, db, dc);
    const auto loss = [&] {
      cpu::ternary(op, a, b, c, 0.7, y);
      return dot(dy, y);
    };
    CHECK(worst_difference(a, da, loss) < 1e-7);
    CHECK(worst_difference(b, db, loss) < 1e-7);
    CHECK(worst_difference(c, dc, loss) < 1e-7);
  }
}

TEST_CASE("sums of pairs and moments equal a plain loop", "[kernels][cpu][gradients]") {
  Random random(3);
  const Shape shape{3, 50, 9};
  for (int layout = 0; layout < 3; ++layout)
    for (unsigned reduced = 1; reduced < 8; ++reduced) {
      Shape kept = shape;
      for (int d = 0; d < 3; ++d)
        if (reduced >> d & 1) kept[d] = 1;
      const Array a = any_layout(layout, shape, DType::f16, random);
      const Array b = any_layout(layout + 1, shape, DType::f16, random);
      const auto place_of = [&](int64_t i) {
        const int64_t at[] = {i / 450, i / 9 % 50, i % 9};
        int64_t place = 0;
        for (int d = 0; d < 3; ++d) place = place * kept[d] + (kept[d] == 1 ? 0 : at[d]);
        return static_cast<size_t>(place);
      };
      using Term = std::function<double(int64_t)>;
      const auto check_sums = [&](const char* what, const Array& out, const Term& term) {
        std::vector<double> expected(static_cast<size_t>(kept.numel()));
        for (int64_t i = 0; i < shape.numel(); ++i) expected[place_of(i)] += term(i);
        for (int64_t i = 0; i < out.numel(); ++i) {
          INFO("layout " << layout << ", dims " << reduced << ", " << what << ", element " << i);
          CHECK(read(out, i) ==
                Approx(expected[static_cast<size_t>(i)]).epsilon(1e-5).margin(1e-5));
        }
      };
      const auto empty = [&] { return Array::empty(kept, DType::f32); };
      const Array product = empty(), distance = empty();
      cpu::reduce_pairs(PairOp::product, a, b, product);
      cpu::reduce_pairs(PairOp::distance, a, b, distance);
      check_sums("product", product, [&](int64_t i) { return read(a, i) * read(b, i); });
      check_sums("distance", distance,
                 [&](int64_t i) { return std::abs(read(a, i) - read(b, i)); });
      const Array aa = empty(), ab = empty(), bb = empty();
      cpu::pair_products(a, b, aa, ab, bb);
      check_sums("a²", aa, [&](int64_t i) { return read(a, i) * read(a, i); });
      check_sums("ab", ab, [&](int64_t i) { return read(a, i) * read(b, i); });
      check_sums("b²", bb, [&](int64_t i) { return read(b, i) * read(b, i); });
      const Array mean = empty(), squares = empty();
      cpu::moments(a, mean, squares);
      const double count = static_cast<double>(shape.numel() / kept.numel());
      check_sums("mean", mean, [&](int64_t i) { return read(a, i) / count; });
      check_sums("squares", squares, [&](int64_t i) {
        const double apart = read(a, i) - read(mean, static_cast<int64_t>(place_of(i)));
        return apart * apart;
      });
    }
}

TEST_CASE("rearranged copies equal a plain loop", "[kernels][cpu][gradients]") {
  Random random(4);
  const Shape shape{3, 4, 6};
  const std::vector<AxisMap> kinds = {
      {.size = 6},
      {.size = 6, .offset = 5, .reversed = true},
      {.size = 6, .offset = -2, .beyond = Beyond::other_side},
      {.size = 6, .repeats = 3},
      {.size = 6, .offset = -2, .beyond = Beyond::number},
      {.size = 6, .offset = -3, .beyond = Beyond::mirror},
      {.size = 6, .offset = -9, .beyond = Beyond::edge},
      {.size = 6, .offset = 2},
  };
  // By hand, what row 0 1 2 3 4 5 becomes in ten places; −1 is the number.
  const std::vector<std::vector<double>> rows = {
      {0, 1, 2, 3, 4, 5, -1, -1, -1, -1}, {5, 4, 3, 2, 1, 0, -1, -1, -1, -1},
      {4, 5, 0, 1, 2, 3, 4, 5, 0, 1},     {0, 0, 0, 1, 1, 1, 2, 2, 2, 3},
      {-1, -1, 0, 1, 2, 3, 4, 5, -1, -1}, {3, 2, 1, 0, 1, 2, 3, 4, 5, 4},
      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0},     {2, 3, 4, 5, -1, -1, -1, -1, -1, -1}};
  for (const DType dtype : {DType::f64, DType::f32, DType::f16, DType::i64, DType::u8})
    for (int layout = 0; layout < 3; ++layout)
      for (size_t kind = 0; kind < kinds.size(); ++kind) {
        Array x = any_layout(layout, shape, DType::f32, random, 9);
        x = x.to(dtype);
        const std::vector<AxisMap> maps = {
            {.size = 3, .offset = 2, .reversed = true}, {.size = 4, .offset = -1}, kinds[kind]};
        const Array out = Array::empty({3, 5, 10}, dtype);
        cpu::rearrange(x, maps, 7, out);
        std::vector<double> expected;
        for (int64_t i = 0; i < 3; ++i)
          for (int64_t j = 0; j < 5; ++j)
            for (size_t k = 0; k < 10; ++k) {
              const double from = rows[kind][k];
              expected.push_back(j == 0 || from < 0 ? 7
                                                    : read(x, ((2 - i) * 4 + j - 1) * 6 +
                                                                  static_cast<int64_t>(from)));
            }
        INFO(dtype << ", layout " << layout << ", kind " << kind);
        CHECK(values_of(out) == expected);
      }
  const Array nothing = Array::empty({0, 3}, DType::f32), filled = Array::empty({2, 3}, DType::f32);
  cpu::rearrange(nothing, std::vector<AxisMap>{{.size = 0}, {.size = 3}}, 4, filled);
  CHECK(values_of(filled) == std::vector<double>(6, 4));
  const Array one = Array::full({}, 3, DType::f32), copied = Array::empty({}, DType::f32);
  cpu::rearrange(one, {}, 0, copied);
  CHECK(read(copied, 0) == 3);
}

TEST_CASE("sums that statistics scale equal their formulas", "[kernels][cpu][gradients]") {
  Random random(5);
  const Shape shape{4, 6};
  const Array x = random_array(shape, DType::f32, random),
              y = random_array(shape, DType::f32, random);
  const Array a = random_array({4, 1}, DType::f32, random).expand(shape),
              b = random_array({1, 6}, DType::f32, random).expand(shape),
              out = Array::empty(shape, DType::f32);
  const auto expect = [&](const auto& formula) {
    std::vector<double> expected;
    for (int64_t i = 0; i < shape.numel(); ++i)
      expected.push_back(formula(read(x, i), read(y, i), read(a, i), read(b, i)));
    CHECK(worst_error(out, expected) < 1e-6);
  };
  cpu::weighted_sum(x, {}, a, {}, {}, out);
  expect([](double x, double, double a, double) { return x * a; });
  cpu::weighted_sum(x, b, a, {}, {}, out);
  expect([](double x, double, double a, double b) { return (x - b) * a; });
  cpu::weighted_sum(x, {}, a, y, b, out);
  expect([](double x, double y, double a, double b) { return x * a + y * b; });
}

TEST_CASE("steps of norms over channels equal their formulas", "[kernels][cpu][gradients]") {
  Random random(6);
  const int64_t images = 3, channels = 4, plane = 35;
  const Shape shape{images, channels, plane}, vector{channels};
  const Array x = random_array(shape, kWide, random), dy = random_array(shape, kWide, random);
  const auto made = [&] { return random_array(vector, kWide, random); };
  const Array mean = Array::empty(vector, kWide), rstd = Array::empty(vector, kWide);
  cpu::channel_moments(x, 1e-3, mean, rstd);
  const auto values_in = [&](int64_t c, const auto& visit) {
    for (int64_t n = 0; n < images; ++n)
      for (int64_t p = 0; p < plane; ++p) visit((n * channels + c) * plane + p);
  };
  const Array products = Array::empty(vector, kWide), sums = Array::empty(vector, kWide);
  cpu::channel_sums(dy, x, mean, rstd, products, sums);
  const Array scale = made(), shift = made(), along = made();
  const Array y = Array::empty(shape, kWide), dx = Array::empty(shape, kWide);
  cpu::channel_affine(x, mean, scale, shift, y);
  cpu::channel_gradient(dy, x, mean, scale, shift, along, dx);
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0, squares = 0, product = 0, sum = 0;
    values_in(c, [&](int64_t i) { total += read(x, i); });
    const double center = total / (images * plane);
    values_in(c, [&](int64_t i) { squares += std::pow(read(x, i) - center, 2); });
    const double inverse = 1 / std::sqrt(squares / (images * plane) + 1e-3);
    CHECK(read(mean, c) == Approx(center));
    CHECK(read(rstd, c) == Approx(inverse));
    values_in(c, [&](int64_t i) {
      product += read(dy, i) * (read(x, i) - center) * inverse;
      sum += read(dy, i);
    });
    CHECK(read(products, c) == Approx(product));
    CHECK(read(sums, c) == Approx(sum));
    double worst = 0;
    values_in(c, [&](int64_t i) {
      const double way = read(x, i) - center;
      worst = std::max(worst, std::abs(read(y, i) - (way * read(scale, c) + read(shift, c))));
      worst = std::max(worst, std::abs(read(dx, i) - (read(dy, i) * read(scale, c) -
                                                      read(shift, c) - way * read(along, c))));
    });
    CHECK(worst < 1e-12);
  }
}
