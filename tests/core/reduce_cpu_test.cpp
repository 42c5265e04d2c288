// Reductions, scans and orderings of the CPU against loops in f64.
#include <binade/core/kernels/reduce.h>
#include <binade/core/kernels/sort.h>

#include <omp.h>

#include <catch2/catch.hpp>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

const std::vector<Shape> kShapes = {{1},         {9},        {3000},         {17, 5},
                                    {5, 17},     {300, 70},  {2, 3, 4, 5},   {3, 1, 64},
                                    {6, 40, 33}, {20000, 3}, {2, 1100, 2, 9}};

// Position of the element `index` of `shape` in an array of shape `out` with some sizes 1 instead.
int64_t position_in(const Shape& out, const Shape& shape, int64_t index) {
  int64_t position = 0, stride = 1;
  for (int dim = shape.dims() - 1; dim >= 0; --dim) {
    const int64_t at = index % shape[dim];
    index /= shape[dim];
    if (out[dim] != 1) position += at * stride;
    stride *= out[dim];
  }
  return position;
}

// A fold over x into the elements of `out_shape`.
template <class Fold>
std::vector<double> folded(const Array& x, const Shape& out_shape, double start, const Fold& fold) {
  std::vector<long double> result(static_cast<size_t>(out_shape.numel()), start);
  for (int64_t i = 0; i < x.numel(); ++i) {
    long double& total = result[static_cast<size_t>(position_in(out_shape, x.shape(), i))];
    total = fold(total, read(x, i));
  }
  return {result.begin(), result.end()};
}

// Calls test(x, out_shape, random) for random layouts and subsets of the dimensions.
template <class Test>
void for_reductions(std::initializer_list<DType> dtypes, const Test& test) {
  Random random(23);
  for (const DType dtype : dtypes)
    for (const Shape& shape : kShapes)
      for (int layout = 0; layout < 3; ++layout) {
        const Array x = any_layout(layout, shape, dtype, random);
        Shape out_shape = shape;
        for (int dim = 0; dim < shape.dims(); ++dim)
          if (random() % 2) out_shape[dim] = 1;
        INFO(name_of(dtype) << " " << concat(shape) << " to " << concat(out_shape) << " layout "
                            << layout);
        test(x, out_shape, random);
      }
}

TEST_CASE("sums and means of the CPU over any dimensions", "[kernels][cpu]") {
  for_reductions({DType::f64, DType::f32, DType::f16, DType::bf16}, [](const Array& x,
                                                                       const Shape& out_shape,
                                                                       Random& random) {
    const double count = static_cast<double>(x.numel()) / static_cast<double>(out_shape.numel());
    const auto add = [](long double a, double b) { return a + b; };
    const std::vector<double> sums = folded(x, out_shape, 0, add);
    const DType wide = is_half(x.dtype()) ? DType::f32 : x.dtype();
    for (const DType dtype : {x.dtype(), wide})
      for (const float beta : {0.0f, 1.0f}) {
        const Array out = strided_array(out_shape, dtype, random);
        const std::vector<double> old = values_of(out);
        std::vector<double> expected = sums;
        for (size_t i = 0; i < sums.size(); ++i) expected[i] = beta * old[i] + sums[i];
        cpu::reduce(ReduceOp::sum, x, out, beta);
        // Rounding within the sum grows with the terms, not with their sum.
        const double inner =
            16 * std::sqrt(count) * epsilon_of(wide == DType::f64 ? wide : DType::f32);
        REQUIRE(worst_error(out, expected) < epsilon_of(dtype) * 1.01 + inner);
        for (size_t i = 0; i < sums.size(); ++i) expected[i] = sums[i] / count;
        cpu::reduce(ReduceOp::mean, x, out, 0);
        REQUIRE(worst_error(out, expected) < epsilon_of(dtype) * 1.01 + inner / std::sqrt(count));
      }
  });
}

TEST_CASE("maxima and minima of the CPU are exact and pass NaN on", "[kernels][cpu]") {
  for_reductions({DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32},
                 [](const Array& x, const Shape& out_shape, Random& random) {
                   const auto larger = [](long double a, double b) -> long double {
                     return std::isnan(b) || b > a ? b : a;
                   };
                   const auto smaller = [](long double a, double b) -> long double {
                     return std::isnan(b) || b < a ? b : a;
                   };
                   const Array out = strided_array(out_shape, x.dtype(), random);
                   cpu::reduce(ReduceOp::max, x, out, 0);
                   REQUIRE(values_of(out) == folded(x, out_shape, -INFINITY, larger));
                   cpu::reduce(ReduceOp::min, x, out, 0);
                   REQUIRE(values_of(out) == folded(x, out_shape, INFINITY, smaller));
                   if (!is_floating(x.dtype())) return;

                   const int64_t bad =
                       static_cast<int64_t>(random() % static_cast<uint64_t>(x.numel()));
                   write(x, bad, NAN);
                   for (const ReduceOp op : {ReduceOp::max, ReduceOp::min}) {
                     cpu::reduce(op, x, out, 0);
                     REQUIRE(std::isnan(read(out, position_in(out_shape, x.shape(), bad))));
                   }
                 });
}

