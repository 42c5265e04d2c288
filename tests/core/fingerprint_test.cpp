#include <binade/core/kernels/fingerprint.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <vector>

#include <binade/core/kernels/clock.h>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;

namespace {

// Word by word, of arithmetic modulo 2^64 as the paper has it.
uint64_t by_definition(const std::vector<uint8_t>& bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; 4 * i < bytes.size(); ++i) {
    uint64_t word = 0;
    for (size_t b = 0; b < 4 && 4 * i + b < bytes.size(); ++b)
      word += uint64_t{bytes[4 * i + b]} << (8 * b);
    uint64_t x = i * 4294967296 + word + 11400714819323198485ULL;
    x = (x ^ (x / 1073741824)) * 13787848793156543929ULL;
    x = (x ^ (x / 134217728)) * 10723151780598845931ULL;
    sum += x ^ (x / 2147483648);
  }
  return sum;
}

std::vector<uint8_t> some_bytes(size_t count) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<uint8_t>(i * i * 31 + i / 7 + 5));
  return bytes;
}

uint64_t fingerprint_of(const Array& values) {
  const Array sums = Array::full({3}, 1, DType::i64, values.device());
  BINADE_DISPATCH(values.device(), fingerprint(values, sums.select(0, 1)));
  const std::vector<int64_t> all = sums.to_vector<int64_t>();
  CHECK(all[0] == 1);
  CHECK(all[2] == 1);
  return static_cast<uint64_t>(all[1]);
}

void check_fingerprints(Device device) {
  for (const size_t count : {0, 1, 3, 4, 5, 4096, 70001}) {
    CAPTURE(count);
    const std::vector<uint8_t> bytes = some_bytes(count);
    const Array values = Array::from(bytes, {static_cast<int64_t>(count)}).to(device);
    CHECK(fingerprint_of(values) == by_definition(bytes));
    if (count < 5) continue;
    // From an odd address on.
    CHECK(fingerprint_of(values.slice(0, 1, static_cast<int64_t>(count))) ==
          by_definition({bytes.begin() + 1, bytes.end()}));
  }
}

}  // namespace

TEST_CASE("a fingerprint is the sum of its words' terms", "[core]") {
  check_fingerprints(Device::cpu());
}

TEST_CASE("a fingerprint on the GPU is that on the CPU", "[cuda]") {
  require_gpu();
  check_fingerprints(test_gpu());
}

namespace {

void check_clock(Device device) {
  const Array start = Array::zeros({}, DType::i64, device);
  const Array total = Array::full({}, 2, DType::f64, device);
  BINADE_DISPATCH(device, read_clock(start));
  BINADE_DISPATCH(device, add_elapsed(start, total));
  const double first = total.item();
  CHECK(first >= 2);
  BINADE_DISPATCH(device, add_elapsed(start, total));
  CHECK(total.item() - first >= first - 2);  // the same start, later
}

}  // namespace

TEST_CASE("elapsed times add up", "[core]") {
  check_clock(Device::cpu());
}

TEST_CASE("elapsed times add up on the GPU", "[cuda]") {
  require_gpu();
  check_clock(test_gpu());
}
