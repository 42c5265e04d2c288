// Kernels of the CPU that read or write by index, against plain loops.
#include <binade/core/kernels/indexing.h>

#include <catch2/catch.hpp>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

struct Case {
  Shape x;  // what is read from or written to
  int dim;
  Shape index;  // gather, scatter: the index's shape
};
const std::vector<Case> kCases = {
    {{5}, 0, {9}},           {{4, 7}, 1, {4, 3}},          {{4, 7}, 0, {11, 7}},
    {{300, 5}, 1, {300, 1}}, {{3, 6, 50}, 1, {3, 20, 50}}, {{2, 3, 4, 5}, 2, {2, 3, 9, 5}}};

Array random_index(const Shape& shape, DType dtype, int64_t size, int layout, Random& random) {
  const Array index = any_layout(layout, shape, dtype, random);
  for (int64_t i = 0; i < index.numel(); ++i)
    write(index, i, static_cast<double>(random() % static_cast<uint64_t>(size)));
  return index;
}

// Coordinates of the row-major position i, and back.
std::vector<int64_t> coordinates(const Shape& shape, int64_t i) {
  std::vector<int64_t> at(static_cast<size_t>(shape.dims()));
  for (int dim = shape.dims() - 1; dim >= 0; --dim) {
    at[static_cast<size_t>(dim)] = i % shape[dim];
    i /= shape[dim];
  }
  return at;
}
int64_t position(const Shape& shape, const std::vector<int64_t>& at) {
  int64_t i = 0;
  for (int dim = 0; dim < shape.dims(); ++dim) i = i * shape[dim] + at[static_cast<size_t>(dim)];
  return i;
}

// Calls test(case, dtype, index dtype, layout, random).
template <class Test>
void for_cases(const Test& test) {
  Random random(53);
  for (const Case& c : kCases)
    for (const DType dtype :
         {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64, DType::i32})
      for (const DType index : {DType::i64, DType::i32})
        for (int layout = 0; layout < 3; ++layout) {
          INFO(concat(c.x) << " dim " << c.dim << " " << name_of(dtype) << " layout " << layout);
          test(c, dtype, index, layout, random);
        }
}

TEST_CASE("gather and index_select of the CPU", "[kernels][cpu]") {
  for_cases([](const Case& c, DType dtype, DType index_dtype, int layout, Random& random) {
    const size_t dim = static_cast<size_t>(c.dim);
    const Array x = any_layout(layout, c.x, dtype, random, 50);
    const Array index = random_index(c.index, index_dtype, c.x[c.dim], layout, random);
    const Array out = strided_array(c.index, dtype, random);
    cpu::gather(x, c.dim, index, out);
    std::vector<double> expected;
    for (int64_t i = 0; i < index.numel(); ++i) {
      std::vector<int64_t> at = coordinates(c.index, i);
      at[dim] = static_cast<int64_t>(read(index, i));
      expected.push_back(read(x, position(c.x, at)));
    }
    REQUIRE(values_of(out) == expected);

    const Array picks = random_index({13}, index_dtype, c.x[c.dim], layout, random);
    Shape picked_shape = c.x;
    picked_shape[c.dim] = 13;
    const Array picked = any_layout(layout % 2, picked_shape, dtype, random);
    cpu::index_select(x, c.dim - c.x.dims(), picks, picked);  // counted from the back
    expected.clear();
    for (int64_t i = 0; i < picked.numel(); ++i) {
      std::vector<int64_t> at = coordinates(picked_shape, i);
      at[dim] = static_cast<int64_t>(read(picks, at[dim]));
      expected.push_back(read(x, position(c.x, at)));
    }
    REQUIRE(values_of(picked) == expected);
  });
}

