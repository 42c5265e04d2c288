// INTERNAL. Operands of elementwise ops made alike.
#pragma once

#include <binade/autograd/ops/common.h>

namespace binade::ops {

// Two operands in one dtype, and the shape they broadcast to.
struct Operands {
  Tensor a, b;
  Shape shape;

  Operands(const char* op, const Tensor& a_in, const Tensor& b_in) : a(a_in), b(b_in) {
    check_defined(op, "a", a);
    check_defined(op, "b", b);
    check_device(op, {a, b});
    shape = broadcast(a.shape(), b.shape(), op);
    autocast_widest(a, b);
  }
  Array expanded_a() const { return a.array().expand(shape); }
  Array expanded_b() const { return b.array().expand(shape); }
  Array empty(DType dtype) const { return Array::empty(shape, dtype, a.device()); }
};

}  // namespace binade::ops
