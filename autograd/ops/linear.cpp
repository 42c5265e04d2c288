#include <binade/autograd/ops/linear.h>

#include <binade/autograd/ops/joint_layers.h>

namespace binade {

using namespace ops;

namespace {

Tensor linear_with(const char* op, const Tensor& x, const TensorList& weights,
                   const TensorList& biases) {
  const JointLayers layers(op, x, weights, biases);
  const Array& input = layers.input();
  const Array y = Array::empty(with_last(x.shape(), layers.width()), input.dtype(), input.device());
  layers.forward(rows_to_write(y));
  const bool recorded = grad_enabled() && any_requires_grad(layers.inputs());
  if (!recorded) return record(op, layers.inputs(), {y}, FusedBackward())[0];
  const Tensor result = record(op, layers.inputs(), {y}, layers.backward())[0];
  if (any_requires_grad(biases)) want_column_sums(result);
  return result;
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear_with("linear", x, {weight}, bias.defined() ? TensorList{bias} : TensorList{});
}

Tensor linear_joint(const Tensor& x, const TensorList& weights, const TensorList& biases) {
  return linear_with("linear_joint", x, weights, biases);
}

}  // namespace binade
