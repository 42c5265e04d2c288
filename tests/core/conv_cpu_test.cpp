#include <omp.h>
#include <catch2/catch.hpp>

#include <limits>

#include <binade/core/kernels/conv.h>
#include <binade/core/kernels/norm.h>

#include "kernel_arrays.h"

using namespace binade;
using namespace binade::test;
using kernels::ConvParams;
using kernels::PoolParams;

namespace {

struct ConvCase {
  int64_t images, channels, height, width, filters, kernel_h, kernel_w;
  ConvParams params;
};

const ConvCase kCases[] = {
    {2, 3, 9, 11, 4, 3, 3, {1, 1, 1, 1, 1, 1, 1}},
    {1, 4, 8, 7, 6, 3, 2, {2, 1, 0, 1, 1, 1, 2}},      // stride, groups
    {2, 4, 13, 10, 4, 3, 3, {1, 2, 2, 3, 2, 3, 4}},    // dilation, depthwise
    {3, 5, 6, 6, 7, 1, 1, {1, 1, 0, 0, 1, 1, 1}},      // pointwise
    {2, 6, 5, 5, 4, 1, 1, {2, 2, 1, 1, 1, 1, 2}},      // pointwise that is not a plain matmul
    {1, 2, 4, 3, 3, 5, 4, {1, 1, 4, 3, 1, 1, 1}},      // padding beyond the image
    {1, 40, 20, 20, 3, 5, 5, {1, 1, 2, 2, 1, 1, 1}},   // few filters, many taps
    {3, 70, 12, 40, 21, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // several steps along channels, a large
                                                       // image
    {19, 5, 3, 3, 40, 2, 2, {1, 1, 0, 0, 1, 1, 1}},  // pixels of several images at a time, in place
    {2, 3, 30, 33, 5, 7, 7, {2, 2, 3, 3, 1, 1, 1}},  // columns in two phases
    {2, 3, 9, 8, 5, 1, 1, {3, 3, 0, 0, 1, 1, 1}},    // pixels of x that nothing meets
    {2, 4, 10, 9, 6, 3, 3, {2, 3, 2, 1, 3, 2, 2}},   // stride and dilation that share no factor
    {3, 3, 70, 5, 3, 3, 3, {1, 1, 1, 1, 1, 1, 3}},   // depthwise, a narrow image
    {2, 3, 6, 75, 6, 3, 3, {1, 2, 1, 1, 1, 1, 3}},   // two filters a channel, a wide image
    {9, 33, 4, 4, 70, 3, 3, {1, 1, 1, 1, 1, 1, 1}},  // small images
};

// Large enough to be computed in several parts, in each of the ways of cutting.
const ConvCase kLargeCases[] = {
    {2, 16, 90, 96, 17, 3, 3, {1, 1, 1, 1, 1, 1, 1}},      // rows
    {1, 24, 101, 90, 24, 3, 3, {2, 2, 1, 1, 1, 1, 1}},     // rows, a stride
    {1, 18, 90, 96, 16, 3, 3, {1, 1, 3, 2, 3, 2, 1}},      // rows, dilation
    {1, 12, 90, 96, 16, 2, 2, {3, 3, 0, 0, 1, 1, 1}},      // rows of x that nothing meets
    {3, 40, 6, 6, 200, 3, 3, {1, 1, 1, 1, 1, 1, 1}},       // filters
    {3, 200, 6, 6, 40, 3, 3, {1, 1, 1, 1, 1, 1, 1}},       // channels
    {2, 150, 40, 40, 150, 3, 3, {1, 1, 1, 1, 1, 1, 150}},  // groups of one channel
    {2, 96, 30, 30, 72, 3, 3, {1, 1, 1, 1, 1, 1, 24}},     // groups of four
    {13, 20, 14, 14, 24, 3, 3, {1, 1, 1, 1, 1, 1, 1}},     // images
    {5, 70, 14, 14, 80, 1, 1, {1, 1, 0, 0, 1, 1, 1}},      // pointwise
};

Shape output_shape(const ConvCase& c) {
  const auto size = [](int64_t in, int64_t kernel, int64_t stride, int64_t padding,
                       int64_t dilation) {
    return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  };
  const ConvParams& p = c.params;
  return {c.images, c.filters, size(c.height, c.kernel_h, p.stride_h, p.padding_h, p.dilation_h),
          size(c.width, c.kernel_w, p.stride_w, p.padding_w, p.dilation_w)};
}

// Calls body(y index, x index, weight index) for every product of the definition.
template <class Body>
void for_each_product(const ConvCase& c, const Body& body) {
  const Shape out = output_shape(c);
  const ConvParams& p = c.params;
  const int64_t group_channels = c.channels / p.groups, group_filters = c.filters / p.groups;
  for (int64_t y = 0; y < out.numel(); ++y) {
    const int64_t column = y % out[3], row = y / out[3] % out[2];
    const int64_t filter = y / out[3] / out[2] % out[1], image = y / out[3] / out[2] / out[1];
    for (int64_t ch = 0; ch < group_channels; ++ch)
      for (int64_t r = 0; r < c.kernel_h; ++r)
        for (int64_t s = 0; s < c.kernel_w; ++s) {
          const int64_t h = row * p.stride_h - p.padding_h + r * p.dilation_h;
          const int64_t w = column * p.stride_w - p.padding_w + s * p.dilation_w;
          if (h < 0 || h >= c.height || w < 0 || w >= c.width) continue;
          const int64_t channel = filter / group_filters * group_channels + ch;
          body(static_cast<size_t>(y),
               static_cast<size_t>(((image * c.channels + channel) * c.height + h) * c.width + w),
               static_cast<size_t>(((filter * group_channels + ch) * c.kernel_h + r) * c.kernel_w +
                                   s));
        }
  }
}

// f32 sums of terms of order 1 (half inputs too), and the output's rounding. The errors of a sum of
// more than some thousand terms grow with their number, as it grows itself while it is summed.
double tolerance(DType dtype, int64_t terms = 0) {
  if (dtype == DType::f64) return 1e-13;
  const double sums = 2e-5 * std::max(1.0, static_cast<double>(terms) / 4096);
  return sums + (is_half(dtype) ? epsilon_of(dtype) : 0);
}

const DType kFloating[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

}  // namespace

namespace {

void check_definition(const ConvCase& c, DType dtype) {
  CAPTURE(name_of(dtype), c.channels, c.height, c.kernel_h);
  const ConvParams& params = c.params;
  Random random(21);
  const Shape out = output_shape(c);
  const Array x = random_array({c.images, c.channels, c.height, c.width}, dtype, random);
  const Array weight = random_array({c.filters, c.channels / params.groups, c.kernel_h, c.kernel_w},
                                    dtype, random, 0.3);
  const Array bias = random_array({c.filters}, dtype, random);
  const Array dy = random_array(out, dtype, random, 0.3);
  const std::vector<double> xs = values_of(x), weights = values_of(weight), dys = values_of(dy);

  SECTION("forward") {
    const bool with_bias = GENERATE(true, false);
    const Array y = Array::empty(out, dtype);
    set_all(y, std::numeric_limits<double>::quiet_NaN());
    std::vector<double> expected(static_cast<size_t>(y.numel()), 0);
    if (with_bias)
      for (int64_t i = 0; i < y.numel(); ++i)
        expected[static_cast<size_t>(i)] = read(bias, i / (out[2] * out[3]) % out[1]);
    for_each_product(c, [&](size_t i, size_t j, size_t k) { expected[i] += xs[j] * weights[k]; });
    kernels::cpu::conv2d(x, weight, with_bias ? bias : Array(), params, y);
    CHECK(worst_error(y, expected) <= tolerance(dtype));
  }
  SECTION("backward") {
    const float beta = GENERATE(0.f, 1.f);
    const Array dx = random_array(x.shape(), dtype, random);
    const Array dweight = random_array(weight.shape(), dtype, random);
    const Array dbias = random_array({c.filters}, DType::f32, random);
    const auto start = [&](const Array& gradient) {
      std::vector<double> values = values_of(gradient);
      if (beta == 0) std::fill(values.begin(), values.end(), 0.0);
      return values;
    };
    std::vector<double> want_dx = start(dx), want_dweight = start(dweight),
                        want_dbias = start(dbias);
    for_each_product(c, [&](size_t i, size_t j, size_t k) {
      want_dx[j] += dys[i] * weights[k];
      want_dweight[k] += dys[i] * xs[j];
    });
    for (int64_t i = 0; i < dy.numel(); ++i)
      want_dbias[static_cast<size_t>(i / (out[2] * out[3]) % out[1])] +=
          dys[static_cast<size_t>(i)];
    kernels::cpu::conv2d_backward(x, weight, dy, params, dx, beta, dweight, beta, dbias, beta);
    CHECK(worst_error(dx, want_dx) <= tolerance(dtype));
    CHECK(worst_error(dweight, want_dweight) <= tolerance(dtype, out[0] * out[2] * out[3]));
    CHECK(worst_error(dbias, want_dbias) <= tolerance(DType::f32, out[0] * out[2] * out[3]));
    // Each alone gives the same.
    const Array alone = Array::empty(weight.shape(), dtype);
    if (beta == 0) {
      kernels::cpu::conv2d_backward(x, weight, dy, params, {}, 0, alone, 0, {}, 0);
      CHECK(values_of(alone) == values_of(dweight));
    }
  }
}

}  // namespace

TEST_CASE("cpu conv2d equals the definition", "[conv][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  check_definition(GENERATE(from_range(std::begin(kCases), std::end(kCases))), dtype);
}

TEST_CASE("cpu conv2d in parts equals the definition", "[conv][cpu]") {
  check_definition(GENERATE(from_range(std::begin(kLargeCases), std::end(kLargeCases))),
                   DType::f32);
}

// What lies beside a pixel in memory, in the same vector, must not reach its sums: 0 · NaN is NaN.
TEST_CASE("cpu conv2d's pixels see their own patches only", "[conv][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  const ConvCase c = GENERATE(from_range(std::begin(kCases), std::end(kCases)));
  CAPTURE(name_of(dtype), c.channels, c.height, c.kernel_h);
  Random random(23);
  const Shape out = output_shape(c);
  const Array x = random_array({c.images, c.channels, c.height, c.width}, dtype, random);
  const Array weight = random_array(
      {c.filters, c.channels / c.params.groups, c.kernel_h, c.kernel_w}, dtype, random);
  const Array y = Array::empty(out, dtype), dy = random_array(out, dtype, random);
  const Array dx = Array::empty(x.shape(), dtype), dweight = Array::empty(weight.shape(), dtype);
  const auto touched_by = [&](size_t from, int place) {  // 0: y, 1: x, 2: weight
    std::vector<char> touched(static_cast<size_t>(place == 0   ? y.numel()
                                                  : place == 1 ? x.numel()
                                                               : weight.numel()));
    for_each_product(c, [&](size_t i, size_t j, size_t k) {
      if (place != 1 && j == from) touched[place == 0 ? i : k] = 1;
      if (place == 1 && i == from) touched[j] = 1;
    });
    return touched;
  };
  const auto check_nans = [](const Array& array, const std::vector<char>& touched) {
    const std::vector<double> values = values_of(array);
    for (size_t i = 0; i < values.size(); ++i)
      if ((values[i] != values[i]) != (touched[i] != 0)) return false;
    return true;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const int64_t part : {0, 1, 2}) {
    const int64_t place = part * (x.numel() - 1) / 2;
    const Array nan_x = x.clone();
    write(nan_x, place, nan);
    kernels::cpu::conv2d(nan_x, weight, {}, c.params, y);
    CHECK(check_nans(y, touched_by(static_cast<size_t>(place), 0)));
    kernels::cpu::conv2d_backward(nan_x, weight, dy, c.params, {}, 0, dweight, 0, {}, 0);
    CHECK(check_nans(dweight, touched_by(static_cast<size_t>(place), 2)));
    const int64_t dy_place = part * (dy.numel() - 1) / 2;
    const Array nan_dy = dy.clone();
    write(nan_dy, dy_place, nan);
    kernels::cpu::conv2d_backward(x, weight, nan_dy, c.params, dx, 0, {}, 0, {}, 0);
    CHECK(check_nans(dx, touched_by(static_cast<size_t>(dy_place), 1)));
  }
}

TEST_CASE("cpu conv2d does not depend on the number of threads", "[conv][cpu]") {
  const ConvCase c = GENERATE(from_range(std::begin(kCases), std::end(kCases)),
                              from_range(std::begin(kLargeCases), std::end(kLargeCases)));
  CAPTURE(c.channels, c.height, c.kernel_h);
  Random random(24);
  const Array x = random_array({c.images, c.channels, c.height, c.width}, DType::f32, random);
  const Array weight = random_array(
      {c.filters, c.channels / c.params.groups, c.kernel_h, c.kernel_w}, DType::f32, random);
  const Array dy = random_array(output_shape(c), DType::f32, random);
  const auto results_with = [&](int count) {
    omp_set_num_threads(count);
    const Array y = dy.clone(), dx = x.clone(), dweight = weight.clone();
    kernels::cpu::conv2d(x, weight, {}, c.params, y);
    kernels::cpu::conv2d_backward(x, weight, dy, c.params, dx, 0, dweight, 0, {}, 0);
    return std::vector{values_of(y), values_of(dx), values_of(dweight)};
  };
  const int threads = omp_get_max_threads();
  const auto alone = results_with(1), together = results_with(3);
  omp_set_num_threads(threads);
  CHECK(alone == together);
}

TEST_CASE("cpu conv2d's gradient equals finite differences", "[conv][cpu]") {
  const ConvCase c{2, 4, 6, 5, 4, 3, 2, {2, 1, 1, 1, 1, 2, 2}};
  Random random(22);
  const Array x = random_array({c.images, c.channels, c.height, c.width}, DType::f64, random);
  const Array weight = random_array({4, 2, 3, 2}, DType::f64, random);
  const Array bias = random_array({4}, DType::f64, random);
  const Array y = Array::empty(output_shape(c), DType::f64);
  const Array dy = random_array(y.shape(), DType::f64, random);
  const auto loss = [&] {
    kernels::cpu::conv2d(x, weight, bias, c.params, y);
    double sum = 0;
    for (int64_t i = 0; i < y.numel(); ++i) sum += read(y, i) * read(dy, i);
    return sum;
  };
  const Array dx = Array::empty(x.shape(), DType::f64);
  const Array dweight = Array::empty(weight.shape(), DType::f64);
  const Array dbias = Array::empty({4}, DType::f64);
  kernels::cpu::conv2d_backward(x, weight, dy, c.params, dx, 0, dweight, 0, dbias, 0);
  CHECK(worst_difference(x, dx, loss) <= 1e-8);
  CHECK(worst_difference(weight, dweight, loss) <= 1e-8);
  CHECK(worst_difference(bias, dbias, loss) <= 1e-8);
}

TEST_CASE("cpu pooling equals the definition", "[conv][pool][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  const PoolParams p = GENERATE(PoolParams{2, 2, 2, 2, 0, 0}, PoolParams{3, 2, 2, 1, 1, 1},
                                PoolParams{1, 3, 1, 3, 0, 1}, PoolParams{3, 3, 1, 1, 1, 1});
  const int64_t planes = 6, height = 9, width = 8;
  const int64_t out_h = (height + 2 * p.padding_h - p.kernel_h) / p.stride_h + 1;
  const int64_t out_w = (width + 2 * p.padding_w - p.kernel_w) / p.stride_w + 1;
  Random random(23);
  const Array x = random_array({2, 3, height, width}, dtype, random);
  const Array dy = random_array({2, 3, out_h, out_w}, dtype, random);
  const std::vector<double> xs = values_of(x), dys = values_of(dy);
  std::vector<double> largest, mean, where;
  std::vector<double> max_dx(xs.size(), 0), mean_dx(xs.size(), 0);
  for (int64_t i = 0; i < planes * out_h * out_w; ++i) {
    const int64_t plane = i / (out_h * out_w), row = i / out_w % out_h, column = i % out_w;
    std::vector<int64_t> seen;  // positions in the plane
    for (int64_t h = row * p.stride_h - p.padding_h, r = 0; r < p.kernel_h; ++r, ++h)
      for (int64_t w = column * p.stride_w - p.padding_w, s = 0; s < p.kernel_w; ++s, ++w)
        if (h >= 0 && h < height && w >= 0 && w < width) seen.push_back(h * width + w);
    const auto index = [&](int64_t position) {
      return static_cast<size_t>(plane * height * width + position);
    };
    const int64_t best = *std::max_element(seen.begin(), seen.end(), [&](int64_t a, int64_t b) {
      return xs[index(a)] < xs[index(b)];
    });
    double sum = 0;
    for (const int64_t position : seen) {
      sum += xs[index(position)];
      mean_dx[index(position)] += dys[static_cast<size_t>(i)] / static_cast<double>(seen.size());
    }
    largest.push_back(xs[index(best)]);
    where.push_back(static_cast<double>(best));
    mean.push_back(sum / static_cast<double>(seen.size()));
    max_dx[index(best)] += dys[static_cast<size_t>(i)];
  }
  const Array y = Array::empty({2, 3, out_h, out_w}, dtype), dx = Array::empty(x.shape(), dtype);
  const Array indices = Array::empty(y.shape(), DType::i32);
  const double rounding = 4 * epsilon_of(dtype);

  kernels::cpu::max_pool2d(x, p, y, indices);
  CHECK(values_of(y) == largest);
  CHECK(values_of(indices) == where);
  kernels::cpu::max_pool2d_backward(dy, indices, p, dx);
  CHECK(worst_error(dx, max_dx) <= rounding);
  kernels::cpu::avg_pool2d(x, p, y);
  CHECK(worst_error(y, mean) <= rounding);
  kernels::cpu::avg_pool2d_backward(dy, p, dx);
  CHECK(worst_error(dx, mean_dx) <= rounding);
}

TEST_CASE("cpu max_pool2d passes NaN on", "[conv][pool][cpu]") {
  const Array x = array_of({1, 2, NAN, 4}, {1, 1, 2, 2}, DType::f32);
  const Array y = Array::empty({1, 1, 1, 1}, DType::f32);
  const Array indices = Array::empty({1, 1, 1, 1}, DType::i32);
  kernels::cpu::max_pool2d(x, {}, y, indices);
  CHECK(std::isnan(read(y, 0)));
  CHECK(read(indices, 0) == 2);
}

namespace {

struct BatchNorm {
  Array x, weight, bias, running_mean, running_var, y, mean, rstd;
  float eps = 1e-3f, momentum = 0.2f;

