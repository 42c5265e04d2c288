// Convolutions of f32 by oneDNN's kernels, in parts. Private to this folder.
#pragma once

#include <binade/core/kernels/conv.h>

namespace binade::kernels::cpu {

// As conv2d and its gradients of x and the weight (beta is 0 or 1), or false, with nothing written,
// where oneDNN is not there or has no fast kernel for the shapes and this processor. Arrays are
// contiguous. Work is cut by the shape alone and each part is computed by one thread, so that
// results do not depend on threads.
bool onednn_conv2d(const Array& x, const Array& weight, const Array& bias, const ConvParams& params,
                   const Array& y);
bool onednn_conv2d_input_gradient(const Array& weight, const Array& dy, const ConvParams& params,
                                  const Array& dx, float beta);
bool onednn_conv2d_weight_gradient(const Array& x, const Array& dy, const ConvParams& params,
                                   const Array& dweight, float beta);

}  // namespace binade::kernels::cpu