TEST_CASE("integers and bool sum into i64", "[kernels][cpu]") {
  const Array bools = Array::full({300, 40}, 1, DType::boolean);
  const Array out = Array::empty({1, 40}, DType::i64);
  cpu::reduce(ReduceOp::sum, bools, out, 0);
  CHECK(values_of(out) == std::vector<double>(40, 300));
  const Array numbers = Array::arange(100000, DType::i32);
  const Array total = Array::empty({1}, DType::i64);
  cpu::reduce(ReduceOp::sum, numbers, total, 0);
  CHECK(total.item() == 4999950000.0);
}

TEST_CASE("a sum of ten million f32 stays accurate", "[kernels][cpu]") {
  const int64_t n = 10'000'000;
  const Array x = Array::full({n}, 0.1, DType::f32);
  x.slice(0, 0, kToEnd, 2).fill(0.3);
  const Array out = Array::empty({1}, DType::f32);
  cpu::reduce(ReduceOp::sum, x, out, 0);
  const double expected = static_cast<double>(n / 2) * (static_cast<double>(0.1f) + 0.3f);
  CHECK(out.item() == Approx(expected).epsilon(1e-7));
  // By columns: two sums of five million each.
  const Array pair = Array::empty({1, 2}, DType::f32);
  cpu::reduce(ReduceOp::sum, x.view({n / 2, 2}), pair, 0);
  CHECK(read(pair, 0) == Approx(static_cast<double>(n / 2) * 0.3f).epsilon(1e-7));
  CHECK(read(pair, 1) == Approx(static_cast<double>(n / 2) * 0.1f).epsilon(1e-7));
}

