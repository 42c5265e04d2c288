// Ops at the ends of what they take: windows in the padding, infinities, sizes of 0, long counts.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <catch2/catch.hpp>

#include <binade/autograd/ops.h>

#include "gpu.h"
#include "leaves.h"

using namespace binade;
using namespace binade::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
const DType kDTypes[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

// A max_pool2d over three lines, rows or columns, of `size` elements, against a walk over every
// tap.
void check_lines(Device device, bool columns, int64_t size, int64_t kernel, int64_t stride,
                 int64_t padding, int64_t dilation, bool ceil_mode) {
  constexpr int64_t kLines = 3;
  // Element `i` of line `line` in an image whose lines have `length`.
  const auto place = [&](int64_t line, int64_t i, int64_t length) {
    return static_cast<size_t>(columns ? i * kLines + line : line * length + i);
  };
  const auto in = [&](int64_t along) {
    return columns ? std::array<int64_t, 2>{along, 1} : std::array<int64_t, 2>{1, along};
  };
  Pool2dOptions options;
  options.kernel = in(kernel);
  options.stride = in(stride);
  options.padding = columns ? std::array<int64_t, 2>{padding, 0} : std::array{int64_t{0}, padding};
  options.dilation = in(dilation);
  options.ceil_mode = ceil_mode;

  Numbers values(static_cast<size_t>(kLines * size));
  for (int64_t i = 0; i < kLines * size; ++i)
    values[static_cast<size_t>(i)] = static_cast<double>(i * 5 % 13);
  const Tensor x = leaf(values, columns ? Shape{1, 1, size, kLines} : Shape{1, 1, kLines, size},
                        DType::f32, device);
  const Tensor y = max_pool2d(x, options);
  const int64_t outputs = y.size(columns ? 2 : 3);
  Numbers expected(static_cast<size_t>(kLines * outputs), -kInf), dx(values.size(), 0.0);
  for (int64_t line = 0; line < kLines; ++line)
    for (int64_t o = 0; o < outputs; ++o) {
      double& largest = expected[place(line, o, outputs)];
      int64_t best = -1;
      for (int64_t tap = 0; tap < kernel; ++tap) {
        const int64_t at = o * stride - padding + tap * dilation;
        if (at < 0 || at >= size || values[place(line, at, size)] <= largest) continue;
        largest = values[place(line, at, size)];
        best = at;
      }
      if (best >= 0) dx[place(line, best, size)] += 1;
    }
  INFO((columns ? "columns" : "rows")
       << " of " << size << ", kernel " << kernel << ", stride " << stride << ", padding "
       << padding << ", dilation " << dilation << (ceil_mode ? ", ceil_mode" : ""));
  CHECK(numbers(y.array()) == expected);
  CHECK(gradient(y, x) == dx);
}

void check_padding_windows(Device device) {
  for (const bool columns : {false, true})
    for (int64_t size = 1; size <= 4; ++size)
      for (int64_t kernel = 1; kernel <= 4; ++kernel)
        for (int64_t padding = 0; 2 * padding <= kernel; ++padding)
          for (int64_t dilation = 1; dilation <= 5; ++dilation)
            for (const int64_t stride : {1, 2})
              for (const bool ceil_mode : {false, true})
                if (size + 2 * padding > (kernel - 1) * dilation)
                  check_lines(device, columns, size, kernel, stride, padding, dilation, ceil_mode);
  // Both dimensions.
  for (const DType dtype : kDTypes) {
    const Tensor one = leaf({3}, {1, 1, 1, 1}, dtype, device);
    const Tensor y = max_pool2d(
        one, {.kernel = {2, 2}, .stride = {1, 1}, .padding = {1, 1}, .dilation = {2, 2}});
    CHECK(numbers(y.array()) == Numbers{-kInf});
    CHECK(gradient(y, one) == Numbers{0});
    const Tensor four = leaf({1, 2, 3, 4}, {1, 1, 2, 2}, dtype, device);
    const Tensor z = max_pool2d(
        four, {.kernel = {2, 2}, .stride = {1, 1}, .padding = {1, 1}, .dilation = {3, 3}});
    CHECK(numbers(z.array()) == Numbers{-kInf});
    CHECK(gradient(z, four) == Numbers{0, 0, 0, 0});
  }
}

void check_infinite_pixels(Device device) {
  const auto gradient_for = [&](const Tensor& y, const Tensor& x, const Numbers& dy) {
    const Tensor given = Tensor(Array::from(dy, y.shape()).to(y.dtype()).to(device));
    return numbers(grad({y}, {x}, {given})[0].array());
  };
  for (const DType dtype : kDTypes)
    for (const bool rows : {false, true}) {
      INFO(name_of(dtype) << (rows ? ", rows" : ", columns"));
      const auto image = [&](const Numbers& values) {
        const auto count = static_cast<int64_t>(values.size());
        return leaf(values, rows ? Shape{1, 1, count, 1} : Shape{1, 1, 1, count}, dtype, device);
      };
      const auto size = [&](int64_t count) {
        return rows ? std::array<int64_t, 2>{count, 1} : std::array<int64_t, 2>{1, count};
      };
      const Tensor x = image({kInf, 1, -kInf});
      const Tensor nearest = interpolate(x, size(6));
      CHECK(numbers(nearest.array()) == Numbers{kInf, kInf, 1, 1, -kInf, -kInf});
      CHECK(gradient_for(nearest, x, {kInf, 1, 2, 3, 4, -kInf}) == Numbers{kInf, 5, -kInf});
      // Samples that lie on an element.
      const Tensor same = interpolate(x, size(3), Interpolation::bilinear);
      CHECK(numbers(same.array()) == Numbers{kInf, 1, -kInf});
      CHECK(gradient_for(same, x, {kInf, 1, -kInf}) == Numbers{kInf, 1, -kInf});
      const Tensor corners = interpolate(x, size(5), Interpolation::bilinear, true);
      CHECK(numbers(corners.array()) == Numbers{kInf, kInf, 1, -kInf, -kInf});
      CHECK(gradient_for(corners, x, {kInf, 1, 2, 1, -kInf}) == Numbers{kInf, 3, -kInf});
    }
}

void check_whole_planes(Device device) {
  for (const DType dtype : kDTypes) {
    const Tensor x = leaf({1, 4, 4, 2, kNan, 3, 1, 2}, {1, 2, 2, 2}, dtype, device);
    const Tensor largest = adaptive_max_pool2d(x, {1, 1});
    CHECK(largest.shape() == Shape{1, 2, 1, 1});
    CHECK(largest.dtype() == dtype);
    CHECK(numbers(largest.array())[0] == 4);
    CHECK(std::isnan(numbers(largest.array())[1]));
    CHECK(gradient(largest, x) == Numbers{0, 1, 0, 0, 1, 0, 0, 0});
    const Tensor means = adaptive_avg_pool2d(slice(x, 1, 0, 1), {1, 1});
    CHECK(means.dtype() == dtype);
    CHECK(numbers(means.array()) == Numbers{2.75});
    CHECK(gradient(means, x) == Numbers{0.25, 0.25, 0.25, 0.25, 0, 0, 0, 0});
    CHECK(adaptive_avg_pool2d(Tensor::zeros({0, 2, 3, 3}, dtype, device), {1, 1}).shape() ==
          Shape{0, 2, 1, 1});
    CHECK(adaptive_max_pool2d(Tensor::zeros({0, 2, 3, 3}, dtype, device), {1, 1}).shape() ==
          Shape{0, 2, 1, 1});
  }
}

void check_searches(Device device) {
  for (const DType dtype : kDTypes)
    for (const bool right : {false, true}) {
      INFO(name_of(dtype) << (right ? ", right" : ""));
      const auto places = [&](const Numbers& sorted, const Numbers& values) {
        return numbers(
            searchsorted(leaf(sorted, {static_cast<int64_t>(sorted.size())}, dtype, device),
                         leaf(values, {static_cast<int64_t>(values.size())}, dtype, device), right)
                .array());
      };
      CHECK(places({1, 2, 3}, {kNan, kInf, -kInf}) == Numbers{3, 3, 0});
      // PyTorch's places where `sorted` has what it must not.
      CHECK(places({1, 2, kNan, kNan}, {0.5, 2, 3, kNan}) == Numbers{4, 4, 4, 4});
      CHECK(places({1, kNan, 3, 5, 6}, {0.5, 2, 3, 5.5, kNan}) ==
            (right ? Numbers{2, 2, 3, 4, 5} : Numbers{2, 2, 2, 4, 5}));

      // More values than a task takes.
      for (const int64_t rows : {1, 3}) {
        const int64_t width = 10001;
        Numbers sorted(60), values;
        std::iota(sorted.begin(), sorted.end(), 0.0);
        for (int64_t i = 0; i < rows * width; ++i)
          values.push_back(static_cast<double>(i * 37 % 127) / 2);
        Numbers lists, expected;
        for (int64_t row = 0; row < rows; ++row)
          for (const double element : sorted) lists.push_back(element + static_cast<double>(row));
        for (int64_t i = 0; i < rows * width; ++i) {
          const auto begin = lists.begin() + i / width * 60, end = begin + 60;
          const double value = values[static_cast<size_t>(i)];
          expected.push_back(static_cast<double>(
              (right ? std::upper_bound(begin, end, value) : std::lower_bound(begin, end, value)) -
              begin));
        }
        const Tensor places =
            searchsorted(leaf(lists, rows == 1 ? Shape{60} : Shape{rows, 60}, dtype, device),
                         leaf(values, {rows, width}, dtype, device), right);
        CHECK((numbers(places.array()) == expected));
      }
    }
}

void on_gpu(void (*check)(Device)) {
  require_gpu();
  check(test_gpu());
}

}  // namespace

