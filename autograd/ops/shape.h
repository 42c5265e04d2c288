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
Tensor expand(const Tensor& x, const Shape& shape);
Tensor flatten(const Tensor& x, int first_dim = 0, int last_dim = -1);
Tensor contiguous(const Tensor& x);
Tensor clone(const Tensor& x);
Tensor cat(const std::vector<Tensor>& tensors, int dim);  // class widest
Tensor stack(const std::vector<Tensor>& tensors, int dim);
std::vector<Tensor> split(const Tensor& x, int64_t chunk, int dim);

Tensor to(const Tensor& x, DType dtype);
Tensor to(const Tensor& x, Device device);

}  // namespace binade
