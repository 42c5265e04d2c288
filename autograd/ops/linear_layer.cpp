#include <binade/autograd/ops/linear_layer.h>

#include <algorithm>

#include <binade/autograd/ops/matmul.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade::ops {

void check_linear(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_floating(op, "x", x);
  check_floating(op, "weight", weight);
  check_device(op, {x, weight, bias});
  check(x.dims() >= 1 && weight.dims() == 2 && x.size(-1) == weight.size(1), op,
        ": x must be (…, I) and weight (O, I), got x ", Kind{x}, " and weight ", Kind{weight},
        "; the weight is stored with the output features first");
  if (!bias.defined()) return;
  check(is_floating(bias.dtype()) && bias.shape() == Shape{weight.size(0)}, op, ": bias must be (",
        weight.size(0), ") for weight ", Kind{weight}, ", got ", Kind{bias});
}

bool any_requires_grad(const TensorList& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const Tensor& tensor) {
    return tensor.defined() && tensor.requires_grad();
  });
}

LinearLayer::LinearLayer(const char* op, const Tensor& x, const Array& input,
                         const Tensor& weight_in, const Tensor& bias_in)
    : weight(half_operand(weight_in)), bias(half_operand(bias_in)) {
  check(input.dtype() == weight.dtype() && (!bias.defined() || bias.dtype() == weight.dtype()), op,
        ": x ", Kind{x}, ", weight ", Kind{weight_in}, " and bias ", Kind{bias_in},
        " must have one dtype; convert with to(x, dtype) or run under amp::Autocast");
}

void LinearLayer::forward(const Array& x, const Array& y, kernels::MatmulEpilogue epilogue) const {
  epilogue.bias = bias;
  BINADE_DISPATCH(x.device(), matmul(x, weight.transpose(0, 1), y, epilogue));
}

Array rows_of(const Array& x) {
  return x.reshape({row_count(x.shape()), x.size(-1)});
}

Saved save_input(bool needed, const Tensor& x, const Array& input) {
  if (!needed) return Saved();
  return input.shares_storage(x.array()) ? Saved::recomputed(x) : Saved(input);
}

void matmul_into(const GradSlot::Destination& to, const Array& a, const Array& b,
                 kernels::MatmulEpilogue epilogue) {
  if (!to) return;
  epilogue.beta = to.beta;
  BINADE_DISPATCH(a.device(), matmul(a, b, rows_to_write(to.array), epilogue));
}

Tensor matmul_as(const Tensor& a, const Tensor& b, DType dtype) {
  if (dtype == a.dtype()) return matmul(a, b);
  const Array y = Array::empty({a.size(0), b.size(1)}, dtype, a.device());
  BINADE_DISPATCH(a.device(), matmul(a.array(), b.array(), y, {}));
  return record("matmul", {a, b}, y, [a = Saved(a), b = Saved(b)](const Tensor& dy) -> TensorList {
    const Tensor given = to(dy, a.tensor().dtype());
    return {matmul(given, transpose(b.tensor(), 0, 1)), matmul(transpose(a.tensor(), 0, 1), given)};
  });
}

void bias_gradient(const GradSlot::Destination& to, const Array& dy, const Array& column_sums) {
  if (!to) return;
  if (!column_sums.defined()) {
    BINADE_DISPATCH(dy.device(),
                    reduce(kernels::ReduceOp::sum, dy, to.array.unsqueeze(0), to.beta));
  } else if (to.beta == 0) {
    BINADE_DISPATCH(dy.device(), copy(column_sums, to.array));
  } else {
    BINADE_DISPATCH(dy.device(), axpy(1, column_sums, to.array));
  }
}

}  // namespace binade::ops
