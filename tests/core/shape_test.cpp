#include <binade/core/shape.h>

#include <cstdint>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/dtype.h>

using namespace binade;
using Catch::Contains;

TEST_CASE("a shape knows its sizes from the front and from the back", "[shape]") {
  const Shape shape{2, 3, 5};
  CHECK(shape.dims() == 3);
  CHECK(shape.numel() == 30);
  CHECK(shape[0] == 2);
  CHECK(shape.at(-1) == 5);
  CHECK(shape.at(-3) == 2);
  CHECK(shape.back() == 5);
  CHECK(shape.row_major_strides() == Shape{15, 5, 1});
  CHECK_THROWS_AS(shape.at(3), Error);
  CHECK_THROWS_AS(shape.at(-4), Error);
  // [] counts from the front alone; what lies beside the sizes in memory is none of it.
  for (const int outside : {-1, 3, kMaxDims, -kMaxDims})
    CHECK_THROWS_WITH(shape[outside], Contains("out of range") && Contains("3 dimensions"));
  CHECK(concat(shape, Shape{}, Shape{7}) == "(2, 3, 5)()(7)");
}

TEST_CASE("a shape without dimensions is a scalar", "[shape]") {
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{}.row_major_strides() == Shape{});
  CHECK_THROWS_AS(Shape{}.at(0), Error);
  Shape scalar;
  CHECK_THROWS_AS(scalar[0] = 1, Error);
}

TEST_CASE("a shape of size 0 has no elements and usable strides", "[shape]") {
  CHECK(Shape{3, 0, 4}.numel() == 0);
  CHECK(Shape{3, 0, 4}.row_major_strides() == Shape{4, 4, 1});
}

TEST_CASE("sizes are inserted and erased anywhere", "[shape]") {
  Shape shape{2, 3};
  shape.insert(0, 7);
  shape.insert(3, 9);
  shape.push_back(1);
  CHECK(shape == Shape{7, 2, 3, 9, 1});
  shape.erase(1);
  shape.erase(3);
  CHECK(shape == Shape{7, 3, 9});
  CHECK_THROWS_AS(shape.insert(4, 1), Error);
  CHECK_THROWS_AS(shape.insert(-1, 1), Error);
  CHECK_THROWS_AS(shape.erase(3), Error);
}

TEST_CASE("equal sizes of another number of dimensions are another shape", "[shape]") {
  CHECK_FALSE(Shape{2, 3} == Shape{2, 3, 1});
  CHECK_FALSE(Shape{2, 3} == Shape{2, 4});
  CHECK(Shape::filled(2, 4) == Shape{4, 4});
}

TEST_CASE("a shape has at most eight dimensions", "[shape]") {
  Shape shape = Shape::filled(kMaxDims, 1);
  CHECK_THROWS_AS(shape.push_back(1), Error);
  CHECK_THROWS_AS(shape.insert(0, 1), Error);
  CHECK_THROWS_AS(Shape::filled(kMaxDims + 1, 1), Error);
  CHECK_THROWS_AS(Shape(std::vector<int64_t>(9, 1)), Error);
}

TEST_CASE("a shape whose elements int64 cannot count is refused", "[shape][bad-input]") {
  const int64_t big = int64_t{1} << 32;
  CHECK((Shape{big / 4, big}.numel() == int64_t{1} << 62));
  CHECK_THROWS_WITH((Shape{big, big}.numel()), Contains("(4294967296, 4294967296)"));
  // A size of 0 would hide the overflow of the strides.
  CHECK_THROWS_AS((Shape{big, big, 0}.numel()), Error);
  CHECK_THROWS_AS((Shape{0, big, big}.row_major_strides()), Error);
  CHECK_THROWS_WITH((Shape{2, -1}.numel()), Contains("negative"));
}

TEST_CASE("shapes broadcast as in NumPy", "[shape]") {
  const auto both = [](const Shape& a, const Shape& b) {
    const Shape result = broadcast(a, b, "add");
    CHECK(broadcast(b, a, "add") == result);
    return result;
  };
  CHECK(both({}, {}) == Shape{});
  CHECK(both({3}, {}) == Shape{3});
  CHECK(both({2, 3}, {3}) == Shape{2, 3});
  CHECK(both({2, 1, 4}, {5, 1}) == Shape{2, 5, 4});
  CHECK(both({1}, {0}) == Shape{0});
  CHECK(both({0, 3}, {1, 3}) == Shape{0, 3});
}

TEST_CASE("shapes that do not broadcast are named with the op", "[shape][bad-input]") {
  CHECK_THROWS_WITH(broadcast({2, 3}, {2}, "add"),
                    Contains("add") && Contains("(2, 3)") && Contains("(2)"));
  CHECK_THROWS_AS(broadcast({2}, {0}, "add"), Error);
}

TEST_CASE("dtypes promote to one that holds both", "[dtype]") {
  // By rows: f64 f32 f16 bf16 i64 i32 u8 bool with each of the same.
  const char* table[8][8] = {{"f64", "f64", "f64", "f64", "f64", "f64", "f64", "f64"},
                             {"f64", "f32", "f32", "f32", "f32", "f32", "f32", "f32"},
                             {"f64", "f32", "f16", "f32", "f16", "f16", "f16", "f16"},
                             {"f64", "f32", "f32", "bf16", "bf16", "bf16", "bf16", "bf16"},
                             {"f64", "f32", "f16", "bf16", "i64", "i64", "i64", "i64"},
                             {"f64", "f32", "f16", "bf16", "i64", "i32", "i32", "i32"},
                             {"f64", "f32", "f16", "bf16", "i64", "i32", "u8", "u8"},
                             {"f64", "f32", "f16", "bf16", "i64", "i32", "u8", "bool"}};
  for (int a = 0; a < 8; ++a)
    for (int b = 0; b < 8; ++b)
      CHECK(name_of(promote(static_cast<DType>(a), static_cast<DType>(b))) == table[a][b]);
}

TEST_CASE("dtypes know their name, size and kind", "[dtype]") {
  struct Row {
    DType dtype;
    const char* name;
    int64_t size;
    bool floating, half, integral;
  };
  const Row rows[] = {
      {DType::f64, "f64", 8, true, false, false}, {DType::f32, "f32", 4, true, false, false},
      {DType::f16, "f16", 2, true, true, false},  {DType::bf16, "bf16", 2, true, true, false},
      {DType::i64, "i64", 8, false, false, true}, {DType::i32, "i32", 4, false, false, true},
      {DType::u8, "u8", 1, false, false, true},   {DType::boolean, "bool", 1, false, false, false}};
  for (const Row& row : rows) {
    CAPTURE(row.name);
    CHECK(concat(row.dtype) == row.name);
    CHECK(size_of(row.dtype) == row.size);
    CHECK(is_floating(row.dtype) == row.floating);
    CHECK(is_half(row.dtype) == row.half);
    CHECK(is_integral(row.dtype) == row.integral);
    const auto visited = visit_all(row.dtype, [](auto zero) { return dtype_of<decltype(zero)>(); });
    CHECK(visited == row.dtype);
  }
}

TEST_CASE("visitors refuse dtypes of another kind and name the caller", "[dtype][bad-input]") {
  const auto nothing = [](auto) {};
  CHECK_THROWS_WITH(visit_floating(DType::i32, "exp", nothing), Contains("exp") && Contains("i32"));
  CHECK_THROWS_WITH(visit_index(DType::f32, "gather", nothing),
                    Contains("gather") && Contains("f32"));
}
