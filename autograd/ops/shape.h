// Views and rearrangements. Views share storage with their input; all are differentiable.
#pragma once

#include <vector>

#include <binade/autograd/tensor.h>

namespace binade {

Tensor reshape(const Tensor& x, const Shape& shape);  // one size may be -1; copies only if it must
Tensor transpose(const Tensor& x, int dim0, int dim1);
Tensor permute(const Tensor& x, const std::vector<int>& order);
Tensor slice(const Tensor& x, int dim, int64_t start, int64_t end = kToEnd, int64_t step = 1);
Tensor select(const Tensor& x, int dim, int64_t index);
Tensor unsqueeze(const Tensor& x, int dim);
Tensor squeeze(const Tensor& x, int dim);
Tensor expand(const Tensor& x, const Shape& shape);  // a size of -1 stays as it is in x
Tensor flatten(const Tensor& x, int first_dim = 0, int last_dim = -1);
Tensor contiguous(const Tensor& x);
Tensor clone(const Tensor& x);
Tensor cat(const std::vector<Tensor>& tensors, int dim = 0);  // class widest
Tensor stack(const std::vector<Tensor>& tensors, int dim = 0);
// Neighbouring parts along `dim`: of `chunk` elements each, the last of what is left; of `sizes`,
// which add up to the dimension; or at most `count` of one size, ⌈size / count⌉, the last of what
// is left.
std::vector<Tensor> split(const Tensor& x, int64_t chunk, int dim = 0);
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim = 0);
std::vector<Tensor> chunk(const Tensor& x, int64_t count, int dim = 0);

// ---- copies in another order -------------------------------------------------------------------
Tensor flip(const Tensor& x, const std::vector<int>& dims);  // backwards along the dimensions
// Elements move `shifts` places along `dims`; those that leave at one end come in at the other.
// Without dims x is rolled as if it were flat.
Tensor roll(const Tensor& x, const std::vector<int64_t>& shifts, const std::vector<int>& dims = {});
// x side by side, repeats[i] times along dimension i; further repeats in front make dimensions.
Tensor repeat(const Tensor& x, const std::vector<int64_t>& repeats);
// Every slice along `dim` `repeats` times in a row.
Tensor repeat_interleave(const Tensor& x, int64_t repeats, int dim);
// Slice i repeats[i] times, for a vector of i32 or i64. How long that is says the device: waits for
// it, so not inside a captured step.
Tensor repeat_interleave(const Tensor& x, const Tensor& repeats, int dim);

enum class PadMode : uint8_t {
  constant,
  reflect,    // mirrored at the edge, which is not repeated: less than the dimension's size
  replicate,  // the edge
  circular,   // the other end: at most the dimension's size
};
// Adds padding[0] elements before and padding[1] behind the last dimension, padding[2] and [3] the
// one before it, and so on ({left, right, top, bottom}). Constant padding takes any dtype, and
// below 0 it cuts.
Tensor pad(const Tensor& x, const std::vector<int64_t>& padding, PadMode mode = PadMode::constant,
           double value = 0);

// Matrices (…, R, C), zero above (tril) or below (triu) diagonal k: where column − row > k, or < k.
Tensor tril(const Tensor& x, int64_t diagonal = 0);
Tensor triu(const Tensor& x, int64_t diagonal = 0);

Tensor to(const Tensor& x, DType dtype);
Tensor to(const Tensor& x, Device device);

}  // namespace binade
