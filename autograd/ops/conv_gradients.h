// INTERNAL. The gradients of a convolution as ops. ⟨conv(x, weight), dy⟩ is linear in each of the
// three, so the convolution and these two are the gradients of one another, as often as wanted.
#pragma once

#include <binade/autograd/on_tape.h>
#include <binade/core/kernels/conv.h>

namespace binade::ops {

// Of weight (K, C/groups, R, S) and dy (N, K, Ho, Wo): x's gradient, of shape (N, C, H, W).
Tensor conv2d_input_gradient(const Tensor& dy, const Tensor& weight,
                             const kernels::ConvParams& params, const Shape& shape);
// Of x (N, C, H, W) and dy (N, K, Ho, Wo): the weight's gradient, of shape (K, C/groups, R, S).
Tensor conv2d_weight_gradient(const Tensor& x, const Tensor& dy, const kernels::ConvParams& params,
                              const Shape& shape);
// conv2d without a bias.
Tensor convolved(const Tensor& x, const Tensor& weight, const kernels::ConvParams& params);
// dy (N, K, …) over all but K, in f32 (f64).
Tensor conv_bias_gradient(const Tensor& dy);

}  // namespace binade::ops
