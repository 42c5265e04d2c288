// INTERNAL. What the ops made of linear layers share (linear, linear_joint and the feed-forward
// layers): a layer's operands, its matmul, and the gradients of its weight and bias.
#pragma once

#include <binade/autograd/on_tape.h>
#include <binade/autograd/ops/common.h>
#include <binade/core/kernels/matmul.h>

namespace binade::ops {

// x (…, I), weight (O, I), bias (O) or undefined, floating, on one device; otherwise Error.
void check_linear(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias);
bool any_requires_grad(const TensorList& tensors);

// The operands of one layer, of one dtype.
struct LinearLayer {
  Array weight, bias;  // (O, I) and (O) or undefined

  // In the dtype of `input`, the values of x as the matmul reads them; otherwise Error.
  LinearLayer(const char* op, const Tensor& x, const Array& input, const Tensor& weight_in,
              const Tensor& bias_in);

  // y = x·weightᵀ + bias, with the rest of the epilogue.
  void forward(const Array& x, const Array& y, kernels::MatmulEpilogue epilogue = {}) const;
};

// x as the (N, I) rows that a matmul reads.
Array rows_of(const Array& x);

// What a weight's gradient needs of x: how it is recomputed, if that is known and the matmul read
// x itself, not a cast of it.
Saved save_input(bool needed, const Tensor& x, const Array& input);

// to.array = to.beta·to.array + a·b.
void matmul_into(const GradSlot::Destination& to, const Array& a, const Array& b,
                 kernels::MatmulEpilogue epilogue = {});

// a (M, K) · b (K, N) in `dtype`: that of both operands, or a wider one. On the tape.
Tensor matmul_as(const Tensor& a, const Tensor& b, DType dtype);

// The gradient of a bias (O): the column sums of dy, which may be known already.
void bias_gradient(const GradSlot::Destination& to, const Array& dy, const Array& column_sums);

// The gradients of a layer's weight (O, I), dyᵀ·x for dy (N, O) and x (N, I), and of its bias (O).
// A matmul that reads dy can sum it on the way. input() gives x.
template <class Input>
void layer_gradients(const GradSlot::Destination& weight, const GradSlot::Destination& bias,
                     const Array& dy, const Array& column_sums, const Input& input) {
  if (!weight || column_sums.defined()) bias_gradient(bias, dy, column_sums);
  if (!weight) return;
  kernels::MatmulEpilogue epilogue;
  if (bias && !column_sums.defined()) {
    epilogue.a_sums = bias.array;
    epilogue.a_sums_beta = bias.beta;
  }
  matmul_into(weight, dy.transpose(0, 1), input(), epilogue);
}

}  // namespace binade::ops
