// The gradient of a convolution's weight. Private to this folder.
#pragma once

#include <binade/core/kernels/cpu/conv/patches.h>

namespace binade::kernels::cpu {

// dweight (groups · filters, channels, R, S) = beta (0 or 1) · dweight + dy · the patches of x's
// pixels, dy (N, groups · filters, Ho, Wo) with the grid's outputs. Sums are kept in T, float or
// double; work is cut by the shape alone.
template <class T>
void patch_weight_gradient(const Array& x, const PatchGrid& grid, int64_t groups, const Array& dy,
                           const Array& dweight, float beta);

}  // namespace binade::kernels::cpu
