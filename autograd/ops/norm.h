// Norms: f32 statistics, output in x's dtype. weight and bias may be f32 beside half inputs, and
// undefined: 1 and 0. Over the last dimension, but for groups and instances.
#pragma once

#include <utility>

#include <binade/autograd/tensor.h>

namespace binade {

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps = 1e-5);
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps = 1e-6);
// {x + residual, norm(x + residual)} in one pass.
std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& residual,
                                         const Tensor& weight, const Tensor& bias,
                                         double eps = 1e-5);
std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual,
                                       const Tensor& weight, double eps = 1e-6);

// x (N, C, …), of which each image's channels form `groups` of equal size, each normalised as a
// whole (Wu & He 2018); then weight and bias (C) channel by channel. A layer norm without weights
// and one elementwise pass.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight = {},
                  const Tensor& bias = {}, double eps = 1e-5);
// The same with every channel for itself. A channel needs at least two elements.
Tensor instance_norm(const Tensor& x, const Tensor& weight = {}, const Tensor& bias = {},
                     double eps = 1e-5);

}  // namespace binade
