#include <binade/core/precision.h>

#include <utility>

namespace binade {

namespace {
thread_local const PrecisionPolicy* slot = nullptr;
thread_local const Array* loss_scale_slot = nullptr;
}  // namespace

const PrecisionPolicy* current_precision_policy() {
  return slot;
}

const PrecisionPolicy* exchange_precision_policy(const PrecisionPolicy* policy) {
  return std::exchange(slot, policy);
}

const Array* current_loss_scale() {
  return loss_scale_slot;
}

const Array* exchange_loss_scale(const Array* scale) {
  return std::exchange(loss_scale_slot, scale);
}

}  // namespace binade