TEST_CASE("scatter and index_add of the CPU", "[kernels][cpu]") {
  for_cases([](const Case& c, DType dtype, DType index_dtype, int layout, Random& random) {
    const size_t dim = static_cast<size_t>(c.dim);
    const double limit =
        is_floating(dtype)
            ? 1.01 * epsilon_of(dtype) + 16 * epsilon_of(dtype == DType::f64 ? dtype : DType::f32)
            : 1e-300;
    const Array index = random_index(c.index, index_dtype, c.x[c.dim], layout, random);
    const Array source = any_layout(layout, c.index, dtype, random, 50);
    for (const bool add : {false, true}) {
      const Array out = strided_array(c.x, dtype, random, 50);
      std::vector<double> expected = values_of(out);
      for (int64_t i = 0; i < index.numel(); ++i) {  // in order: the last one stays
        std::vector<int64_t> at = coordinates(c.index, i);
        at[dim] = static_cast<int64_t>(read(index, i));
        double& target = expected[static_cast<size_t>(position(c.x, at))];
        target = (add ? target : 0) + read(source, i);
      }
      cpu::scatter(out, c.dim, index, source, add);
      REQUIRE(worst_error(out, expected, 100) < limit);
    }

    const Array places = random_index({13}, index_dtype, c.x[c.dim], layout, random);
    Shape rows_shape = c.x;
    rows_shape[c.dim] = 13;
    const Array rows = any_layout(layout, rows_shape, dtype, random, 50);
    const Array out = strided_array(c.x, dtype, random, 50);
    std::vector<double> expected = values_of(out);
    for (int64_t i = 0; i < rows.numel(); ++i) {
      std::vector<int64_t> at = coordinates(rows_shape, i);
      at[dim] = static_cast<int64_t>(read(places, at[dim]));
      expected[static_cast<size_t>(position(c.x, at))] += read(rows, i);
    }
    const std::vector<double> before = values_of(out);
    cpu::index_add(out, c.dim, places, rows, 1);
    REQUIRE(worst_error(out, expected, 100) < limit);
    cpu::index_add(out, c.dim, places, rows, 0);  // without what was there
    for (size_t i = 0; i < expected.size(); ++i) expected[i] -= before[i];
    REQUIRE(worst_error(out, expected, 100) < limit);
  });
}

TEST_CASE("sources beyond a tile of indices go where theirs say", "[kernels][cpu]") {
  // Of a vector, of rows that lie side by side, and of rows that do not; whole numbers add exactly.
  const int64_t count = 2500;
  Random random(71);
  std::vector<int64_t> at(static_cast<size_t>(count));
  for (int64_t& place : at) place = static_cast<int64_t>(random() % 7);
  const Array index = Array::from(at, {count});
  for (const bool dense : {true, false})
    for (const int64_t width : {1, 3, 70}) {
      INFO(width << (dense ? " side by side" : " apart"));
      const Array source = Array::empty({count, dense ? width : 2 * width}, DType::f32);
      for (int64_t i = 0; i < source.numel(); ++i) write(source, i, static_cast<double>(i % 11));
      const Array rows = dense ? source : source.slice(1, 0, 2 * width, 2);
      const Array sums = Array::zeros({7, width}, DType::f32), last = sums.clone();
      cpu::index_add(sums, 0, index, rows, 1);
      cpu::scatter(last, 0, index.unsqueeze(1).expand(rows.shape()), rows, false);
      std::vector<double> expected(static_cast<size_t>(7 * width)), newest = expected;
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < width; ++c) {
          const auto place = static_cast<size_t>(at[static_cast<size_t>(i)] * width + c);
          expected[place] += read(rows, i * width + c);
          newest[place] = read(rows, i * width + c);
        }
      CHECK((values_of(sums) == expected));
      CHECK((values_of(last) == newest));
    }
}

TEST_CASE("sums of halves by index are rounded once", "[kernels][cpu]") {
  // 2048 + 1 + 1 + ...: in f16 every addition of 1 would be lost.
  const Array out = array_of({2048, 5}, {2}, DType::f16);
  const Array index = Array::zeros({100}, DType::i64);
  cpu::index_add(out, 0, index, Array::full({100}, 1, DType::f16), 1);
  CHECK(values_of(out) == std::vector<double>{2148, 5});
}

