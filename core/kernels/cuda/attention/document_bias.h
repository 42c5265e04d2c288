// Packed documents as cuDNN's kernels and the plain ones take them.
#pragma once

#include <binade/core/array.h>

namespace binade::kernels::cuda {

// (B, 1, T, T) of a floating dtype: 0 where documents[b, i] == documents[b, j] (B, T) i32
// contiguous and, with a window > 0, j > i − window; otherwise a number so low that its exponential
// is 0; finite, as cuDNN makes NaN of −∞ alone.
Array document_bias(const Array& documents, int64_t window, DType dtype);

}  // namespace binade::kernels::cuda
