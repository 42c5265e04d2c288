#include <binade/core/kernels/relu_gradient.h>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade::kernels::cpu {

// Sums are a pass of their own: on the CPU the matmul that makes the weight's gradient adds them up
// for less as it packs dx, so linear layers do not ask for them here.
void relu_gradient(const Array& y, const Array& dy, const Array& dx, const Array& column_sums) {
  unary_backward(UnaryOp::relu, y, dy, dx, 0);
  if (column_sums.defined()) reduce(ReduceOp::sum, dx, column_sums.unsqueeze(0), 0);
}

}  // namespace binade::kernels::cpu
