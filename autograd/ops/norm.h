// Norms over the last dimension: f32 statistics, output in x's dtype. weight and bias may be f32
// beside half inputs.
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

}  // namespace binade
