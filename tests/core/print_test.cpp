#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include <binade/core/array.h>

using namespace binade;

TEST_CASE("small arrays are printed whole", "[print]") {
  CHECK(concat(Array::from(std::vector<float>{1, 2.5, -0.125, 1e-7f, 3, 123456}, {2, 3})) ==
        "Array(2, 3) f32 cpu\n[[1, 2.5, -0.125],\n [1e-07, 3, 1.2346e+05]]");
  CHECK(concat(Array::full({}, 0.5, DType::f16)) == "Array() f16 cpu\n0.5");
  CHECK(concat(Array::from(std::vector<float>{NAN, INFINITY, -INFINITY}, {3}).to(DType::bf16)) ==
        "Array(3) bf16 cpu\n[nan, inf, -inf]");
  CHECK(concat(Array::full({1}, 1e300, DType::f64)) == "Array(1) f64 cpu\n[1e+300]");
}

TEST_CASE("whole numbers and bools are printed as such", "[print]") {
  const int64_t most = std::numeric_limits<int64_t>::max();
  CHECK(concat(Array::from(std::vector<int64_t>{most, -most - 1, (int64_t{1} << 53) + 1}, {3})) ==
        "Array(3) i64 cpu\n[9223372036854775807, -9223372036854775808, 9007199254740993]");
  CHECK(concat(Array::from(std::vector<uint8_t>{0, 65, 255}, {3})) ==
        "Array(3) u8 cpu\n[0, 65, 255]");
  CHECK(concat(Array::from(std::vector<float>{0, 2}, {2}).to(DType::boolean)) ==
        "Array(2) bool cpu\n[false, true]");
}

TEST_CASE("dimensions are nested and aligned", "[print]") {
  CHECK(concat(Array::arange(8, DType::i32).view({2, 2, 2})) ==
        "Array(2, 2, 2) i32 cpu\n[[[0, 1],\n  [2, 3]],\n [[4, 5],\n  [6, 7]]]");
  CHECK(concat(Array::arange(4, DType::i32).view({2, 2}).transpose(0, 1)) ==
        "Array(2, 2) i32 cpu\n[[0, 2],\n [1, 3]]");
}

TEST_CASE("large arrays are printed by their corners", "[print]") {
  CHECK(concat(Array::arange(1000, DType::i64)) ==
        "Array(1000) i64 cpu\n[0, 1, 2, ..., 997, 998, 999]");
  CHECK(concat(Array::arange(700, DType::i64).view({7, 100})) ==
        "Array(7, 100) i64 cpu\n"
        "[[0, 1, 2, ..., 97, 98, 99],\n"
        " [100, 101, 102, ..., 197, 198, 199],\n"
        " [200, 201, 202, ..., 297, 298, 299],\n"
        " ...,\n"
        " [400, 401, 402, ..., 497, 498, 499],\n"
        " [500, 501, 502, ..., 597, 598, 599],\n"
        " [600, 601, 602, ..., 697, 698, 699]]");
}

TEST_CASE("arrays without elements and without storage are printed in one line", "[print]") {
  CHECK(concat(Array::zeros({0}, DType::f32)) == "Array(0) f32 cpu\n[]");
  CHECK(concat(Array::zeros({int64_t{1} << 40, 0}, DType::f32)) ==
        "Array(1099511627776, 0) f32 cpu\n[]");
  CHECK(concat(Array()) == "Array(undefined)");
}
