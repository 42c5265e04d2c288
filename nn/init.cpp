#include <binade/nn/init.h>

#include <cmath>

#include <binade/core/kernels/random.h>
#include <binade/core/random.h>

namespace binade::nn::init {
namespace {

PhiloxKey next_key(Device device) {
  RandomState& state = RandomState::current();
  return {state.seed(), state.step_on(device), state.next_place(RandomState::Use::initialiser)};
}

Array draw_uniform(const Shape& shape, Device device, double low, double high) {
  Array values = Array::empty(shape, DType::f32, device);
  BINADE_DISPATCH(device, uniform(values, next_key(device), low, high));
  return values;
}

Array draw_normal(const Shape& shape, Device device, double mean, double stddev) {
  Array values = Array::empty(shape, DType::f32, device);
  BINADE_DISPATCH(device, normal(values, next_key(device), mean, stddev));
  return values;
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
Array draw_uniform_of(double stddev, const Shape& shape, Device device) {
  const double bound = std::sqrt(3.0) * stddev;
  return draw_uniform(shape, device, -bound, bound);
}

}  // namespace

Initialiser zeros() {
  return constant(0);
}
Initialiser ones() {
  return constant(1);
}

Initialiser constant(double value) {
  return [value](const Shape& shape, Device device) {
    return Array::full(shape, value, DType::f32, device);
  };
}

Initialiser empty() {
  return [](const Shape& shape, Device device) { return Array::empty(shape, DType::f32, device); };
}

Initialiser uniform(double low, double high) {
  return [=](const Shape& shape, Device device) { return draw_uniform(shape, device, low, high); };
}

Initialiser normal(double stddev, double mean) {
  return
      [=](const Shape& shape, Device device) { return draw_normal(shape, device, mean, stddev); };
}

Initialiser xavier_uniform(double gain) {
  return [=](const Shape& shape, Device device) {
    return draw_uniform_of(xavier_stddev(shape, gain), shape, device);
  };
}

Initialiser xavier_normal(double gain) {
  return [=](const Shape& shape, Device device) {
    return draw_normal(shape, device, 0, xavier_stddev(shape, gain));
  };
}

Initialiser kaiming_uniform(double gain) {
  return [=](const Shape& shape, Device device) {
    return draw_uniform_of(kaiming_stddev(shape, gain), shape, device);
  };
}

Initialiser kaiming_normal(double gain) {
  return [=](const Shape& shape, Device device) {
    return draw_normal(shape, device, 0, kaiming_stddev(shape, gain));
  };
}

}  // namespace binade::nn::init
