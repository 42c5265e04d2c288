#include <binade/core/kernels/add_lanes.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cuda_compare.h"

using namespace binade;
using namespace binade::test;

namespace {

// One addition after the other, each rounded to the type of the sums.
template <class S>
std::vector<S> by_definition(const std::vector<Array>& lanes, const std::vector<S>& old,
                             bool first) {
  std::vector<S> sums = old;
  for (size_t lane = 0; lane < lanes.size(); ++lane)
    for (size_t i = 0; i < sums.size(); ++i) {
      const S value = static_cast<S>(read(lanes[lane], static_cast<int64_t>(i)));
      sums[i] = first && lane == 0 ? value : static_cast<S>(sums[i] + value);
    }
  return sums;
}

template <class S>
void check_lanes(Device device, DType dtype, DType sums_dtype) {
  Random random(7);
  for (const int count : {1, 2, 3, 8, 9, 17})
    for (const int64_t numel : {0, 1, 7, 8, 64, 8195})
      for (const int64_t begin : {0, 1})  // 1: no access of several elements is aligned
        for (const bool first : {true, false}) {
          CAPTURE(name_of(dtype), count, numel, begin, first);
          const auto made = [&](DType type) {
            const Array whole = Array::empty({numel + begin}, type);
            randomize(whole, random, 2);
            if (numel > 0) write(whole, begin, -0.0);
            return whole;
          };
          const auto part = [&](const Array& whole) -> Array {
            return whole.slice(0, begin, begin + numel);
          };
          std::vector<Array> wholes, lanes;
          for (int lane = 0; lane < count; ++lane) wholes.push_back(made(dtype));
          for (const Array& whole : wholes) lanes.push_back(part(whole));
          const Array sums = made(sums_dtype);
          const std::vector<S> expected =
              by_definition<S>(lanes, part(sums).template to_vector<S>(), first);
          std::vector<Array> there;
          for (const Array& whole : wholes) there.push_back(part(whole.to(device)));
          const Array all = sums.to(device);
          BINADE_DISPATCH(device, add_lanes(there, part(all), first, {}, {}));
          const std::vector<S> found = part(all).template to_vector<S>();
          REQUIRE(found.size() == expected.size());
          CHECK((found.empty() ||
                 std::memcmp(found.data(), expected.data(), found.size() * sizeof(S)) == 0));
        }
}

void check_all_lanes(Device device) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    check_lanes<float>(device, dtype, DType::f32);
  check_lanes<double>(device, DType::f64, DType::f64);
}

// What is measured in the same pass has the bits of what is measured behind it.
void check_measured(Device device, DType dtype, DType sums_dtype) {
  Random random(8);
  const Array inv_scale = Array::full({}, 1.0 / 1024, DType::f32, device);
  for (const int count : {1, 2, 9})
    for (const int64_t numel : {1, 8191, 8192, 3 * 8192 + 5})
      for (const bool first : {true, false})
        for (const double odd : {1.0, std::numeric_limits<double>::infinity(),
                                 std::numeric_limits<double>::quiet_NaN()}) {
          CAPTURE(name_of(dtype), count, numel, first, odd);
          std::vector<Array> lanes;
          for (int lane = 0; lane < count; ++lane) {
            const Array values = Array::empty({numel}, dtype);
            randomize(values, random, 2);
            write(values, numel - 1, odd);
            lanes.push_back(values.to(device));
          }
          const Array sums = Array::full({numel}, 0.5, sums_dtype, device);
          const int64_t chunks = kernels::gradient_chunks(numel);
          const Array statistics = Array::full({chunks, 2}, -1, DType::f64, device);
          const Array expected = Array::full({chunks, 2}, -2, DType::f64, device);
          BINADE_DISPATCH(device, add_lanes(lanes, sums, first, inv_scale, statistics));
          BINADE_DISPATCH(device, gradient_stats(sums, inv_scale, expected));
          CHECK(statistics.to_vector<double>() == expected.to_vector<double>());
        }
}

void check_all_measured(Device device) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    check_measured(device, dtype, DType::f32);
  check_measured(device, DType::f64, DType::f64);
}

}  // namespace

TEST_CASE("lanes are measured as they are added", "[kernels]") {
  check_all_measured(Device::cpu());
}

TEST_CASE("lanes are measured as they are added, on the GPU", "[cuda][kernels]") {
  require_gpu();
  check_all_measured(test_gpu());
}

TEST_CASE("lanes are added one after the other, bit by bit", "[kernels]") {
  check_all_lanes(Device::cpu());
}

TEST_CASE("lanes are added one after the other, bit by bit, on the GPU", "[cuda][kernels]") {
  require_gpu();
  check_all_lanes(test_gpu());
}
