// INTERNAL. Linear layers of one input side by side, for the ops that hold them: linear_joint and
// swiglu_mlp.
#pragma once

#include <binade/autograd/ops/linear_layer.h>

namespace binade::ops {

// The backward pass of the layers: into slot 0 (x), the weights' and then the biases'.
struct JointBackward {
  std::vector<int64_t> sizes;  // O_k
  Shape x_rows;                // (N, I)
  Saved x;                     // undefined unless a weight wants its gradient
  std::vector<Saved> weights;  // in the dtype of the matmul; none unless x wants its gradient

  // From the gradient of the op's output.
  void operator()(Backward& backward) const;
  void operator()(BackwardOnTape& tape) const;
  // From dy (N, ΣO_k) and its column sums, or none.
  void run(Backward& backward, const Array& dy, const Array& sums) const;
  void run(BackwardOnTape& tape, const Tensor& dy) const;

 private:
  void input_gradient(Backward& backward, const Array& dy, const std::vector<Array>& parts) const;
  void weight_gradients(Backward& backward, const Array& dy, const std::vector<Array>& parts) const;
};

// The layers' operands and their forward pass: one matmul where the weights are contiguous in
// memory.
class JointLayers {
 public:
  // x (…, I), weights (O_k, I), biases (O_k) or none at all; otherwise Error.
  JointLayers(const char* op, const Tensor& x, const TensorList& weights, const TensorList& biases);

  const TensorList& inputs() const { return inputs_; }  // x, the weights, the biases
  const Array& input() const { return input_; }         // x in the dtype of the matmul
  const Array& rows() const { return rows_; }           // of it (N, I)
  int64_t width() const;                                // ΣO_k
  // All weights as one (ΣO_k, I), where one matmul without biases does; else undefined.
  Array joint_weight() const;
  // y (N, ΣO_k), by rows; with what an epilogue does besides the biases, of any width.
  void forward(const Array& y, const kernels::MatmulEpilogue& epilogue = {}) const;
  JointBackward backward() const;

 private:
  Tensor x_;
  bool has_biases_;
  TensorList inputs_;
  Array input_, rows_;
  std::vector<LinearLayer> layers_;
  std::vector<Array> weights_;
  std::vector<int64_t> sizes_;  // O_k
};

}  // namespace binade::ops
