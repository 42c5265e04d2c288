#include <binade/core/value_range.h>

#include <cmath>

#include <binade/core/kernels/elementwise.h>
#include <binade/core/kernels/reduce.h>

namespace binade {

namespace {

using kernels::ReduceOp;

double reduce_all(ReduceOp op, const Array& x) {
  const Array flat = x.reshape({-1});
  const Array out = Array::empty({1}, x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), reduce(op, flat, out, 0));
  return out.item();
}

// The extreme of the finite elements; infinite if there is none.
double extreme_of_finite(ReduceOp op, const Array& x) {
  const Array is_finite = Array::empty(x.shape(), DType::boolean, x.device());
  BINADE_DISPATCH(x.device(), test(kernels::TestOp::is_finite, x, is_finite));
  const double none = op == ReduceOp::min ? HUGE_VAL : -HUGE_VAL;
  const Array other = Array::full({}, none, x.dtype(), x.device()).expand(x.shape());
  const Array finite = Array::empty(x.shape(), x.dtype(), x.device());
  BINADE_DISPATCH(x.device(), where(is_finite, x, other, finite));
  return reduce_all(op, finite);
}

}  // namespace

Finiteness finiteness(const Array& x) {
  if (!x.defined() || !is_floating(x.dtype()) || x.numel() == 0) return Finiteness::finite;
  // max and min propagate NaN.
  const double high = reduce_all(ReduceOp::max, x);
  if (std::isnan(high)) return Finiteness::nan;
  if (std::isinf(high) || std::isinf(reduce_all(ReduceOp::min, x))) return Finiteness::infinite;
  return Finiteness::finite;
}

std::string describe_range(const Array& x) {
  if (!x.defined()) return "none";
  const std::string form = concat(x.dtype(), ' ', x.shape());
  if (x.numel() == 0 || x.dtype() == DType::boolean) return form;
  const Finiteness worst = finiteness(x);
  if (worst == Finiteness::finite)
    return concat(form, " in [", reduce_all(ReduceOp::min, x), ", ", reduce_all(ReduceOp::max, x),
                  "]");
  const double low = extreme_of_finite(ReduceOp::min, x);
  if (std::isinf(low)) return concat(form, ", all NaN or inf");
  return concat(form, " in [", low, ", ", extreme_of_finite(ReduceOp::max, x), "] and ",
                worst == Finiteness::nan ? "NaN" : "inf");
}

}  // namespace binade