TEST_CASE("a max_pool2d window of padding alone is −∞ without a gradient", "[ops]") {
  check_padding_windows(Device::cpu());
}
TEST_CASE("a max_pool2d window of padding alone is −∞ without a gradient on the GPU",
          "[ops][cuda]") {
  on_gpu(check_padding_windows);
}

TEST_CASE("interpolate keeps an infinity apart from its neighbours", "[ops]") {
  check_infinite_pixels(Device::cpu());
}
TEST_CASE("interpolate keeps an infinity apart from its neighbours on the GPU", "[ops][cuda]") {
  on_gpu(check_infinite_pixels);
}

TEST_CASE("adaptive pooling to one element reduces the plane", "[ops]") {
  check_whole_planes(Device::cpu());
}
TEST_CASE("adaptive pooling to one element reduces the plane on the GPU", "[ops][cuda]") {
  on_gpu(check_whole_planes);
}

TEST_CASE("searchsorted has PyTorch's places for NaN, and all of a long row's", "[ops]") {
  check_searches(Device::cpu());
}
TEST_CASE("searchsorted has PyTorch's places for NaN, and all of a long row's, on the GPU",
          "[ops][cuda]") {
  on_gpu(check_searches);
}

TEST_CASE("einsum sums over nothing where a size of 0 meets one of 1", "[ops]") {
  const Tensor none = leaf({}, {2, 0}), one = leaf({5, 6}, {2, 1});
  for (const bool first : {false, true}) {
    const auto of = [&](const std::string& equation) {
      return einsum(equation, first ? TensorList{none, one} : TensorList{one, none});
    };
    CHECK(numbers(of("bi,bi->b").array()) == Numbers{0, 0});
    CHECK(numbers(of("bi,bi->").array()) == Numbers{0});
    CHECK(of("bi,bi->bi").shape() == Shape{2, 0});
    CHECK(numbers(of("bi,ci->bc").array()) == Numbers{0, 0, 0, 0});
    CHECK(gradient(of("bi,bi->b"), one) == Numbers{0, 0});
    CHECK(gradient(of("bi,bi->b"), none).empty());
  }
}

