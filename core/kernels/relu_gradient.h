// The gradient of a linear layer with ReLU behind it, up to its matmuls.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// dx = dy where y is above 0 or NaN, else 0: relu's gradient, from its output. y, dy and dx (N, D)
// of one floating dtype; dx may be dy. column_sums (D), f32 (f64 for f64), unless it is undefined,
// receives the sums of dx over N, which the GPU adds up in the same pass.
BINADE_KERNEL(relu_gradient, const Array& y, const Array& dy, const Array& dx,
              const Array& column_sums)

}  // namespace binade::kernels
