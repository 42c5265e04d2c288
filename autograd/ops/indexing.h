// Reading and writing by index or mask, and choosing positions. Indices are i32 or i64 tensors
// without a gradient. One that is out of range is an Error: at once on the CPU, late on the GPU
// (core/device_errors.h).
#pragma once

#include <optional>
#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

// Rows of `table` (V, D): index (…) gives (…, D). The gradient of the table is deterministic. Row
// `padding_idx` is read as any other, and has no gradient.
Tensor embedding(const Tensor& table, const Tensor& index, std::optional<int64_t> padding_idx = {});
Tensor gather(const Tensor& x, int dim, const Tensor& index);
// A copy of x with source written at index along dim. Where several elements name one place, the
// last of them along dim is written, and the gradient of that place is its alone.
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
// A copy of x with source added at index along dim; elements that name one place are all added.
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);  // index (n)
// A copy of x with the slices of source added at index along dim, all of them where it repeats.
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);

enum class ScatterReduce : uint8_t { sum, prod, mean, amax, amin };
// A copy of x in which every place that elements of source name by index along dim holds what they
// and, with include_self, x's own element reduce to. mean and prod take floating dtypes. Equal
// extremes share the gradient; the gradient of prod has no gradient.
Tensor scatter_reduce(const Tensor& x, int dim, const Tensor& index, const Tensor& source,
                      ScatterReduce reduce, bool include_self = true);

// x[indices[0], indices[1], …]: index tensors, which broadcast, for the first dimensions; an
// undefined one takes the whole dimension. Their dimensions stand in the result where the indexed
// ones stood, or in front if those are not neighbours. From −size on indices count from the back.
// For a bool mask see masked_select.
Tensor index(const Tensor& x, const std::vector<Tensor>& indices);
// A copy of x with values, which broadcast to index(x, indices), written there; accumulate: added.
// Where indices repeat, the last value stays, and has the gradient.
Tensor index_put(const Tensor& x, const std::vector<Tensor>& indices, const Tensor& values,
                 bool accumulate = false);
// The elements of x where mask (bool; both broadcast) is true, as a vector. How many there are says
// the device: waits for it, so not inside a captured step.
Tensor masked_select(const Tensor& x, const Tensor& mask);

// How often each number from 0 on is in the vector x (N) of i32 or i64, up to its largest or to
// least − 1: i64. With floating weights (N), the sum of the weights at each number, class full,
// which has a gradient. How many numbers there are says the device: waits for it, so not inside a
// captured step.
Tensor bincount(const Tensor& x, const Tensor& weights = {}, int64_t least = 0);
// (…) class indices give (…, classes): 1 at the index, 0 elsewhere.
Tensor one_hot(const Tensor& index, int64_t classes, DType dtype = DType::i64);
// Where values would be inserted along the last dimension of sorted, which ascends, for it to stay
// so: before equal elements, or behind them (`right`). sorted (S) serves values of any shape;
// otherwise sorted (…, S), values (…, V) agree in front. i64. NaN values go last; sorted has none.
Tensor searchsorted(const Tensor& sorted, const Tensor& values, bool right = false);
// `count` positions (i64) drawn by weight from each row of weights (K) or (N, K): not below 0,
// finite, not all 0, at most 2^23 a row. With replacement, or without: then at least `count`
// weights are above 0. A weight counts in units of 2^-40 of the row's largest, so that CPU and GPU
// draw the same from RandomState. What is no such row is an Error on the CPU, and on the GPU noted
// as an index that is out of range.
Tensor multinomial(const Tensor& weights, int64_t count, bool replacement = false);

}  // namespace binade
