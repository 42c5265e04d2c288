// Kernels that read or write by index. Indices are i32 or i64 and were not checked on the GPU: an
// index out of range writes nothing and reads zero there and sets the device's error word (see
// core/device_errors.h), which the training loop reads late; on the CPU it throws Error at once.
// Negative indices are out of range. Sums over equal indices run in a fixed order.
#pragma once

#include <binade/core/kernels/kernels.h>

namespace binade::kernels {

// out[i0..][j][..] = x[i0..][index[i0..][j][..]][..] along `dim`; index has out's shape.
BINADE_KERNEL(gather, const Array& x, int dim, const Array& index, const Array& out)
// out[..][index[..][j][..]][..] = source (add: += source), for index of source's shape.
BINADE_KERNEL(scatter, const Array& out, int dim, const Array& index, const Array& source, bool add)
enum class ScatterFold : uint8_t { sum, prod, mean, max, min };
// The places of out that index names = fold of the elements of source that go there and, with
// include_self, of what out holds. A NaN wins. mean and prod: floating dtypes.
BINADE_KERNEL(scatter_reduce, const Array& out, int dim, const Array& index, const Array& source,
              ScatterFold fold, bool include_self)
// The gradients of scatter_reduce with max or min, of which y is the result: what equals the result
// of a place (elements of source that go there; the place's own x, unless it is named and not
// include_self) has equal shares of that place's dy, the rest 0. x, y, dy and dx have one shape,
// index, source and dsource another, all one floating dtype; y, dy, dx and dsource are contiguous,
// and an undefined dx or dsource is not computed.
BINADE_KERNEL(scatter_extreme_backward, const Array& dy, const Array& x, int dim,
              const Array& index, const Array& source, const Array& y, bool include_self,
              const Array& dx, const Array& dsource)
// out = rows of x picked along `dim` by the vector `index`.
BINADE_KERNEL(index_select, const Array& x, int dim, const Array& index, const Array& out)
// out = beta·out, rows along `dim` += rows of source; index is a vector of source.size(dim).
BINADE_KERNEL(index_add, const Array& out, int dim, const Array& index, const Array& source,
              float beta)
// last[p] = the last k with index[k] = p, −1 where there is none, and kept[k] = index[k] where k is
// that last one, −1 elsewhere. Vectors of i64, contiguous: index and kept (N), last (P). An index
// of −1 is left out.
BINADE_KERNEL(last_writers, const Array& index, const Array& last, const Array& kept)
// Row j of out along `dim` = row from[j] of source, and row j of base where from[j] is −1. One
// dtype, any; from is a vector of i64; out is contiguous, base has its shape, source may have
// another number of rows.
BINADE_KERNEL(merge_rows, const Array& base, const Array& source, int dim, const Array& from,
              const Array& out)
// out (N, D) = table (V, D) rows by index (N). Contiguous rows; out may differ in dtype.
BINADE_KERNEL(embedding, const Array& table, const Array& index, const Array& out)
// dtable (V, D) = beta·dtable + Σ rows of dout (N, D); deterministic, f32 sums, no atomics.
BINADE_KERNEL(embedding_backward, const Array& dout, const Array& index, const Array& dtable,
              float beta)

}  // namespace binade::kernels
