// Parameter: what training changes. It has a compute copy, the leaf tensor that ops read, and,
// under a preset with half parameters, an FP32 master that the optimizer updates and rewrites the
// copy from.
#pragma once

#include <memory>
#include <string>

#include <binade/autograd/tensor.h>

namespace binade::nn {

class Parameter {
 public:
  // A trainable leaf around `value` (f32, or f64 in gradient checks).
  explicit Parameter(Array value, bool keep_full_precision = false);

  const Tensor& tensor() const { return tensor_; }
  // The values that the optimizer owns: the master if there is one, otherwise the compute copy.
  const Array& master() const { return master_.defined() ? master_ : tensor_.array(); }
  bool has_master() const { return master_.defined(); }
  const Shape& shape() const { return tensor_.shape(); }
  int64_t numel() const { return tensor_.numel(); }
  bool trainable() const { return tensor_.requires_grad(); }
  void set_trainable(bool trainable) { tensor_.set_requires_grad(trainable); }
  // Norm weights and the like stay f32 under every preset.
  bool keeps_full_precision() const { return keep_full_precision_; }

  // Gives the compute copy another dtype; with `with_master` the present values stay as f32 master
  // beside a half copy. Before buffers are bound.
  void set_compute_dtype(DType dtype, bool with_master);
  // Overwrites master and compute copy (shape must match; converted). Works in place, so that bound
  // buffers stay bound.
  void assign(const Array& values);
  void to(Device device);
  // Moves master, compute copy and gradient into slices of contiguous buffers (optim/flat_group.h);
  // the values are copied there. `master` is undefined when there is none.
  void bind(Array value, Array grad, Array master);

 private:
  Tensor tensor_;
  Array master_;
  bool keep_full_precision_;
};

using ParameterPtr = std::shared_ptr<Parameter>;

}  // namespace binade::nn
