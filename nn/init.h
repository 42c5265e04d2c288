// Initialisers, under their field's names. An initialiser makes the f32 values of a weight from its
// shape; random ones draw from RandomState (Philox), so that a seed gives the same weights on every
// device. Weights are (out, in, ...): fan_in = in · receptive field, fan_out = out · receptive
// field.
#pragma once

#include <concepts>
#include <functional>
#include <utility>

#include <binade/core/array.h>
#include <binade/nn/deferred.h>

namespace binade::nn {

class Initialiser {
 public:
  using Now = std::function<Array(const Shape& shape, Device device)>;
  using Later = std::function<ValueSource(const Shape& shape)>;

  // `later` gives what `now` would, when it is asked for; random ones take their place of the
  // sequence when they are called.
  Initialiser(Now now, Later later) : now_(std::move(now)), later_(std::move(later)) {}
  // A function of one's own, Array(const Shape& shape, Device device). It is called at once, also
  // inside a Deferred: what it draws has its place among the other draws.
  template <class Function>
  requires(!std::same_as<std::remove_cvref_t<Function>, Initialiser> &&
           std::is_invocable_r_v<Array, Function&, const Shape&, Device>)
      // NOLINTNEXTLINE(google-explicit-constructor): a function is an initialiser
      Initialiser(Function function)
      : now_(std::move(function)) {}

  Array operator()(const Shape& shape, Device device) const { return now_(shape, device); }
  // The same values, to be made later, on the CPU.
  ValueSource source(const Shape& shape) const {
    return later_ ? later_(shape) : ValueSource::of(now_(shape, Device::cpu()));
  }

 private:
  Now now_;
  Later later_;
};

namespace init {

Initialiser zeros();
Initialiser ones();
Initialiser constant(double value);
// Memory as it comes, for weights that are read from a file next.
Initialiser empty();
Initialiser uniform(double low, double high);
Initialiser normal(double stddev = 1, double mean = 0);

// Glorot & Bengio 2010: variance gain² · 2 / (fan_in + fan_out).
Initialiser xavier_uniform(double gain = 1);
Initialiser xavier_normal(double gain = 1);
// He et al. 2015: variance gain² / fan_in; √2 is the gain of ReLU.
inline constexpr double kReluGain = 1.4142135623730951;
Initialiser kaiming_uniform(double gain = kReluGain);
Initialiser kaiming_normal(double gain = kReluGain);

// Another initialiser's values, but zeros in all rows from `rows` on.
Initialiser zeros_behind(const Initialiser& values, int64_t rows);

}  // namespace init
}  // namespace binade::nn
