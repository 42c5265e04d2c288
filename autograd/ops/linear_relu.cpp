#include <binade/autograd/ops/linear_relu.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/joint_layers.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/relu_gradient.h>

namespace binade {

using namespace ops;

namespace {

// Where the masked gradient goes: over dy where nobody else holds its memory or looks at it.
Array masked_gradient_like(const Array& dy) {
  const bool free = dy.is_contiguous() && dy.is_unshared() && current_op_observer() == nullptr;
  return free ? dy : empty_like(dy);
}

struct LinearReluGradient {
  Saved y;
  JointBackward layer;

  void operator()(Backward& backward) const {
    if (backward.through_relu())
      return layer.run(backward, rows_of(backward.grad()), backward.column_sums());
    const Array dpre = rows_of(masked_gradient_like(backward.grad()));
    // On the CPU the matmul that makes the weight's gradient sums it for less.
    Array sums;
    if (backward.needed(2) && dpre.device().is_cuda())
      sums = Array::empty({dpre.size(1)}, statistics_dtype(dpre.dtype()), dpre.device());
    BINADE_DISPATCH(dpre.device(),
                    relu_gradient(rows_of(y.array()), rows_of(backward.grad()), dpre, sums));
    layer.run(backward, dpre, sums);
  }

  void operator()(BackwardOnTape& tape) const {
    const Tensor rows(rows_of(y.array()));
    const Tensor off = less_equal(rows, Tensor::scalar(0, rows.dtype(), rows.device()));
    layer.run(tape, masked_fill(reshape(tape.grad(), rows.shape()), off, 0));
  }
};

}  // namespace

Tensor linear_relu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const char* op = "linear_relu";
  const JointLayers layers(op, x, {weight}, bias.defined() ? TensorList{bias} : TensorList{});
  const Array& input = layers.input();
  const Array y = Array::empty(with_last(x.shape(), layers.width()), input.dtype(), input.device());
  kernels::MatmulEpilogue relu;
  relu.relu = true;
  layers.forward(rows_to_write(y), relu);
  const bool recorded = grad_enabled() && any_requires_grad(layers.inputs());
  if (!recorded) return record(op, layers.inputs(), {y}, FusedBackward())[0];
  const Tensor result =
      record(op, layers.inputs(), {y}, LinearReluGradient{Saved(y), layers.backward()})[0];
  want_relu_gradient(result);
  return result;
}

}  // namespace binade
