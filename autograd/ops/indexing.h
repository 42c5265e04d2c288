// Reading and writing by index. Indices are i32 or i64 tensors without a gradient.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

// Rows of `table` (V, D): index (…) gives (…, D). The gradient of the table is deterministic.
Tensor embedding(const Tensor& table, const Tensor& index);
Tensor gather(const Tensor& x, int dim, const Tensor& index);
// A copy of x with source written (added) at index along dim.
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);  // index (n)
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);

}  // namespace binade
