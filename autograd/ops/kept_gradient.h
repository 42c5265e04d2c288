// INTERNAL. For ops that compute gradients in their forward pass: where the gradient of one input
// is summed, and kept until backward asks for it.
#pragma once

#include <memory>

#include <binade/autograd/grad_loan.h>
#include <binade/autograd/tape.h>

namespace binade::ops {

class KeptGradient {
 public:
  // Before the first open(), for every contribution to come. Sums of several, or of one that is
  // itself a sum of matmuls (`in_parts`), are made in f32.
  void expect(bool in_parts);
  bool expected() const { return left_ > 0; }
  // Where the next contribution goes, and whether it is added; close() when it is written. `dtype`:
  // what the gradient is kept as, the input's or f32.
  GradSlot::Destination open(const Tensor& input, DType dtype);
  void close();

  // In backward: the gradient, times a number on the device (f32, or f64), for input `i`. Unless
  // backward may run again, this is the last that is asked of it.
  void give(Backward& backward, int i, const Array& factor);

 private:
  const Array& kept() const { return loan_ ? loan_->array() : kept_; }

  int expected_ = 0, left_ = 0;
  bool in_parts_ = false, same_dtype_ = false;
  Array sum_, kept_;
  std::shared_ptr<GradLoan> loan_;
};

}  // namespace binade::ops
