#include <binade/autograd/create.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/reduce.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/random.h>
#include <binade/core/random.h>

namespace binade {
namespace {

PhiloxKey next_key(Device device) {
  RandomState& state = RandomState::current();
  return {state.seed(), state.step_on(device), state.next_place()};
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
