// Rows and layers for the kernels of few rows, and their definitions in double.
#pragma once

#include <algorithm>
#include <cmath>

#include <catch2/catch.hpp>

#include <binade/core/kernels/few_rows.h>

#include "core/cuda_repeat.h"

namespace binade::test {

// A matrix in double, row by row.
struct Matrix {
  int64_t rows, columns;
  std::vector<double> values;

  explicit Matrix(const Array& array)
      : rows(array.size(0)),
        columns(array.dims() > 1 ? array.size(1) : 1),
        values(on_device(array, Device::cpu()).to(DType::f64).to_vector<double>()) {}
  double operator()(int64_t r, int64_t c) const {
    return values[static_cast<size_t>(r * columns + c)];
  }
};

inline double rounded(double value, DType dtype) {
  return Array::full({}, value, DType::f64).to(dtype).to(DType::f64).item();
}

// Rows of `in` behind the norm, rounded as rms_norm rounds.
inline Matrix normed(const kernels::FewRows& in) {
  Matrix x(in.x);
  if (!in.norm.defined()) return x;
  const Matrix weight(in.norm);
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < x.columns; ++c) squares += x(r, c) * x(r, c);
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(x.columns) + in.eps);
    for (int64_t c = 0; c < x.columns; ++c)
      x.values[static_cast<size_t>(r * x.columns + c)] =
          rounded(x(r, c) * rstd * weight(c, 0), in.x.dtype());
  }
  return x;
}

// (M, N): x·weightᵀ + bias.
inline std::vector<double> layer_of(const Matrix& x, const kernels::FewRowsLayer& layer) {
  const Matrix weight(layer.weight);
  const Matrix bias(layer.bias.defined() ? layer.bias : Array::zeros({weight.rows}, DType::f64));
  std::vector<double> out;
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t n = 0; n < weight.rows; ++n) {
      double sum = bias(n, 0);
      for (int64_t c = 0; c < x.columns; ++c) sum += x(r, c) * weight(n, c);
      out.push_back(sum);
    }
  return out;
}

// Within a few roundings of the dtype to values of the size of `of`, or of the expected one.
inline void check_close(const Array& got, const std::vector<double>& expected, double roundings,
                        double of = 0.05) {
  const double unit = got.dtype() == DType::f16 ? 0x1p-11 : 0x1p-8;
  const std::vector<double> values = Matrix(got.view({-1, 1})).values;
  REQUIRE(values.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < values.size(); ++i)
    worst =
        std::max(worst, std::abs(values[i] - expected[i]) / std::max(std::abs(expected[i]), of));
  CHECK(worst <= roundings * unit);
}

struct Inputs {
  Random random{5};
  DType dtype;

  Array half(const Shape& shape, double spread = 1) {
    return gpu_random(shape, dtype, random, spread);
  }
  kernels::FewRows rows(int64_t count, int64_t columns, bool norm) {
    kernels::FewRows in{half({count, columns}), {}, 0};
    if (norm) in.norm = gpu_random({columns}, DType::f32, random);
    if (norm) in.eps = 1e-5;
    return in;
  }
  // Weights small enough for sums of about 1.
  kernels::FewRowsLayer layer(int64_t outputs, int64_t columns, bool bias) {
    return {half({outputs, columns}, 1 / std::sqrt(static_cast<double>(columns))),
            bias ? half({outputs}) : Array()};
  }
};

}  // namespace binade::test