  BatchNorm(const Shape& shape, DType dtype, Random& random) {
    const DType statistics = dtype == DType::f64 ? DType::f64 : DType::f32;
    const Shape channels{shape[1]};
    x = random_array(shape, dtype, random, 2);
    y = Array::empty(shape, dtype);
    for (Array* vector : {&weight, &bias, &running_mean, &running_var, &mean, &rstd})
      *vector = random_array(channels, statistics, random);
  }
  void run() const {
    kernels::cpu::batch_norm(x, weight, bias, eps, momentum, running_mean, running_var, y, mean,
                             rstd);
  }
};

}  // namespace

TEST_CASE("cpu batch_norm equals the definition", "[conv][batch_norm][cpu]") {
  const DType dtype = GENERATE(from_range(std::begin(kFloating), std::end(kFloating)));
  Random random(24);
  const Shape shape{3, 4, 5, 7};
  const BatchNorm norm(shape, dtype, random);
  const std::vector<double> xs = values_of(norm.x), old_mean = values_of(norm.running_mean),
                            old_var = values_of(norm.running_var);
  norm.run();
  std::vector<double> expected(xs.size());
  const double statistics = dtype == DType::f64 ? 1e-13 : 1e-6;
  for (int64_t channel = 0; channel < 4; ++channel) {
    std::vector<size_t> positions;
    for (int64_t i = 0; i < norm.x.numel(); ++i)
      if (i / 35 % 4 == channel) positions.push_back(static_cast<size_t>(i));
    const double count = static_cast<double>(positions.size());
    double mean = 0, var = 0;
    for (const size_t i : positions) mean += xs[i] / count;
    for (const size_t i : positions) var += (xs[i] - mean) * (xs[i] - mean) / count;
    const double rstd = 1 / std::sqrt(var + static_cast<double>(norm.eps));
    for (const size_t i : positions)
      expected[i] = (xs[i] - mean) * rstd * read(norm.weight, channel) + read(norm.bias, channel);
    CHECK(std::abs(read(norm.mean, channel) - mean) <= statistics);
    CHECK(std::abs(read(norm.rstd, channel) - rstd) <= statistics);
    const size_t c = static_cast<size_t>(channel);
    const double momentum = static_cast<double>(norm.momentum);
    CHECK(std::abs(read(norm.running_mean, channel) -
                   ((1 - momentum) * old_mean[c] + momentum * mean)) <= statistics);
    CHECK(std::abs(read(norm.running_var, channel) -
                   ((1 - momentum) * old_var[c] + momentum * var * count / (count - 1))) <=
          10 * statistics);
  }
  CHECK(worst_error(norm.y, expected) <=
        10 * statistics + (is_half(dtype) ? epsilon_of(dtype) : 0));
}

TEST_CASE("cpu batch_norm's gradient equals finite differences", "[conv][batch_norm][cpu]") {
  Random random(25);
  const Shape shape{2, 3, 4, 3};
  const BatchNorm norm(shape, DType::f64, random);
  const Array dy = random_array(shape, DType::f64, random);
  const auto loss = [&] {
    norm.run();
    double sum = 0;
    for (int64_t i = 0; i < dy.numel(); ++i) sum += read(norm.y, i) * read(dy, i);
    return sum;
  };
  loss();
  const Array dx = Array::empty(shape, DType::f64), dweight = Array::empty({3}, DType::f64),
              dbias = Array::empty({3}, DType::f64);
  kernels::cpu::batch_norm_backward(dy, norm.x, norm.weight, norm.mean, norm.rstd, dx, dweight,
                                    dbias);
  CHECK(worst_difference(norm.x, dx, loss) <= 1e-8);
  CHECK(worst_difference(norm.weight, dweight, loss) <= 1e-8);
  CHECK(worst_difference(norm.bias, dbias, loss) <= 1e-8);

  // Half and single precision against f64 on the same numbers.
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const BatchNorm narrow(shape, dtype, random);
  narrow.run();
  const Array narrow_dy = array_of(values_of(dy), shape, dtype);
  const Array narrow_dx = Array::empty(shape, dtype);
  const Array wide_dy = array_of(values_of(narrow_dy), shape, DType::f64);
  const auto wide = [&](const Array& array) {
    return array_of(values_of(array), array.shape(), DType::f64);
  };
  kernels::cpu::batch_norm_backward(wide_dy, wide(narrow.x), wide(narrow.weight), wide(narrow.mean),
                                    wide(narrow.rstd), dx, dweight, dbias);
  const Array narrow_dweight = Array::empty({3}, DType::f32);
  const Array narrow_dbias = Array::empty({3}, DType::f32);
  kernels::cpu::batch_norm_backward(narrow_dy, narrow.x, narrow.weight, narrow.mean, narrow.rstd,
                                    narrow_dx, narrow_dweight, narrow_dbias);
  CHECK(worst_error(narrow_dx, values_of(dx)) <= epsilon_of(dtype) + 1e-6);
  CHECK(worst_error(narrow_dweight, values_of(dweight)) <= 1e-5);
  CHECK(worst_error(narrow_dbias, values_of(dbias)) <= 1e-5);
}
