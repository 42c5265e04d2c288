#include <binade/autograd/create.h>

#include <algorithm>
#include <cmath>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/random.h>
#include <binade/core/random.h>

namespace binade {
namespace {

PhiloxKey next_key(Device device) {
  RandomState& state = RandomState::current();
  return {state.seed(), state.step_on(device), state.next_place()};
}

Tensor stepped(int64_t count, double start, double step, DType dtype, Device device) {
  const Array values = Array::empty({count}, dtype, device);
  if (count > 0) BINADE_DISPATCH(device, arange(values, start, step));
  return Tensor(values);
}

}  // namespace

Tensor tensor(std::initializer_list<double> values, DType dtype, Device device) {
  const std::vector<double> all(values);
  const Array array = Array::from(all, {static_cast<int64_t>(all.size())});
  return Tensor(array.to(dtype).to(device));
}

Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, DType dtype,
              Device device) {
  std::vector<double> all;
  const size_t columns = rows.size() == 0 ? 0 : rows.begin()->size();
  for (const auto& row : rows) {
    check(row.size() == columns, "tensor: rows of ", columns, " and of ", row.size(),
          " values make no matrix");
    all.insert(all.end(), row.begin(), row.end());
  }
  const Array array =
      Array::from(all, {static_cast<int64_t>(rows.size()), static_cast<int64_t>(columns)});
  return Tensor(array.to(dtype).to(device));
}

Tensor arange(int64_t n, DType dtype, Device device) {
  return Tensor(Array::arange(n, dtype, device));
}

Tensor arange(double start, double end, double step, DType dtype, Device device) {
  check(std::isfinite(start) && std::isfinite(end) && std::isfinite(step) && step != 0,
        "arange: start, end and step must be finite and the step not 0, got ", start, ", ", end,
        " and ", step);
  check(is_floating(dtype) || (start == std::trunc(start) && step == std::trunc(step)),
        "arange: steps of ", step, " from ", start, " are no integers, but the dtype is ", dtype,
        "; ask for DType::f32");
  const double steps = std::ceil((end - start) / step);
  check(steps >= 0, "arange: steps of ", step, " do not lead from ", start, " to ", end);
  constexpr double kMost = 9007199254740992;  // 2^53: beyond it a position is no double
  check(steps <= kMost, "arange: ", steps, " numbers from ", start, " to ", end, " are too many");
  return stepped(static_cast<int64_t>(steps), start, step, dtype, device);
}

Tensor linspace(double start, double end, int64_t count, DType dtype, Device device) {
  check(count >= 0, "linspace: the count must not be below 0, got ", count);
  check(is_floating(dtype), "linspace: the dtype must be floating point, got ", dtype,
        "; convert the result with to(x, dtype)");
  const double step = count > 1 ? (end - start) / static_cast<double>(count - 1) : 0;
  Tensor values = stepped(count, start, step, dtype, device);
  if (count > 1) values.array().slice(0, count - 1).fill(end);  // not what rounding makes of it
  return values;
}

Tensor eye(int64_t rows, int64_t columns, DType dtype, Device device) {
  check(rows >= 0 && columns >= 0, "eye: sizes must not be below 0, got ", rows, " and ", columns);
  const Array flat = Array::zeros({rows * columns}, dtype, device);
  const int64_t ones = std::min(rows, columns);
  if (ones > 0) flat.slice(0, 0, (ones - 1) * (columns + 1) + 1, columns + 1).fill(1);
  return Tensor(flat.view({rows, columns}));
}

Tensor eye(int64_t n, DType dtype, Device device) {
  return eye(n, n, dtype, device);
}

Tensor randn(const Shape& shape, Device device) {
  const Array values = Array::empty(shape, DType::f32, device);
  BINADE_DISPATCH(device, normal(values, next_key(device), 0, 1));
  return Tensor(values);
}

Tensor rand(const Shape& shape, Device device) {
  const Array values = Array::empty(shape, DType::f32, device);
  BINADE_DISPATCH(device, uniform(values, next_key(device), 0, 1));
  return Tensor(values);
}

Tensor randint(int64_t low, int64_t high, const Shape& shape, Device device) {
  constexpr uint64_t kMost = uint64_t{1} << 24;  // the uniforms that there are
  // Unsigned: the distance of two i64 may be beyond i64.
  const uint64_t numbers = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  check(low < high && numbers <= kMost, "randint: expected 1 to ", kMost,
        " numbers, got those from ", low, " to below ", high);
  const auto count = static_cast<double>(numbers);
  // The largest uniform times `count` may round up to `count`.
  const Tensor steps = clamp(floor(rand(shape, device) * count), 0, count - 1);
  return to(steps, DType::i64) + Tensor::from(std::vector<int64_t>{low}, {}, device);
}

Tensor randperm(int64_t n, Device device) {
  return sort(rand({n}, device), 0).second;
}

}  // namespace binade
