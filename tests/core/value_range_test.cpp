#include <binade/core/value_range.h>

#include <catch2/catch.hpp>
#include <limits>

using namespace binade;
using Catch::Matchers::Contains;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Array f16(const std::vector<float>& values) {
  return Array::from(values, {static_cast<int64_t>(values.size())}).to(DType::f16);
}

}  // namespace

TEST_CASE("ranges in words", "[core][value_range]") {
  CHECK(describe_range(Array()) == "none");
  CHECK(describe_range(f16({1, -2.5f, 3})) == concat("f16 ", Shape{3}, " in [-2.5, 3]"));
  CHECK_THAT(describe_range(f16({1, kInf, -3})), Contains("in [-3, 1] and inf"));
  CHECK_THAT(describe_range(f16({2, -kInf, 3})), Contains("in [2, 3] and inf"));
  CHECK_THAT(describe_range(f16({2, kNan, kInf})), Contains("in [2, 2] and NaN"));
  CHECK_THAT(describe_range(f16({kNan, kInf})), Contains("all NaN or inf"));
  CHECK_THAT(describe_range(Array::arange(5, DType::i64)), Contains("in [0, 4]"));
  CHECK_THAT(describe_range(Array::zeros({2}, DType::boolean)), Contains("bool"));
  CHECK(finiteness(Array()) == Finiteness::finite);
  CHECK(finiteness(f16({1, 2})) == Finiteness::finite);
  CHECK(finiteness(f16({-kInf, 2})) == Finiteness::infinite);
  CHECK(finiteness(f16({kInf, kNan})) == Finiteness::nan);
  CHECK(finiteness(Array::zeros({0}, DType::f32)) == Finiteness::finite);
}
