#include <binade/autograd/ops/kept_gradient.h>

#include <binade/core/kernels/elementwise.h>

namespace binade::ops {

void KeptGradient::expect(bool in_parts) {
  ++expected_;
  ++left_;
  in_parts_ = in_parts_ || in_parts;
}

GradSlot::Destination KeptGradient::open(const Tensor& input, DType dtype) {
  const bool first = left_ == expected_;
  if (first) {
    same_dtype_ = dtype == input.dtype();
    if (same_dtype_) loan_ = GradLoan::take(input);
    if (!loan_) kept_ = Array::empty(input.shape(), dtype, input.device());
    if (is_half(dtype) && (in_parts_ || expected_ > 1))
      sum_ = Array::empty(input.shape(), DType::f32, input.device());
  }
  return {sum_.defined() ? sum_ : kept(), first ? 0.0F : 1.0F};
}

void KeptGradient::close() {
  if (--left_ > 0 || !sum_.defined()) return;
  BINADE_DISPATCH(sum_.device(), copy(sum_, kept()));
  sum_ = {};
}

void KeptGradient::give(Backward& backward, int i, const Array& factor) {
  GradSlot& slot = backward.slot(i);
  if (expected_ == 0 || !slot.needed()) return;
  const auto scale_to = [&](const GradSlot::Destination& to) {
    BINADE_DISPATCH(factor.device(), scale(kept(), factor, to.array, to.beta));
  };
  if (backward.retained()) {
    scale_to(slot.open());
  } else if (loan_ && slot.accept(loan_)) {
    scale_to({kept(), 0});
  } else if (!loan_ && same_dtype_) {
    scale_to({kept_, 0});
    slot.add(kept_);
  } else {
    scale_to(slot.open());  // ends the loan, if the slot is its leaf's: the values move
  }
  if (backward.retained()) return;
  kept_ = {};
  loan_ = nullptr;
}

}  // namespace binade::ops
