// Arrays of random numbers in any dtype and layout, and their elements as doubles: what the tests
// of kernels are written with. Reads memory through shape and strides itself, with no kernel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include <binade/core/array.h>

namespace binade::test {

// Offset (in elements, from data()) of the row-major position `index`.
inline int64_t offset_of(const Array& array, int64_t index) {
  int64_t offset = 0;
  for (int i = array.dims() - 1; i >= 0; --i) {
    offset += index % array.shape()[i] * array.strides()[i];
    index /= array.shape()[i];
  }
  return offset;
}

inline double read(const Array& array, int64_t index) {
  const int64_t i = offset_of(array, index);
  switch (array.dtype()) {
    case DType::f64:
      return static_cast<const double*>(array.data())[i];
    case DType::f32:
      return static_cast<const float*>(array.data())[i];
    case DType::f16:
      return static_cast<float>(static_cast<const Half*>(array.data())[i]);
    case DType::bf16:
      return static_cast<float>(static_cast<const BFloat16*>(array.data())[i]);
    case DType::i64:
      return static_cast<double>(static_cast<const int64_t*>(array.data())[i]);
    case DType::i32:
      return static_cast<const int32_t*>(array.data())[i];
    case DType::u8:
      return static_cast<const uint8_t*>(array.data())[i];
    case DType::boolean:
      return static_cast<const bool*>(array.data())[i];
  }
  fail("read: no case for ", name_of(array.dtype()));
}

inline void write(const Array& array, int64_t index, double value) {
  const int64_t i = offset_of(array, index);
  switch (array.dtype()) {
    case DType::f64:
      static_cast<double*>(array.data())[i] = value;
      break;
    case DType::f32:
      static_cast<float*>(array.data())[i] = static_cast<float>(value);
      break;
    case DType::f16:
      static_cast<Half*>(array.data())[i] = Half(static_cast<float>(value));
      break;
    case DType::bf16:
      static_cast<BFloat16*>(array.data())[i] = BFloat16(static_cast<float>(value));
      break;
    case DType::i64:
      static_cast<int64_t*>(array.data())[i] = static_cast<int64_t>(value);
      break;
    case DType::i32:
      static_cast<int32_t*>(array.data())[i] = static_cast<int32_t>(value);
      break;
    case DType::u8:
      static_cast<uint8_t*>(array.data())[i] = static_cast<uint8_t>(value);
      break;
    case DType::boolean:
      static_cast<bool*>(array.data())[i] = value != 0;
      break;
  }
}

inline std::vector<double> values_of(const Array& array) {
  std::vector<double> values(static_cast<size_t>(array.numel()));
  for (int64_t i = 0; i < array.numel(); ++i) values[static_cast<size_t>(i)] = read(array, i);
  return values;
}

inline Array array_of(const std::vector<double>& values, const Shape& shape, DType dtype) {
  Array array = Array::empty(shape, dtype);
  for (int64_t i = 0; i < array.numel(); ++i) write(array, i, values[static_cast<size_t>(i)]);
  return array;
}

inline void set_all(const Array& array, double value) {
  for (int64_t i = 0; i < array.numel(); ++i) write(array, i, value);
}

using Random = std::mt19937_64;

// Normal numbers of the given spread.
inline void randomize(const Array& array, Random& random, double spread = 1) {
  std::normal_distribution<double> normal(0, spread);
  for (int64_t i = 0; i < array.numel(); ++i) write(array, i, normal(random));
}

inline Array random_array(const Shape& shape, DType dtype, Random& random, double spread = 1) {
  Array array = Array::empty(shape, dtype);
  randomize(array, random, spread);
  return array;
}

// The same with its dimensions in a random order in memory, and gaps along one of them.
inline Array strided_array(const Shape& shape, DType dtype, Random& random, double spread = 1) {
  const int dims = shape.dims();
  if (dims == 0) return random_array(shape, dtype, random, spread);
  std::vector<int> order(static_cast<size_t>(dims)), place(order);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  Shape stored = shape;
  for (int i = 0; i < dims; ++i) {
    stored[i] = shape[order[static_cast<size_t>(i)]];
    place[static_cast<size_t>(order[static_cast<size_t>(i)])] = i;
  }
  const int gap = static_cast<int>(random() % static_cast<uint64_t>(dims));
  stored[gap] = 2 * stored[gap] + 1;
  const Array base = random_array(stored, dtype, random, spread);
  return base.slice(gap, 1, kToEnd, 2).permute(place);
}

// The same repeated along a random dimension (stride 0): for inputs only.
inline Array expanded_array(const Shape& shape, DType dtype, Random& random, double spread = 1) {
  Shape stored = shape;
  if (shape.dims() > 0)
    stored[static_cast<int>(random() % static_cast<uint64_t>(shape.dims()))] = 1;
  return random_array(stored, dtype, random, spread).expand(shape);
}

// One of the three layouts above.
inline Array any_layout(int layout, const Shape& shape, DType dtype, Random& random,
                        double spread = 1) {
  return layout % 3 == 0   ? random_array(shape, dtype, random, spread)
         : layout % 3 == 1 ? strided_array(shape, dtype, random, spread)
                           : expanded_array(shape, dtype, random, spread);
}

inline constexpr DType kFloatingTypes[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

// Half of the distance between 1 and the next number.
inline double epsilon_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 0x1p-53;
    case DType::f32:
      return 0x1p-24;
    case DType::f16:
      return 0x1p-11;
    default:
      return 0x1p-8;
  }
}

// Largest |got − expected| / (|expected| + floor).
inline double worst_error(const Array& got, const std::vector<double>& expected, double floor = 1) {
  double worst = 0;
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double want = expected[static_cast<size_t>(i)];
    const double error = std::abs(read(got, i) - want) / (std::abs(want) + floor);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

// Largest difference between `gradient` (f64) and central differences of loss() in the elements of
// `input` (f64), relative to 1 + |gradient|.
template <class Loss>
double worst_difference(const Array& input, const Array& gradient, const Loss& loss,
                        double step = 1e-5) {
  std::vector<double> expected;
  for (int64_t i = 0; i < input.numel(); ++i) {
    const double value = read(input, i);
    write(input, i, value + step);
    const double above = loss();
    write(input, i, value - step);
    const double below = loss();
    write(input, i, value);
    expected.push_back((above - below) / (2 * step));
  }
  return worst_error(gradient, expected);
}

}  // namespace binade::test
