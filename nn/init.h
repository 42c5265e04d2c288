// Initialisers, under their field's names. An initialiser makes the f32 values of a weight from its
// shape; random ones draw from RandomState (Philox), so that a seed gives the same weights on every
// device. Weights are (out, in, ...): fan_in = in · receptive field, fan_out = out · receptive
// field.
#pragma once

#include <functional>

#include <binade/core/array.h>

namespace binade::nn {

using Initialiser = std::function<Array(const Shape& shape, Device device)>;

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

}  // namespace init
}  // namespace binade::nn
