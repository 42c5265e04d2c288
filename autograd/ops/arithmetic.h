// Elementwise arithmetic with NumPy broadcasting. Class widest unless said otherwise: operands of
// different floating dtypes meet in the wider one.
#pragma once

#include <binade/autograd/tensor.h>

namespace binade {

Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a,
               const Tensor& b);  // gradient: half each where equal, all to both at NaN
Tensor minimum(const Tensor& a, const Tensor& b);
// What is left of integers a over b, with the sign of b (Python's %): puts ids into buckets.
// Without a gradient.
Tensor remainder(const Tensor& a, const Tensor& b);
Tensor remainder(const Tensor& a, int64_t b);
Tensor pow(const Tensor& a, const Tensor& b);  // class full
Tensor pow(const Tensor& a, double exponent);  // class full
// The angle of the point (x, y) in (−π, π]; class full. At the origin the gradient is NaN.
Tensor atan2(const Tensor& y, const Tensor& x);
// a + weight·(b − a), floating point; exactly a at weight 0 and b at 1.
Tensor lerp(const Tensor& a, const Tensor& b, const Tensor& weight);
Tensor lerp(const Tensor& a, const Tensor& b, double weight);
Tensor addcmul(const Tensor& x, const Tensor& a, const Tensor& b,
               double value = 1);  // x + value·a·b

Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& a);

Tensor neg(const Tensor& x);
Tensor abs(const Tensor& x);  // gradient 0 at 0
Tensor square(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor exp(const Tensor& x);  // class full, as are the next
Tensor exp2(const Tensor& x);
Tensor log(const Tensor& x);
Tensor log2(const Tensor& x);
Tensor log1p(const Tensor& x);
Tensor expm1(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor tan(const Tensor& x);
Tensor erf(const Tensor& x);
// Constant by pieces: the gradient is 0. NaN and signed zeros stay.
Tensor sign(const Tensor& x);  // −1, 0 or 1
Tensor floor(const Tensor& x);
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);  // halves to even
// Gradient passes where low ≤ x ≤ high, and at NaN. A bound of ±INFINITY bounds nothing.
Tensor clamp(const Tensor& x, double low, double high);
// Bounds that broadcast; an undefined one bounds nothing. Where low is above high the result is
// high, and a NaN of any operand wins. A bound has the gradient where it is the result and x is
// not.
Tensor clamp(const Tensor& x, const Tensor& low, const Tensor& high);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
// With a number for one of them, in the other's dtype; Error for a fraction beside integers.
Tensor where(const Tensor& condition, const Tensor& a, double b);
Tensor where(const Tensor& condition, double a, const Tensor& b);
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);  // value where mask is true

// Results of dtype bool, without a gradient.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
// With a number, rounded to a's dtype; Error for a fraction beside integers and for a bool tensor.
Tensor equal(const Tensor& a, double b);
Tensor not_equal(const Tensor& a, double b);
Tensor less(const Tensor& a, double b);
Tensor less_equal(const Tensor& a, double b);
Tensor greater(const Tensor& a, double b);
Tensor greater_equal(const Tensor& a, double b);
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& x);
Tensor is_finite(const Tensor& x);
Tensor is_nan(const Tensor& x);
Tensor is_inf(const Tensor& x);

// Sums `x` down to a shape that broadcasts to x's: the gradient of broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace binade
