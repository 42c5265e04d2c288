// Random numbers: Philox against the known answers of its authors, and the draws made of it.
#include <binade/core/kernels/random.h>

#include <catch2/catch.hpp>
#include <set>

#include <binade/core/random.h>

#include "kernel_arrays.h"

namespace binade::test {
namespace {

using namespace kernels;

PhiloxKey key_of(uint64_t seed, int64_t step, uint64_t place) {
  return {seed, Array::from(std::vector<int64_t>{step}, {1}), place};
}

std::vector<uint32_t> words_of(const PhiloxBlock& block) {
  return {block.word, block.word + 4};
}

// Random123 1.14, tests/kat_vectors: philox4x32 with 10 rounds.
TEST_CASE("Philox4x32-10 gives the known answers", "[random][cpu]") {
  using Words = std::vector<uint32_t>;
  CHECK(words_of(philox(0, 0, 0, 0)) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(words_of(philox(~0ull, ~0ull, 0xffffff, 0xffffffffffull)) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // The digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  CHECK(words_of(philox(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0xa308d3, 0x85243f6a88ull)) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform draws are the words of their elements", "[random][cpu]") {
  const PhiloxKey key = key_of(1234, 56, 7);
  const int64_t n = 20001;  // several blocks of work, not a multiple of 4
  std::vector<double> expected;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = philox(1234, 56, 7, static_cast<uint64_t>(i / 4)).word[i % 4];
    expected.push_back(-2 + 5 * std::ldexp(static_cast<double>(word >> 8), -24));
  }
  for (const DType dtype : kFloatingTypes) {
    const Array out = Array::empty({n}, dtype);
    cpu::uniform(out, key, -2, 3);
    CHECK(worst_error(out, expected, 1e-3) < 1.01 * epsilon_of(dtype) + 1e-7 * is_half(dtype));
  }
  const Array draws = Array::empty({n}, DType::boolean);
  cpu::bernoulli(draws, key, 0.4);
  for (double& value : expected) value = value < 0;  // 40 % of [-2, 3)
  CHECK(values_of(draws) == expected);
}

TEST_CASE("seed, step, place and element each change the draws", "[random][cpu]") {
  std::set<std::vector<double>> seen;
  for (const PhiloxKey& key : {key_of(1, 2, 3), key_of(2, 2, 3), key_of(1, 3, 3), key_of(1, 2, 4),
                               key_of(1ull << 32, 2, 3), key_of(1, int64_t{1} << 32, 3)}) {
    const Array out = Array::empty({64}, DType::f32);
    cpu::uniform(out, key, 0, 1);
    const std::vector<double> values = values_of(out);
    CHECK(std::set<double>(values.begin(), values.end()).size() > 60);
    seen.insert(values);
  }
  CHECK(seen.size() == 6);
}

TEST_CASE("normal draws follow Box and Muller and have the right moments", "[random][cpu]") {
  const int64_t n = 400000;
  const Array out = Array::empty({n}, DType::f32);
  cpu::normal(out, key_of(99, 0, 1), 0, 1);
  double sum = 0, square = 0, fourth = 0, largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double z = out.data<float>()[i];
    sum += z;
    square += z * z;
    fourth += z * z * z * z;
    largest = std::max(largest, std::abs(z));
  }
  const double count = static_cast<double>(n);
  CHECK(std::abs(sum / count) < 5 / std::sqrt(count));
  CHECK(std::abs(square / count - 1) < 5 * std::sqrt(2 / count));
  CHECK(std::abs(fourth / count - 3) < 5 * std::sqrt(96 / count));
  CHECK(largest > 4);
  for (int64_t i = 0; i < 1000; ++i) {
    const PhiloxBlock block = philox(99, 0, 1, static_cast<uint64_t>(i / 4));
    const uint32_t first = block.word[i % 4 / 2 * 2], second = block.word[i % 4 / 2 * 2 + 1];
    const double radius = std::sqrt(-2 * std::log((first + 1.0) / 4294967296.0));
    const double angle = 2 * M_PI * second / 4294967296.0;
    const double expected = radius * (i % 2 ? std::sin(angle) : std::cos(angle));
    REQUIRE(out.data<float>()[i] == Approx(expected).epsilon(1e-7).margin(1e-12));
  }
  const Array moved = Array::empty({n}, DType::f32);
  cpu::normal(moved, key_of(99, 0, 1), 10, 0.5);
  for (int64_t i = 0; i < 1000; ++i)
    REQUIRE(moved.data<float>()[i] == Approx(10 + 0.5 * out.data<float>()[i]).epsilon(1e-6));
}

TEST_CASE("dropout keeps what its key's uniforms keep", "[random][cpu]") {
  Random random(61);
  const PhiloxKey key = key_of(5, 6, 7);
  const Shape shape{30, 700};
  const Array draws = Array::empty(shape, DType::f32);
  cpu::uniform(draws, key, 0, 1);
  for (const DType dtype : kFloatingTypes)
    for (int layout = 0; layout < 3; ++layout)
      for (const float beta : {0.0f, 1.0f})
        for (const float p : {0.0f, 0.3f, 1.0f}) {
          INFO(name_of(dtype) << " layout " << layout << " p " << p);
          const Array x = any_layout(layout, shape, dtype, random);
          const Array y = random_array(shape, dtype, random);
          std::vector<double> expected = values_of(y);
          for (int64_t i = 0; i < x.numel(); ++i) {
            double& value = expected[static_cast<size_t>(i)];
            value *= beta;
            if (read(draws, i) >= p) value += read(x, i) / (1 - p);
          }
          cpu::dropout(x, key, p, y, beta);
          REQUIRE(worst_error(y, expected) < 1.01 * epsilon_of(dtype) + 1e-6);
        }
}

}  // namespace
}  // namespace binade::test
