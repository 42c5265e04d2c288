#include <binade/autograd/ops/shape.h>

#include <algorithm>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>

namespace binade {

using namespace ops;

namespace {

// The gradient of slice: zeros of `shape` but for the slice, which holds x.
Tensor slice_into_zeros(const Tensor& x, const Shape& shape, int dim, int64_t start, int64_t end,
                        int64_t step) {
  const Array y = Array::zeros(shape, x.dtype(), x.device());
  y.slice(dim, start, end, step).copy_from(x.array());
  return record("slice_into_zeros", {x}, y,
                [=](const Tensor& dy) -> TensorList { return {slice(dy, dim, start, end, step)}; });
}

int wrap_new_dim(const char* op, const Tensor& x, int dim) {
  check_defined(op, "x", x);
  check(dim >= -x.dims() - 1 && dim <= x.dims(), op, ": dimension ", dim,
        " is out of range for a new dimension of ", Kind{x});
  return dim < 0 ? dim + x.dims() + 1 : dim;
}

// The sizes with which every one of `tensors` may be joined along `dim`.
Shape joined_shape(const char* op, const std::vector<Tensor>& tensors, int dim) {
  const Tensor& first = tensors.front();
  Shape shape = first.shape();
  shape[dim] = 0;
  for (const Tensor& tensor : tensors) {
    check_device(op, {first, tensor});
    bool fits = tensor.dims() == first.dims();
    for (int i = 0; fits && i < tensor.dims(); ++i)
      fits = i == dim || tensor.size(i) == first.size(i);
    check(fits, op, ": tensors must agree outside dimension ", dim, ", got ", Kind{first}, " and ",
          Kind{tensor});
    shape[dim] += tensor.size(dim);
  }
  return shape;
}

}  // namespace

Tensor reshape(const Tensor& x, const Shape& shape) {
  check_defined("reshape", "x", x);
  return record("reshape", {x}, x.array().reshape(shape),
                [from = x.shape()](const Tensor& dy) -> TensorList { return {reshape(dy, from)}; });
}

Tensor transpose(const Tensor& x, int dim0, int dim1) {
  check_defined("transpose", "x", x);
  return record("transpose", {x}, x.array().transpose(dim0, dim1),
                [=](const Tensor& dy) -> TensorList { return {transpose(dy, dim0, dim1)}; });
}

Tensor permute(const Tensor& x, const std::vector<int>& order) {
  check_defined("permute", "x", x);
  Array y = x.array().permute(order);  // checks the order
  std::vector<int> inverse(order.size());
  for (int i = 0; i < x.dims(); ++i)
    inverse[static_cast<size_t>(x.shape().wrap_dim(order[static_cast<size_t>(i)]))] = i;
  return record("permute", {x}, std::move(y),
                [inverse](const Tensor& dy) -> TensorList { return {permute(dy, inverse)}; });
}

Tensor slice(const Tensor& x, int dim, int64_t start, int64_t end, int64_t step) {
  check_defined("slice", "x", x);
  return record("slice", {x}, x.array().slice(dim, start, end, step),
                [=, from = x.shape()](const Tensor& dy) -> TensorList {
                  return {slice_into_zeros(dy, from, dim, start, end, step)};
                });
}

Tensor select(const Tensor& x, int dim, int64_t index) {
  check_defined("select", "x", x);
  return record("select", {x}, x.array().select(dim, index),
                [=, from = x.shape()](const Tensor& dy) -> TensorList {
                  const int d = from.wrap_dim(dim);
                  const int64_t at = index < 0 ? index + from[d] : index;
                  return {slice_into_zeros(unsqueeze(dy, d), from, d, at, at + 1, 1)};
                });
}

Tensor unsqueeze(const Tensor& x, int dim_in) {
  const int dim = wrap_new_dim("unsqueeze", x, dim_in);
  return record("unsqueeze", {x}, x.array().unsqueeze(dim),
                [dim](const Tensor& dy) -> TensorList { return {squeeze(dy, dim)}; });
}

Tensor squeeze(const Tensor& x, int dim_in) {
  check_defined("squeeze", "x", x);
  const int dim = x.shape().wrap_dim(dim_in);
  return record("squeeze", {x}, x.array().squeeze(dim),
                [dim](const Tensor& dy) -> TensorList { return {unsqueeze(dy, dim)}; });
}

Tensor expand(const Tensor& x, const Shape& shape_in) {
  check_defined("expand", "x", x);
  Shape shape = shape_in;
  for (int i = 0; i < shape.dims(); ++i) {
    if (shape[i] != -1) continue;
    const int from = i - (shape.dims() - x.dims());
    check(from >= 0, "expand: dimension ", i, " of ", shape_in,
          " is new, so -1 names no size of x ", Kind{x});
    shape[i] = x.size(from);
  }
  return record("expand", {x}, x.array().expand(shape),
                [from = x.shape()](const Tensor& dy) -> TensorList { return {sum_to(dy, from)}; });
}

Tensor flatten(const Tensor& x, int first_dim, int last_dim) {
  check_defined("flatten", "x", x);
  if (x.dims() == 0) return reshape(x, {1});
  const int first = x.shape().wrap_dim(first_dim), last = x.shape().wrap_dim(last_dim);
  check(first <= last, "flatten: first_dim ", first_dim, " lies behind last_dim ", last_dim, " in ",
        Kind{x});
  Shape shape;
  for (int i = 0; i < x.dims(); ++i) {
    if (i > first && i <= last) {
      shape[shape.dims() - 1] *= x.size(i);
    } else {
      shape.push_back(x.size(i));
    }
  }
  return reshape(x, shape);
}

Tensor contiguous(const Tensor& x) {
  check_defined("contiguous", "x", x);
  return x.array().is_contiguous() ? x : clone(x);
}

Tensor clone(const Tensor& x) {
  check_defined("clone", "x", x);
  return record("clone", {x}, x.array().clone(),
                [](const Tensor& dy) -> TensorList { return {dy}; });
}

Tensor cat(const std::vector<Tensor>& tensors, int dim_in) {
  check(!tensors.empty(), "cat needs at least one tensor");
  for (const Tensor& tensor : tensors) check_defined("cat", "a tensor", tensor);
  check(tensors.front().dims() > 0, "cat: tensors of no dimension cannot be joined; use stack");
  const int dim = tensors.front().shape().wrap_dim(dim_in);
  const Shape shape = joined_shape("cat", tensors, dim);
  DType dtype = tensors.front().dtype();
  for (const Tensor& tensor : tensors) dtype = promote(dtype, tensor.dtype());

  const Array y = Array::empty(shape, dtype, tensors.front().device());
  TensorList parts;
  std::vector<int64_t> ends;
  int64_t position = 0;
  for (const Tensor& tensor : tensors) {
    parts.push_back(to(tensor, dtype));
    ends.push_back(position + tensor.size(dim));
    y.slice(dim, position, ends.back()).copy_from(parts.back().array());
    position = ends.back();
  }
  return record("cat", parts, {y}, [dim, ends](const TensorList& dys) -> TensorList {
    TensorList gradients;
    int64_t start = 0;
    for (const int64_t end : ends) {
      gradients.push_back(slice(dys[0], dim, start, end));
      start = end;
    }
    return gradients;
  })[0];
}

Tensor stack(const std::vector<Tensor>& tensors, int dim_in) {
  check(!tensors.empty(), "stack needs at least one tensor");
  const int dim = wrap_new_dim("stack", tensors.front(), dim_in);
  TensorList layers;
  for (const Tensor& tensor : tensors) {
    check_defined("stack", "a tensor", tensor);
    check_same_shape("stack", tensors.front(), tensor);
    layers.push_back(unsqueeze(tensor, dim));
  }
  return cat(layers, dim);
}

std::vector<Tensor> split(const Tensor& x, int64_t chunk, int dim_in) {
  check_defined("split", "x", x);
  check(chunk > 0, "split: a chunk has at least one element, got ", chunk);
  const int dim = x.shape().wrap_dim(dim_in);
  std::vector<int64_t> sizes;
  int64_t left = x.size(dim);
  do {  // a dimension without elements is one part without elements
    sizes.push_back(std::min(chunk, left));
    left -= sizes.back();
  } while (left > 0);
  return split(x, sizes, dim);
}

std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim_in) {
  check_defined("split", "x", x);
  const int dim = x.shape().wrap_dim(dim_in);
  std::vector<Array> parts;
  int64_t start = 0;
  for (const int64_t size : sizes) {
    check(size >= 0 && size <= x.size(dim) - start, "split: a part of ", size, " after ", start,
          " elements does not fit into dimension ", dim, " of x ", Kind{x});
    parts.push_back(x.array().slice(dim, start, start + size));
    start += size;
  }
  check(!sizes.empty() && start == x.size(dim), "split: the sizes add up to ", start,
        ", but dimension ", dim, " of x ", Kind{x}, " has ", x.size(dim));
  // One node for all parts, so that their gradients are joined once.
  return record("split", TensorList{x}, std::move(parts),
                [dim, sizes, from = x.shape()](const TensorList& dys) -> TensorList {
                  const auto given = std::find_if(dys.begin(), dys.end(),
                                                  [](const Tensor& dy) { return dy.defined(); });
                  TensorList gradients = dys;
                  for (size_t i = 0; i < dys.size(); ++i) {
                    if (dys[i].defined()) continue;
                    Shape shape = from;
                    shape[dim] = sizes[i];
                    gradients[i] = Tensor::zeros(shape, given->dtype(), given->device());
                  }
                  return {cat(gradients, dim)};
                });
}

std::vector<Tensor> chunk(const Tensor& x, int64_t count, int dim_in) {
  check_defined("chunk", "x", x);
  check(count > 0, "chunk: there must be at least one chunk, got ", count);
  const int dim = x.shape().wrap_dim(dim_in);
  if (x.size(dim) == 0) return split(x, std::vector<int64_t>(static_cast<size_t>(count), 0), dim);
  return split(x, (x.size(dim) - 1) / count + 1, dim);
}

Tensor to(const Tensor& x, DType dtype) {
  check_defined("to", "x", x);
  if (x.dtype() == dtype) return x;
  if (!is_floating(dtype) || !is_floating(x.dtype()))
    return record_constant("to", {x}, x.array().to(dtype));
  return record_cast(x, x.array().to(dtype));
}

Tensor to(const Tensor& x, Device device) {
  check_defined("to", "x", x);
  if (x.device() == device) return x;
  return record("to", {x}, x.array().to(device),
                [from = x.device()](const Tensor& dy) -> TensorList { return {to(dy, from)}; });
}

}  // namespace binade
