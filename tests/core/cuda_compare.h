// Running a kernel on the CPU and on the GPU with equal arrays, and comparing all memory that
// either could have written.
#pragma once

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include <binade/core/array.h>
#include <binade/core/device.h>

#include "core/kernel_arrays.h"
#include "gpu.h"

namespace binade::test {

inline const std::vector<DType> kFloatingDTypes{DType::f64, DType::f32, DType::f16, DType::bf16};
inline const std::vector<DType> kAllDTypes{DType::f64, DType::f32, DType::f16, DType::bf16,
                                           DType::i64, DType::i32, DType::u8,  DType::boolean};

// Everything in the array's storage, as a vector.
inline Array whole_storage(const Array& array) {
  const int64_t count = array.storage()->bytes() / size_of(array.dtype());
  return Array::view_of(array.storage(), array.dtype(), {count}, {1}, 0);
}

// An equal array on `device`: the same strides in a storage with the same contents.
inline Array on_device(const Array& array, Device device) {
  const Array all = Array::empty(whole_storage(array).shape(), array.dtype(), device);
  all.copy_from(whole_storage(array));
  return Array::view_of(all.storage(), array.dtype(), array.shape(), array.strides(),
                        array.offset());
}

// Random values that suit the dtype; small integers.
inline void fill_random(const Array& array, Random& random) {
  if (is_floating(array.dtype())) return randomize(array, random, 2);
  for (int64_t i = 0; i < array.numel(); ++i)
    write(array, i,
          array.dtype() == DType::boolean ? static_cast<double>(random() % 2)
          : array.dtype() == DType::u8    ? static_cast<double>(random() % 12)
                                          : static_cast<double>(random() % 41) - 20);
}

// Arrays of one shape and dtype laid out in the ways that kernels meet: contiguous, not aligned,
// dimensions exchanged, with gaps; and broadcast along each dimension if `broadcast`.
inline std::vector<Array> layouts(const Shape& shape, DType dtype, Random& random,
                                  bool broadcast = false) {
  std::vector<Array> arrays;
  const auto add = [&](const Shape& whole, const auto& view) {
    const Array array = Array::empty(whole, dtype);
    fill_random(array, random);
    arrays.push_back(view(array));
  };
  add(shape, [](const Array& a) { return a; });
  add({shape.numel() + 1}, [&](const Array& a) { return a.slice(0, 1).view(shape); });
  const int last = shape.dims() - 1;
  if (last >= 1) {
    Shape exchanged = shape;
    std::swap(exchanged[0], exchanged[last]);
    add(exchanged, [&](const Array& a) { return a.transpose(0, last); });
  }
  Shape wide = shape;
  wide[last] = 2 * shape[last] + 8;
  add(wide, [&](const Array& a) { return a.slice(last, 0, 2 * shape[last], 2); });
  add(wide, [&](const Array& a) { return a.slice(last, 8, 8 + shape[last]); });
  for (int d = 0; broadcast && d <= last; ++d) {
    Shape narrow = shape;
    narrow[d] = 1;
    add(narrow, [&](const Array& a) { return a.expand(shape); });
  }
  return arrays;
}

// A few roundings of the dtype.
inline double tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 1e-11;
    case DType::f32:
      return 1e-5;
    case DType::f16:
    case DType::bf16:
      return 2.5 * epsilon_of(dtype);
    default:
      return 0;
  }
}

// Largest |a − b| / (|a| + 1) over the storages of two CPU arrays; infinite where only one is NaN.
inline double difference(const Array& a, const Array& b) {
  const Array left = whole_storage(a), right = whole_storage(b);
  double worst = 0;
  for (int64_t i = 0; i < left.numel(); ++i) {
    const double x = read(left, i), y = read(right, i);
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double error = std::abs(x - y) / (std::abs(x) + 1);
    worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
  }
  return worst;
}

// Runs op(arrays) with host arrays and with equal ones on the GPU, and compares all of them
// afterwards, inputs included. `slack` multiplies the tolerance.
template <class Op>
void compare_devices(const Op& op, const std::vector<Array>& arrays, double slack = 1) {
  std::vector<Array> device_arrays;
  for (const Array& array : arrays) device_arrays.push_back(on_device(array, test_gpu()));
  op(arrays);
  op(device_arrays);
  for (size_t i = 0; i < arrays.size(); ++i) {
    INFO("array " << i << ": " << arrays[i].shape() << ' ' << arrays[i].dtype() << ", strides "
                  << arrays[i].strides());
    CHECK(difference(arrays[i], on_device(device_arrays[i], Device::cpu())) <=
          slack * tolerance_of(arrays[i].dtype()));
  }
}

}  // namespace binade::test