TEST_CASE("embedding of the CPU, forward and backward", "[kernels][cpu]") {
  Random random(59);
  for (const DType table_dtype : kFloatingTypes)
    for (const DType out_dtype : kFloatingTypes)
      for (const int64_t width : {1, 24, 384}) {
        INFO(name_of(table_dtype) << " to " << name_of(out_dtype) << " width " << width);
        const int64_t vocabulary = 50, tokens = 700;
        const Array table = random_array({vocabulary, width}, table_dtype, random);
        const Array index = random_index({tokens}, DType::i64, vocabulary / 2, 1, random);
        const Array out = Array::empty({tokens, width}, out_dtype);
        cpu::embedding(table, index, out);
        std::vector<double> expected;
        for (int64_t i = 0; i < out.numel(); ++i)
          expected.push_back(
              read(table, static_cast<int64_t>(read(index, i / width)) * width + i % width));
        REQUIRE(values_of(out) == values_of(array_of(expected, out.shape(), out_dtype)));

        for (const float beta : {0.0f, 1.0f}) {
          const Array dtable = random_array({vocabulary, width}, table_dtype, random);
          std::vector<double> sums = values_of(dtable);
          for (double& value : sums) value *= beta;
          for (int64_t i = 0; i < out.numel(); ++i)
            sums[static_cast<size_t>(static_cast<int64_t>(read(index, i / width)) * width +
                                     i % width)] += read(out, i);
          cpu::embedding_backward(out, index, dtable, beta);
          const double inner =
              128 * epsilon_of(table_dtype == DType::f64 ? table_dtype : DType::f32);
          REQUIRE(worst_error(dtable, sums) < 1.01 * epsilon_of(table_dtype) + inner);
        }
      }
}

TEST_CASE("an index out of range throws, and nothing is written", "[kernels][cpu]") {
  const Array x = Array::full({4, 3}, 1, DType::f32), out = Array::full({4, 3}, 9, DType::f32);
  for (const int64_t bad : {int64_t{4}, int64_t{-1}, int64_t{1} << 33}) {
    const Array index = Array::from(std::vector<int64_t>{0, bad, 1, 2}, {4});
    const Array wide = index.view({4, 1}).expand({4, 3});
    const std::string name = concat("index ", bad, " is out of range for a size of 4");
    CHECK_THROWS_WITH(cpu::gather(x, 0, wide, out), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::scatter(out, 0, wide, x, false), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::scatter(out, 0, wide, x, true), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::index_select(x, 0, index, out), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::index_add(out, 0, index, x, 1), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::embedding(x, index, out), Catch::Contains(name));
    CHECK_THROWS_WITH(cpu::embedding_backward(x, index, out, 0), Catch::Contains(name));
  }
  CHECK(values_of(out) == std::vector<double>(12, 9));
}

TEST_CASE("the last writers of rows and merged rows of the CPU", "[kernels][cpu]") {
  Random random(54);
  for (const DType dtype : {DType::f64, DType::f16, DType::i32, DType::u8})
    for (int dim = 0; dim < 3; ++dim)
      for (int layout = 0; layout < 3; ++layout) {
        const Shape shape{4, 6, 33};
        Shape given = shape;
        given[dim] = 9;
        const int64_t places = shape[dim];
        const Array index = Array::empty({9}, DType::i64),
                    last = Array::empty({places}, DType::i64), kept = Array::empty({9}, DType::i64);
        for (int64_t k = 0; k < 9; ++k)
          write(index, k, static_cast<double>(random() % static_cast<uint64_t>(places)) - (k == 4));
        const Array base = any_layout(layout, shape, dtype, random),
                    source = any_layout(2 - layout, given, dtype, random),
                    out = Array::empty(shape, dtype);
        cpu::last_writers(index, last, kept);
        cpu::merge_rows(base, source, dim, last, out);
        INFO(name_of(dtype) << " dim " << dim << " layout " << layout);
        std::vector<int64_t> writer(static_cast<size_t>(places), -1);
        for (int64_t k = 0; k < 9; ++k)
          if (read(index, k) >= 0) writer[static_cast<size_t>(read(index, k))] = k;
        for (int64_t p = 0; p < places; ++p)
          CHECK(read(last, p) == static_cast<double>(writer[static_cast<size_t>(p)]));
        for (int64_t k = 0; k < 9; ++k) {
          const double place = read(index, k);
          const bool stays = place >= 0 && writer[static_cast<size_t>(place)] == k;
          CHECK(read(kept, k) == (stays ? place : -1));
        }
        for (int64_t i = 0; i < out.numel(); ++i) {
          std::vector<int64_t> at = coordinates(shape, i);
          const int64_t k = writer[static_cast<size_t>(at[static_cast<size_t>(dim)])];
          const double kept_value = read(base, i);
          if (k >= 0) at[static_cast<size_t>(dim)] = k;
          CHECK(read(out, i) == (k >= 0 ? read(source, position(given, at)) : kept_value));
        }
      }
}

}  // namespace
}  // namespace binade::test
