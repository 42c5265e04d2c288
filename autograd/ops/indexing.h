// Reading and writing by index. Indices are i32 or i64 tensors without a gradient.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

// Rows of `table` (V, D): index (…) gives (…, D). The gradient of the table is deterministic.
Tensor embedding(const Tensor& table, const Tensor& index);
Tensor gather(const Tensor& x, int dim, const Tensor& index);
// A copy of x with source written at index along dim. Where several elements name one place, the
// last of them along dim is written, and the gradient of that place is its alone.
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
// A copy of x with source added at index along dim; elements that name one place are all added.
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);  // index (n)
// A copy of x with the slices of source added at index along dim, all of them where it repeats.
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);

}  // namespace binade
