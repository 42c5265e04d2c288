// INTERNAL. What the differentiable faces of the ops share: checks whose errors name the op, and
// the layouts that kernels ask for.
#pragma once

#include <initializer_list>
#include <iosfwd>

#include <binade/autograd/autocast.h>
#include <binade/autograd/tape.h>

namespace binade::ops {

// Prints what matters about a tensor in an error: "(2, 3) f16 on cuda".
struct Kind {
  const Tensor& tensor;
};
std::ostream& operator<<(std::ostream& out, Kind kind);

// ---- checks ------------------------------------------------------------------------------------
// `what` is the argument's name.
void check_defined(const char* op, const char* what, const Tensor& x);
void check_floating(const char* op, const char* what, const Tensor& x);
// Of any dtype but bool, and beside a number: a fraction needs a floating dtype.
void check_arithmetic(const char* op, const Tensor& x);
void check_arithmetic(const char* op, const Tensor& x, double number);
void check_index(const char* op, const char* what, const Tensor& x);
// All tensors that are defined live on one device.
void check_device(const char* op, std::initializer_list<Tensor> tensors);
void check_same_dtype(const char* op, const Tensor& a, const Tensor& b);
void check_same_shape(const char* op, const Tensor& a, const Tensor& b);
// Refuses an argument that wants a gradient where the op has none for it: nothing cuts the graph
// silently.
void check_constant(const char* op, const char* what, const Tensor& x);

// ---- arrays ------------------------------------------------------------------------------------
inline Array array_of(const Tensor& tensor) {
  return tensor.defined() ? tensor.array() : Array();
}
inline Array empty_like(const Array& x) {
  return Array::empty(x.shape(), x.dtype(), x.device());
}
// Uninitialised, with the order of x's dimensions in memory but without its gaps, so that views of
// it are views again. x has no overlapping elements.
Array empty_with_layout(const Array& x);
// The shape with another last size.
Shape with_last(Shape shape, int64_t size);
// Product of all sizes but the last.
int64_t row_count(const Shape& shape);
// x (…, D) as (N, D) with contiguous rows: a view where the strides allow it, otherwise a copy.
Array as_rows(const Array& x);
// The same for what a kernel writes: always a view; undefined stays undefined.
Array rows_to_write(const Array& x);

// f32, and f64 for f64: the dtype of statistics and losses.
inline DType statistics_dtype(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}

// ---- autograd ----------------------------------------------------------------------------------
inline Saved save_if(bool needed, const Array& array) {
  return needed ? Saved(array) : Saved();
}
inline Saved save_if(bool needed, const Tensor& tensor) {
  return needed ? Saved(tensor) : Saved();
}
// The values that a product reads, in the policy's half type and off the tape; undefined stays
// undefined. linear is recorded on the tensors before their cast, so that its backward writes f32
// gradients of f32 parameters straight from half operands.
Array half_operand(const Tensor& tensor);
// Records `converted`, the values of x in another floating dtype, as a cast of x.
Tensor record_cast(const Tensor& x, Array converted);

}  // namespace binade::ops
