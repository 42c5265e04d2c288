// The Fréchet distance between two clouds of features, as Gaussians (Heusel et al. 2017, eq. 6).
#pragma once

#include <binade/core/array.h>

namespace binade::examples {

// a (N, D) and b (M, D) f32 on the CPU: ‖μa − μb‖² + tr(Ca + Cb − 2·(Ca·Cb)^½), in f64. Throws
// Error for other shapes and for fewer than 2 rows.
double frechet_distance(const Array& a, const Array& b);

}  // namespace binade::examples
