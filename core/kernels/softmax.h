// Softmax along the last dimension, which is contiguous; the others may have any strides. y may
// have another floating dtype than x.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

BINADE_KERNEL(softmax, const Array& x, const Array& y)
BINADE_KERNEL(log_softmax, const Array& x, const Array& y)
// dx = beta·dx + y · (dy − Σ y·dy).
BINADE_KERNEL(softmax_backward, const Array& y, const Array& dy, const Array& dx, float beta)
// dx = beta·dx + dy − exp(y) · Σ dy.
BINADE_KERNEL(log_softmax_backward, const Array& y, const Array& dy, const Array& dx, float beta)

}  // namespace binade::kernels