TEST_CASE("sums have the same bits on any number of threads and at any address", "[kernels][cpu]") {
  Random random(4);
  const Array storage = random_array({600 * 700 + 3}, DType::f32, random);
  const int threads = omp_get_max_threads();
  for (const Shape& out_shape : {Shape{1, 1}, Shape{1, 700}, Shape{600, 1}}) {
    std::vector<std::vector<double>> results;
    for (const int used : {1, 2, 3}) {
      omp_set_num_threads(used);
      const Array out = Array::empty(out_shape, DType::f32);
      const Array moved = storage.slice(0, used, used + 600 * 700);
      moved.copy_from(storage.slice(0, 0, 600 * 700).clone());
      cpu::reduce(ReduceOp::sum, moved.view({600, 700}), out, 0);
      results.push_back(values_of(out));
      storage.slice(0, 0, 600 * 700).copy_from(moved.clone());
    }
    omp_set_num_threads(threads);
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
}

// Calls test(x, dim, lines) with the elements of each line along `dim` in order, lines[line][i].
template <class Test>
void for_lines(std::initializer_list<DType> dtypes, const Test& test) {
  Random random(29);
  for (const DType dtype : dtypes)
    for (const Shape& shape :
         {Shape{1}, Shape{2500}, Shape{7, 33}, Shape{4, 5, 6}, Shape{20, 2, 40}})
      for (int layout = 0; layout < 3; ++layout)
        for (int dim = 0; dim < shape.dims(); ++dim) {
          const Array x = any_layout(layout, shape, dtype, random);
          Shape lines_shape = shape;
          lines_shape[dim] = 1;
          std::vector<std::vector<double>> lines(static_cast<size_t>(lines_shape.numel()));
          for (int64_t i = 0; i < x.numel(); ++i)
            lines[static_cast<size_t>(position_in(lines_shape, shape, i))].push_back(read(x, i));
          INFO(name_of(dtype) << " " << concat(shape) << " dim " << dim << " layout " << layout);
          test(x, dim, lines, random);
        }
}

using Lines = std::vector<std::vector<double>>;

// The elements of an array along `dim`, as in for_lines.
Lines lines_of(const Array& array, int dim) {
  Shape lines_shape = array.shape();
  lines_shape[dim] = 1;
  Lines lines(static_cast<size_t>(lines_shape.numel()));
  for (int64_t i = 0; i < array.numel(); ++i)
    lines[static_cast<size_t>(position_in(lines_shape, array.shape(), i))].push_back(
        read(array, i));
  return lines;
}

TEST_CASE("arg_reduce and logsumexp of the CPU", "[kernels][cpu]") {
  for_lines({DType::f64, DType::f32, DType::bf16}, [](const Array& x, int dim, const Lines& lines,
                                                      Random& random) {
    Shape out_shape = x.shape();
    out_shape[dim] = 1;
    const Array largest = strided_array(out_shape, DType::i64, random);
    const Array smallest = Array::empty(out_shape, DType::i64);
    const DType wide = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
    const Array log_sums = Array::empty(out_shape, wide);
    cpu::arg_reduce(true, x, dim, largest);
    cpu::arg_reduce(false, x, dim, smallest);
    cpu::logsumexp(x, dim, log_sums);
    for (size_t i = 0; i < lines.size(); ++i) {
      const auto& line = lines[i];
      REQUIRE(read(largest, static_cast<int64_t>(i)) ==
              static_cast<double>(std::max_element(line.begin(), line.end()) - line.begin()));
      REQUIRE(read(smallest, static_cast<int64_t>(i)) ==
              static_cast<double>(std::min_element(line.begin(), line.end()) - line.begin()));
      double total = 0;
      for (const double value : line) total += std::exp(value);
      REQUIRE(read(log_sums, static_cast<int64_t>(i)) ==
              Approx(std::log(total)).epsilon(16 * epsilon_of(wide)).margin(1e-6));
    }
  });
}

TEST_CASE("logsumexp and arg_reduce at the edges", "[kernels][cpu]") {
  const Array x =
      array_of({-INFINITY, -INFINITY, 3, INFINITY, 1e4, 1e4, NAN, 7}, {4, 2}, DType::f32);
  const Array out = Array::empty({4, 1}, DType::f32);
  cpu::logsumexp(x, 1, out);
  CHECK(read(out, 0) == -INFINITY);
  CHECK(read(out, 1) == INFINITY);
  CHECK(read(out, 2) == Approx(1e4 + std::log(2)));
  CHECK(std::isnan(read(out, 3)));
  const Array y = array_of({1, NAN, 5, NAN}, {4}, DType::f32), at = Array::empty({1}, DType::i64);
  cpu::arg_reduce(true, y, 0, at);
  CHECK(at.item() == 1);
  cpu::arg_reduce(false, y, 0, at);
  CHECK(at.item() == 1);
}

TEST_CASE("cumsum of the CPU, from either end", "[kernels][cpu]") {
  for_lines({DType::f64, DType::f32, DType::f16, DType::i64},
            [](const Array& x, int dim, const Lines& lines, Random& random) {
              for (const bool reverse : {false, true}) {
                const Array out = strided_array(x.shape(), x.dtype(), random);
                cpu::cumsum(x, dim, reverse, out);
                const Lines sums = lines_of(out, dim);
                double worst = 0;
                for (size_t i = 0; i < lines.size(); ++i) {
                  const size_t n = lines[i].size();
                  double total = 0;
                  for (size_t k = 0; k < n; ++k) {
                    const size_t at = reverse ? n - 1 - k : k;
                    total += lines[i][at];
                    worst = std::max(worst, std::abs(sums[i][at] - total) / (1 + std::abs(total)));
                  }
                }
                REQUIRE(worst < (is_floating(x.dtype())
                                     ? 1.01 * epsilon_of(x.dtype()) + 2500 * epsilon_of(DType::f64)
                                     : 1e-300));
              }
            });
}

TEST_CASE("sort and topk of the CPU are stable, NaN the largest", "[kernels][cpu]") {
  for_lines({DType::f32, DType::f16, DType::i32}, [](const Array& x, int dim, const Lines&,
                                                     Random& random) {
    if (is_floating(x.dtype()) && x.numel() > 3) write(x, x.numel() / 2, NAN);
    const Lines lines = lines_of(x, dim);
    const int64_t n = x.size(dim), k = std::max<int64_t>(1, n / 3);
    for (const bool descending : {false, true}) {
      const Array values = strided_array(x.shape(), x.dtype(), random);
      const Array indices = strided_array(x.shape(), DType::i64, random);
      cpu::sort(x, dim, descending, values, indices);
      Shape top_shape = x.shape();
      top_shape[dim] = k;
      const Array top = Array::empty(top_shape, x.dtype());
      const Array top_indices = Array::empty(top_shape, DType::i64);
      cpu::topk(x, k, dim, top, top_indices);

      const Lines got_values = lines_of(values, dim), got_indices = lines_of(indices, dim);
      const Lines got_top = lines_of(top, dim), got_top_indices = lines_of(top_indices, dim);
      bool right = true;
      for (size_t i = 0; i < lines.size(); ++i) {
        // NaN replaced by infinity, which does not occur: an ordinary stable sort does the rest.
        std::vector<double> keys = lines[i];
        for (double& key : keys)
          if (std::isnan(key)) key = INFINITY;
        std::vector<double> order(keys.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](double a, double b) {
          const double x_a = keys[static_cast<size_t>(a)], x_b = keys[static_cast<size_t>(b)];
          return descending ? x_a > x_b : x_a < x_b;
        });
        right &= got_indices[i] == order;
        for (size_t j = 0; j < order.size(); ++j) {
          const double value = lines[i][static_cast<size_t>(order[j])];
          right &= got_values[i][j] == value || (std::isnan(value) && std::isnan(got_values[i][j]));
        }
        if (descending) {
          order.resize(static_cast<size_t>(k));
          right &= got_top_indices[i] == order;
          for (size_t j = 0; j < order.size(); ++j) {
            const double value = lines[i][static_cast<size_t>(order[j])];
            right &= got_top[i][j] == value || (std::isnan(value) && std::isnan(got_top[i][j]));
          }
        }
      }
      REQUIRE(right);
    }
  });
}

}  // namespace
}  // namespace binade::test
