// INTERNAL
#pragma once

#include <binade/core/array.h>

namespace binade::kernels::cuda {

// cumprod_backward() (core/kernels/reduce.h) for columns that are neighbours in memory: rows of x,
// dy and dx, all other dimensions at a position of `dim`, are read and written in 16-byte vectors
// where they allow it. Any layout is right; where no neighbours lie in memory it is slow.
void cumprod_columns_backward(const Array& x, const Array& dy, int dim, const Array& dx);

}  // namespace binade::kernels::cuda
