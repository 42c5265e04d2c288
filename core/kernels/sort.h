// Orderings.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// Stable sort along `dim`; indices are i64 positions. NaN sorts as the largest.
BINADE_KERNEL(sort, const Array& x, int dim, bool descending, const Array& values,
              const Array& indices)
// The k largest along `dim`, in descending order (the k smallest, ascending), ties by position.
// values/indices: size k there.
BINADE_KERNEL(topk, const Array& x, int64_t k, int dim, const Array& values, const Array& indices,
              bool largest = true)

}  // namespace binade::kernels