TEST_CASE("scatter_reduce counts past what f32 can", "[ops]") {
  // As many as x says with itself, of which the others are zeros: the mean is 1.
  const int64_t count = (int64_t{1} << 24) + 1;
  const double all = 0x1p24 + 2;
  const Tensor x = leaf({all}, DType::f32);
  const Tensor index = expand(Tensor::zeros({1}, DType::i64), {count});
  const Tensor source = expand(Tensor::zeros({1}), {count});
  const Tensor y = scatter_reduce(x, 0, index, source, ScatterReduce::mean);
  CHECK(y.item() == 1);
  CHECK(gradient(y, x) == Numbers{static_cast<float>(1 / all)});
  // Ties, too.
  const Tensor zero = leaf({0}, DType::f32);
  CHECK(gradient(scatter_reduce(zero, 0, index, source, ScatterReduce::amax), zero) ==
        Numbers{static_cast<float>(1 / all)});
}

TEST_CASE("softplus with a beta reaches as far as its dtype", "[ops]") {
  // beta·x overflows; the value does not.
  const Tensor x = leaf({-2e38, 2e38}, DType::f32);
  const Tensor y = softplus(x, 2);
  CHECK(numbers(y.array()) == Numbers{0, 2e38f});
  CHECK(gradient(y, x) == Numbers{0, 1});
}
