// INTERNAL. The pass over gradients that lie in no flat group.
#pragma once

#include <binade/core/array.h>

namespace binade::optim {

// norm_sq (f64 scalar) += Σ (g·inv_scale)² over finite elements, first_bad (i64 scalar) = the first
// other one, or kNoBadGradient (core/update.h). grads (n), contiguous, of any floating dtype.
void measure_gradients(const Array& grads, const Array& inv_scale, const Array& norm_sq,
                       const Array& first_bad);

}  // namespace binade::optim
