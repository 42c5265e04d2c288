#include <binade/autograd/ops/matmul.h>

#include <binade/autograd/ops/arithmetic.h>
#include <binade/autograd/ops/common.h>
#include <binade/autograd/ops/shape.h>
#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/matmul.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

using namespace ops;

namespace {

// ---- linear ------------------------------------------------------------------------------------

// The values that a product reads, off the tape: linear is recorded on the tensors before their
// cast, so that its backward writes f32 gradients of f32 parameters straight from half operands.
Array half_operand(const Tensor& tensor) {
  if (!tensor.defined()) return Array();
  const NoGrad no_grad;
  return autocast(PrecisionClass::half, tensor).array();
}

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

kernels::MatmulEpilogue accumulate(float beta) {
  kernels::MatmulEpilogue epilogue;
  epilogue.beta = beta;
  return epilogue;
}

// Gradients of x·weightᵀ + bias from dy (N, O); x (N, I), weight (O, I).
void linear_backward(Backward& backward, const Array& dy, const Saved& x, const Saved& weight) {
  if (auto dx = backward.slot(0).open())
    BINADE_DISPATCH(dy.device(),
                    matmul(dy, weight.array(), rows_to_write(dx.array), accumulate(dx.beta)));
  auto dw = backward.slot(1).open();
  auto db = backward.slot(2).open();
  if (dw) {
    kernels::MatmulEpilogue epilogue = accumulate(dw.beta);
    if (db) {
      epilogue.a_sums = db.array;
      epilogue.a_sums_beta = db.beta;
    }
    BINADE_DISPATCH(dy.device(), matmul(dy.transpose(0, 1), x.array(), dw.array, epilogue));
  } else if (db) {
    BINADE_DISPATCH(dy.device(),
                    reduce(kernels::ReduceOp::sum, dy, db.array.unsqueeze(0), db.beta));
  }
}

Tensor linear_with(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   bool gelu) {
  check_linear(op, x, weight, bias);
  const Array w = half_operand(weight);
  const Array input = half_operand(x);
  kernels::MatmulEpilogue epilogue;
  epilogue.bias = half_operand(bias);
  epilogue.gelu = gelu;
  check(input.dtype() == w.dtype() && (!bias.defined() || epilogue.bias.dtype() == w.dtype()), op,
        ": x ", Kind{x}, ", weight ", Kind{weight}, " and bias ", Kind{bias},
        " must have one dtype; convert with to(x, dtype) or run under amp::Autocast");

  Shape shape = x.shape();
  shape[shape.dims() - 1] = w.size(0);
  const Array rows = input.reshape({row_count(shape), w.size(1)});
  const Array y = Array::empty(shape, w.dtype(), w.device());
  const bool recorded = will_record({x, weight, bias});
  if (gelu && recorded)
    epilogue.pre_activation = Array::empty({rows.size(0), w.size(0)}, w.dtype(), w.device());
  BINADE_DISPATCH(w.device(), matmul(rows, w.transpose(0, 1), rows_to_write(y), epilogue));
  if (!recorded) return record(op, {x, weight, bias}, y, FusedBackward());

  return record(
      op, {x, weight, bias}, y,
      [x = save_if(weight.requires_grad(), rows), weight = save_if(x.requires_grad(), w),
       pre = save_if(gelu, epilogue.pre_activation)](Backward& backward) {
        Array dy =
            backward.grad().reshape({row_count(backward.grad().shape()), backward.grad().size(-1)});
        if (pre.defined()) {
          const Array dpre = empty_like(dy);
          BINADE_DISPATCH(dy.device(),
                          unary_backward(kernels::UnaryOp::gelu_tanh, pre.array(), dy, dpre, 0));
          dy = dpre;
        }
        linear_backward(backward, dy, x, weight);
      });
}

// ---- matmul ------------------------------------------------------------------------------------

// shape (…, M, K) with other leading sizes.
Shape with_batch(const Shape& batch, int64_t rows, int64_t columns) {
  Shape shape = batch;
  shape.push_back(rows);
  shape.push_back(columns);
  return shape;
}

Shape batch_of(const Tensor& x) {
  return Shape(x.shape().span().first(static_cast<size_t>(x.dims() - 2)));
}

// Both operands have at least two dimensions and one dtype.
Tensor batched_matmul(const Tensor& a, const Tensor& b) {
  const int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
  const Shape batch = broadcast(batch_of(a), batch_of(b), "matmul");
  const Array y = Array::empty(with_batch(batch, m, n), a.dtype(), a.device());
  BINADE_DISPATCH(y.device(), matmul(a.array().expand(with_batch(batch, m, k)),
                                     b.array().expand(with_batch(batch, k, n)), y, {}));
  const bool need_a = a.requires_grad(), need_b = b.requires_grad();
  return record("matmul", {a, b}, y,
                [a = save_if(need_b, a), b = save_if(need_a, b), a_shape = a.shape(),
                 b_shape = b.shape()](const Tensor& dy) -> TensorList {
                  TensorList gradients(2);
                  if (b.defined())
                    gradients[0] = sum_to(matmul(dy, transpose(b.tensor(), -1, -2)), a_shape);
                  if (a.defined())
                    gradients[1] = sum_to(matmul(transpose(a.tensor(), -1, -2), dy), b_shape);
                  return gradients;
                });
}

}  // namespace

Tensor matmul(const Tensor& a_in, const Tensor& b_in) {
  check_floating("matmul", "a", a_in);
  check_floating("matmul", "b", b_in);
  check_device("matmul", {a_in, b_in});
  const int a_dims = a_in.dims(), b_dims = b_in.dims();
  check(a_dims >= 1 && b_dims >= 1 && a_in.size(-1) == b_in.size(b_dims == 1 ? 0 : -2),
        "matmul: a must be (…, M, K) and b (…, K, N), got a ", Kind{a_in}, " and b ", Kind{b_in},
        "; transpose or reshape one of them");
  const Tensor a = autocast(PrecisionClass::half, a_in);
  const Tensor b = autocast(PrecisionClass::half, b_in);
  check_same_dtype("matmul", a, b);

  if (a_dims == 1) {
    const Tensor y = matmul(unsqueeze(a, 0), b);
    return squeeze(y, b_dims == 1 ? 0 : -2);
  }
  if (b_dims == 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  if (a_dims > 2 && b_dims == 2) {  // one product, and one for b's gradient
    Shape shape = a.shape();
    shape[a_dims - 1] = b.size(1);
    return reshape(batched_matmul(reshape(a, {row_count(a.shape()), a.size(-1)}), b), shape);
  }
  return batched_matmul(a, b);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear_with("linear", x, weight, bias, false);
}

Tensor linear_gelu(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return linear_with("linear_gelu", x, weight, bias, true);
}

}  // namespace binade
