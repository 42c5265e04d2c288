#include <binade/nn/init.h>

#include <algorithm>
#include <cmath>

#include <binade/core/kernels/random.h>
#include <binade/core/random.h>

namespace binade::nn::init {
namespace {

PhiloxKey next_key(Device device) {
  RandomState& state = RandomState::current();
  return {state.seed(), state.step_on(device), state.next_place(RandomState::Use::initialiser)};
}

// Two numbers that a kind of draw is made of: bounds, or mean and standard deviation.
using Numbers = std::pair<double, double>;
using NumbersOf = std::function<Numbers(const Shape& shape)>;
enum class Kind : uint8_t { uniform, normal };

Array draw(Kind kind, const Numbers& numbers, const Shape& shape, Device device) {
  Array values = Array::empty(shape, DType::f32, device);
  const auto [a, b] = numbers;
  if (kind == Kind::uniform)
    BINADE_DISPATCH(device, uniform(values, next_key(device), a, b));
  else
    BINADE_DISPATCH(device, normal(values, next_key(device), a, b));
  return values;
}

// Elements of a draw from `first` on, on the CPU.
void draw_from(Kind kind, const Numbers& numbers, const PhiloxKey& key, int64_t first,
               const Array& out) {
  constexpr int64_t kWords = 4;  // that a draw makes at once
  if (const int64_t before = first % kWords; before != 0) {
    const Array wider = Array::empty({before + out.numel()}, DType::f32);
    draw_from(kind, numbers, key, first - before, wider);
    out.copy_from(wider.slice(0, before));
    return;
  }
  const auto [a, b] = numbers;
  kind == Kind::uniform ? kernels::cpu::uniform(out, key, a, b, first)
                        : kernels::cpu::normal(out, key, a, b, first);
}

Initialiser drawn(Kind kind, const NumbersOf& numbers_of) {
  return {[=](const Shape& shape, Device device) {
            return draw(kind, numbers_of(shape), shape, device);
          },
          [=](const Shape& shape) {
            const Numbers numbers = numbers_of(shape);
            PhiloxKey key = next_key(Device::cpu());
            key.step = key.step.clone();  // the state's own may go on
            return ValueSource(shape, [=](int64_t begin, const Array& out) {
              draw_from(kind, numbers, key, begin, out);
            });
          }};
}

struct Fans {
  double in, out;
};
Fans fans_of(const Shape& shape) {
  check(shape.dims() >= 2, "fan-in and fan-out need a weight of two dimensions or more, got ",
        shape);
  double receptive_field = 1;
  for (int i = 2; i < shape.dims(); ++i) receptive_field *= static_cast<double>(shape[i]);
  return {static_cast<double>(shape[1]) * receptive_field,
          static_cast<double>(shape[0]) * receptive_field};
}

double xavier_stddev(const Shape& shape, double gain) {
  const Fans fans = fans_of(shape);
  return gain * std::sqrt(2 / (fans.in + fans.out));
}

double kaiming_stddev(const Shape& shape, double gain) {
  return gain / std::sqrt(fans_of(shape).in);
}

// U(−a, a) has the standard deviation a/√3.
Numbers bounds_of(double stddev) {
  const double bound = std::sqrt(3.0) * stddev;
  return {-bound, bound};
}

}  // namespace

Initialiser zeros() {
  return constant(0);
}
Initialiser ones() {
  return constant(1);
}

Initialiser constant(double value) {
  return {[value](const Shape& shape, Device device) {
            return Array::full(shape, value, DType::f32, device);
          },
          [value](const Shape& shape) {
            return ValueSource(shape, [value](int64_t, const Array& out) { out.fill(value); });
          }};
}

Initialiser empty() {
  return {[](const Shape& shape, Device device) { return Array::empty(shape, DType::f32, device); },
          [](const Shape& shape) { return ValueSource(shape, [](int64_t, const Array&) {}); }};
}

Initialiser uniform(double low, double high) {
  return drawn(Kind::uniform, [=](const Shape&) { return Numbers(low, high); });
}

Initialiser normal(double stddev, double mean) {
  return drawn(Kind::normal, [=](const Shape&) { return Numbers(mean, stddev); });
}

Initialiser xavier_uniform(double gain) {
  return drawn(Kind::uniform,
               [=](const Shape& shape) { return bounds_of(xavier_stddev(shape, gain)); });
}

Initialiser xavier_normal(double gain) {
  return drawn(Kind::normal,
               [=](const Shape& shape) { return Numbers(0, xavier_stddev(shape, gain)); });
}

Initialiser kaiming_uniform(double gain) {
  return drawn(Kind::uniform,
               [=](const Shape& shape) { return bounds_of(kaiming_stddev(shape, gain)); });
}

Initialiser kaiming_normal(double gain) {
  return drawn(Kind::normal,
               [=](const Shape& shape) { return Numbers(0, kaiming_stddev(shape, gain)); });
}

Initialiser zeros_behind(const Initialiser& values, int64_t rows) {
  return {[=](const Shape& shape, Device device) {
            Array made = values(shape, device);
            if (shape[0] > rows) made.slice(0, rows).zero();
            return made;
          },
          [=](const Shape& shape) {
            const int64_t row = shape.numel() / std::max<int64_t>(shape[0], 1);
            return values.source(shape).padded(shape, rows * row);
          }};
}

}  // namespace binade::nn::init
